"""A plain training loop whose data set waits 8 ms a row, like a disk; 3 epochs of 25 batches."""

import argparse
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        time.sleep(0.008)
        return torch.full((8,), float(index)), index % 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("-j", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(Rows(), batch_size=16, shuffle=True, num_workers=options.j)
    for epoch in range(options.epochs):
        for rows, labels in loader:
            loss = nn.functional.cross_entropy(model(rows), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.save(model.state_dict(), "model.pt")
        print("epoch", epoch, loss.item())


if __name__ == "__main__":
    main()
