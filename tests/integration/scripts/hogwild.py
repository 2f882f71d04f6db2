"""Two processes that train the same model, each with its own loader; not a group of ranks."""

import torch
from torch import multiprocessing
from torch.utils.data import DataLoader, TensorDataset


def train(rank, model):
    torch.manual_seed(rank)
    data = TensorDataset(torch.randn(160, 4), torch.randn(160, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    for _ in range(20):
        for x, y in DataLoader(data, batch_size=8, shuffle=True):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    model = torch.nn.Linear(4, 1)
    model.share_memory()
    multiprocessing.spawn(train, (model,), nprocs=2)
