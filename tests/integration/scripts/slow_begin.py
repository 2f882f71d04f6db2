"""Its first row of each epoch takes 0.4 s; it evaluates after every other epoch, for 0.3 s."""

import time

import torch
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __init__(self, wait_s):
        self.wait_s = wait_s

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index == 0:
            time.sleep(self.wait_s)
        return torch.ones(4)


def main():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    train, test = DataLoader(Rows(0.4), batch_size=8), DataLoader(Rows(0.3), batch_size=8)
    for epoch in range(5):
        for x in train:
            optimizer.zero_grad()
            model(x).mean().backward()
            optimizer.step()
        if epoch % 2 == 0:
            with torch.no_grad():
                for x in test:
                    model(x)


if __name__ == "__main__":
    main()
