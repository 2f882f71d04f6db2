"""Endless loaders for training and validation, few batches, and steps that get rarer at first."""

import torch
from endless import InfiniteDataLoader
from torch.utils.data import TensorDataset


class Trainer:
    def __init__(self):
        self.epochs, self.epoch, self.stop = 3, 0, False

    def train(self):
        torch.manual_seed(0)
        data = TensorDataset(torch.randn(60, 4), torch.randn(60, 1))
        loader = InfiniteDataLoader(data, batch_size=8, shuffle=True)
        held_out = InfiniteDataLoader(data, batch_size=30)
        model = torch.nn.Linear(4, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        seen = stepped = 0
        while True:
            bar = enumerate(loader)
            for _i, batch in bar:
                seen += 1
                torch.nn.functional.mse_loss(model(batch[0]), batch[1]).backward()
                if seen - stepped >= min(6, 1 + seen // 2):
                    stepped = seen
                    optimizer.step()
                    optimizer.zero_grad()
            for x, _y in held_out:
                model(x)
            torch.save(model.state_dict(), "last.pt")
            self.epoch += 1
            self.stop = self.epoch >= self.epochs
            if self.stop:
                break


if __name__ == "__main__":
    Trainer().train()
