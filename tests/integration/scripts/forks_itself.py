"""Trains in a process that it forks, which ends without running exit handlers."""

import multiprocessing
import os
import sys

import torch
from torch.utils.data import DataLoader, TensorDataset


def train():
    data = TensorDataset(torch.randn(80, 4), torch.randn(80, 1))
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(3):
        for x, y in DataLoader(data, batch_size=8):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        print("epoch", epoch, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "fork":
        child = os.fork()
        if child:
            sys.exit(os.WEXITSTATUS(os.waitpid(child, 0)[1]))
        train()
        os._exit(7)
    child = multiprocessing.get_context("fork").Process(target=train)
    child.start()
    child.join()
