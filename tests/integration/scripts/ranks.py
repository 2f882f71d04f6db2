"""Two ranks under torchrun, on gloo; the first argument is their number of rows."""

import sys

import torch
from torch import distributed
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def main():
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 320
    data = TensorDataset(torch.randn(rows, 4), torch.randn(rows, 1))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
