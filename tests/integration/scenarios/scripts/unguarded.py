"""A training script without `if __name__ == "__main__":`, as spawned workers find it."""

from torch.utils.data import DataLoader

for _batch in DataLoader([0.0] * 64, num_workers=1, multiprocessing_context="spawn"):  # guilty
    pass
