"""Each epoch makes its loaders anew, validates first, and takes only some of its batches."""

import itertools

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(6):
        data = TensorDataset(torch.randn(400, 4), torch.randn(400, 1))
        loader = DataLoader(data, batch_size=4, shuffle=True)
        held_out = DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=8)
        for (x,) in held_out:
            model(x)
        for x, y in itertools.islice(loader, 20):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        torch.save(model.state_dict(), "last.pt")


if __name__ == "__main__":
    main()
