"""Validates in every so many epochs only, and saves in the first of every two."""

import sys

import torch
from torch.utils.data import DataLoader, TensorDataset


def evaluate(model, loader):
    with torch.no_grad():
        return sum(torch.nn.functional.mse_loss(model(x), y).item() for x, y in loader)


def main(path, every, epochs=12):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(160, 4), torch.randn(160, 1))
    loader, held = DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size=8)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
        if epoch % 10 == 9:
            print("ten more")
        if (epoch + 1) % every == 0 or epoch == epochs - 1:
            evaluate(model, held)
        if epoch % 2:
            continue
        torch.save(model.state_dict(), path)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
