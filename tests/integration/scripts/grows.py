"""A curriculum: two stages, and in each epoch a loader over more rows than before."""

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset


def main():
    data = TensorDataset(torch.randn(320, 4), torch.randn(320, 1))
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for lr in (0.1, 0.01):
        for epoch in range(3):
            loader = DataLoader(Subset(data, range(80 * (epoch + 1))), batch_size=8)
            for x, y in loader:
                optimizer.zero_grad()
                (lr * torch.nn.functional.mse_loss(model(x), y)).backward()
                optimizer.step()


if __name__ == "__main__":
    main()
