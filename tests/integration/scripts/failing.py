"""A data set that raises at its fiftieth row."""

import torch
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __len__(self):
        return 100_000

    def __getitem__(self, index):
        if index == 50:
            raise ValueError("row 50 is broken")
        return torch.full((4,), float(index)), torch.zeros(1)


def main():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for _ in range(2):
        for x, y in DataLoader(Rows(), batch_size=8):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
