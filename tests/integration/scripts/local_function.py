"""A data set that holds a lambda, so it cannot be sent to a spawned worker."""

import torch
from torch.utils.data import DataLoader, Dataset


class Transformed(Dataset):
    def __init__(self):
        self.transform = lambda x: x * 2

    def __len__(self):
        return 160

    def __getitem__(self, index):
        return self.transform(torch.full((4,), float(index))), torch.zeros(1)


def main():
    loader = DataLoader(Transformed(), batch_size=8)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
