"""Makes torch warn of a loader's workers and of its length, naming the line of the loop."""

import sys

import torch
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    def __len__(self):
        return 8  # it has more

    def __iter__(self):
        return iter(torch.ones(40, 1))


def main():
    DataLoader(Stream(), num_workers=999)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    loader = DataLoader(Stream(), batch_size=4)
    len(loader)  # only then is it held to it
    for _ in range(2):
        for x in loader:
            model(x).mean().backward()
            optimizer.step()
    other = DataLoader(Stream(), batch_size=4)
    len(other)
    for _ in other:  # not trained on
        pass
    sys.stderr.flush()


if __name__ == "__main__":
    main()
