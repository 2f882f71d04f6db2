"""Prints the rows of each batch of a seeded shuffle, epoch by epoch.

`persistent`: as written with persistent workers; `generator`: with a generator of its own.
"""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(3)
    own = {}
    if "persistent" in sys.argv:
        own = {"num_workers": 2, "persistent_workers": True}
    if "generator" in sys.argv:
        own["generator"] = torch.Generator().manual_seed(5)
    loader = DataLoader(TensorDataset(torch.arange(24.0)), batch_size=6, shuffle=True, **own)
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
