"""A loader that is no DataLoader, but uses torch's own iterators."""

import torch
from torch.utils.data.dataloader import _DatasetKind, _SingleProcessDataLoaderIter


class OwnLoader:
    _IterableDataset_len_called = None
    _auto_collation = False
    _index_sampler = range(1000)
    _dataset_kind = _DatasetKind.Iterable
    collate_fn = staticmethod(lambda batch: batch)
    drop_last, generator, timeout, num_workers, prefetch_factor = False, None, 0, 0, None
    pin_memory, pin_memory_device, persistent_workers, in_order = False, "", False, True
    multiprocessing_context = worker_init_fn = None

    def __init__(self, rows, labels):
        self.rows, self.labels, self.dataset = rows, labels, self

    def _get_shared_seed(self):
        return None

    def __iter__(self):
        for chosen in torch.randperm(len(self.rows)).split(8):
            yield self.rows[chosen], self.labels[chosen]


def main():
    torch.manual_seed(0)
    loader = OwnLoader(torch.randn(80, 4), torch.randn(80, 1))
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(3):
        for rows, labels in _SingleProcessDataLoaderIter(loader):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(rows), labels).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
