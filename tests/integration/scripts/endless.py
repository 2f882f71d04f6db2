"""A loader that never ends, and keeps its iterator from its construction on."""

import torch
from torch.utils.data import DataLoader, TensorDataset


class Repeat:
    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        while True:
            yield from iter(self.sampler)


class InfiniteDataLoader(DataLoader):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "batch_sampler", Repeat(self.batch_sampler))
        self.iterator = super().__iter__()

    def __len__(self):
        return len(self.batch_sampler.sampler)

    def __iter__(self):
        for _ in range(len(self)):
            yield next(self.iterator)


class Trainer:
    def __init__(self):
        self.epochs, self.epoch = 4, 0

    def train(self):
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(120, 4), torch.randn(120, 1))
        loader = InfiniteDataLoader(data, batch_size=8, shuffle=True)
        held_out = DataLoader(data, batch_size=60)
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        while True:
            for _i, batch in enumerate(loader):
                optimizer.zero_grad()
                torch.nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
                optimizer.step()
            for x, _y in held_out:
                model(x)
            self.epoch += 1
            if self.epoch >= self.epochs:
                break


if __name__ == "__main__":
    Trainer().train()
