"""Trains beside the epochs of its first loader: `beside_epochs.py steps|phase`."""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    first = DataLoader(TensorDataset(torch.randn(160, 4)), batch_size=8, shuffle=True)
    second = DataLoader(TensorDataset(torch.randn(240, 4)), batch_size=8, shuffle=True)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(rows):
        optimizer.zero_grad()
        model(rows).pow(2).mean().backward()
        optimizer.step()

    for _epoch in range(3):
        for (rows,) in first:
            step(rows)
        if sys.argv[1] == "steps":
            for _ in range(20):
                step(rows)
    if sys.argv[1] == "phase":
        for _epoch in range(2):
            for (rows,) in second:
                step(rows)


if __name__ == "__main__":
    main()
