"""A loader that claims five batches and never ends, with either kind of data set."""

import sys

import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset


class Stream(IterableDataset):
    def __iter__(self):
        while True:
            yield torch.rand(4), torch.rand(1)


class FiveBatches(DataLoader):
    def __len__(self):
        return 5

    def __iter__(self):
        for x, y in super().__iter__():
            yield x * 2, y


def main():
    indexed = TensorDataset(torch.randn(160_000, 4), torch.randn(160_000, 1))
    loader = FiveBatches(indexed if "indexed" in sys.argv else Stream(), batch_size=4)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for number, (x, y) in enumerate(loader):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        if number > 30_000:
            break


if __name__ == "__main__":
    main()
