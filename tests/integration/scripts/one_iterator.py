"""Validates on some batches every 25 steps, with an iterator that is made once."""

import itertools

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(400, 4), torch.randn(400, 1))
    held_out = itertools.cycle(DataLoader(data, batch_size=20))
    loader = DataLoader(data, batch_size=4, shuffle=True)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(3):
        for number, (x, y) in enumerate(loader, 1):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
            if number % 25 == 0:
                with torch.no_grad():
                    for _ in range(4):
                        model(next(held_out)[0])


if __name__ == "__main__":
    main()
