"""An iterable data set that divides itself among workers only if told to."""

import sys

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info


class Stream(IterableDataset):
    def __iter__(self):
        for i in range(160):
            yield torch.full((4,), float(i)), torch.zeros(1)


class SharedStream(IterableDataset):
    def __iter__(self):
        yield from self._rows()

    def _rows(self):
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info else (0, 1)
        for i in range(first, 160, step):
            yield torch.full((4,), float(i)), torch.zeros(1)


def main():
    stream = SharedStream() if "shared" in sys.argv else Stream()
    loader = DataLoader(stream, batch_size=8)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    epoch = 0
    while epoch < 2:
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        epoch += 1


if __name__ == "__main__":
    main()
