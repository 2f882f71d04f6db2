"""Trains on batches that it keeps, or often on each one: `kept_batches.py cycle|list|one|inner`."""

import itertools
import sys

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(80, 4), torch.randn(80, 1))
    loader = DataLoader(data, batch_size=8, shuffle=True)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches, times = loader, 1
    if sys.argv[1] == "cycle":
        batches = itertools.islice(itertools.cycle(loader), 200)
    elif sys.argv[1] == "list":
        batches = list(loader) * 20
    elif sys.argv[1] == "one":
        batches = [next(iter(loader))] * 200
    else:
        times = 60
    for rows, labels in batches:
        for _ in range(times):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(rows), labels).backward()
            optimizer.step()
    print("done")


if __name__ == "__main__":
    main()
