"""A loader and its data set are made anew for each epoch; a second one gives batches, too."""

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    unlabelled = DataLoader(TensorDataset(torch.randn(120, 4)), batch_size=8)
    for _epoch in range(3):
        data = TensorDataset(torch.randn(120, 4), torch.randn(120, 1))
        labelled = DataLoader(data, batch_size=8, shuffle=True)
        for (other,), (x, y) in zip(unlabelled, labelled):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y) + model(other).square().mean()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
