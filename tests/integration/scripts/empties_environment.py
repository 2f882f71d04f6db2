"""Empties its environment before it imports torch, and goes to another folder."""

import os

os.environ.clear()
os.chdir("/")

import torch  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402


def main():
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(80, 4)), batch_size=8, num_workers=1)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(3):
        for (rows,) in loader:
            optimizer.zero_grad()
            model(rows).pow(2).mean().backward()
            optimizer.step()


if __name__ == "__main__":
    main()
