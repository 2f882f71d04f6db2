"""An epoch has fewer batches than its loader: `left_early.py break|zip|error`."""

import sys

import torch
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self, count, broken=None):
        self.count, self.broken = count, broken

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        if row == self.broken:
            raise ValueError(f"row {row} is broken")
        return torch.full((4,), row / self.count)


def most(loader):
    """Batches of the loader until the script has enough of them."""
    for i, batch in enumerate(loader):
        if i == 12:
            break
        yield batch


def without_the_broken(loader):
    iterator = iter(loader)
    while True:
        try:
            yield next(iterator)
        except StopIteration:
            return
        except ValueError:
            continue


def main():
    torch.manual_seed(0)
    loader = DataLoader(Rows(160, 77 if sys.argv[1] == "error" else None), batch_size=8)
    shorter = DataLoader(Rows(96), batch_size=8)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(3):
        if sys.argv[1] == "break":
            batches = most(loader)
        elif sys.argv[1] == "zip":
            batches = (rows for _, rows in zip(shorter, loader))
        else:
            batches = without_the_broken(loader)
        for rows in batches:
            optimizer.zero_grad()
            model(rows).pow(2).mean().backward()
            optimizer.step()


if __name__ == "__main__":
    main()
