"""Prints the rows of each batch of a seeded shuffle, epoch by epoch."""

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(3)
    loader = DataLoader(TensorDataset(torch.arange(24.0)), batch_size=6, shuffle=True)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for _ in range(3):
        for (x,) in loader:
            print(x.int().tolist())
            optimizer.zero_grad()
            model(x[:, None]).mean().backward()
            optimizer.step()


if __name__ == "__main__":
    main()
