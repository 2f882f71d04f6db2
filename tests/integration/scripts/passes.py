"""The training loader is also read without training: for statistics, and for the accuracy after."""

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    train_data = TensorDataset(torch.randn(120, 4), torch.randn(120, 1))
    loader = DataLoader(train_data, batch_size=8, shuffle=True)
    validation = DataLoader(TensorDataset(torch.randn(64, 4), torch.randn(64, 1)), batch_size=4)
    mean = sum(x.mean() for x, _ in loader) / len(loader)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    patience = 2
    for epoch in range(5):
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x - mean), y).backward()
            optimizer.step()
        for x, _y in validation:  # with gradients, as some frameworks do
            model(x)
        for x, _y in loader:
            model(x)
        if patience < 0:
            break
        print(epoch)


if __name__ == "__main__":
    main()
