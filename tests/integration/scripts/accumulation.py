"""Gradient accumulation: four batches to an optimizer step."""

import torch
from torch.utils.data import DataLoader, TensorDataset

EPOCHS, ACCUMULATE = 2, 4


def train():
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(torch.randn(240, 4), torch.randn(240, 1)), batch_size=6)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    for _epoch in range(EPOCHS):
        for number, (x, y) in enumerate(loader, 1):
            (torch.nn.functional.mse_loss(model(x), y) / ACCUMULATE).backward()
            if number % ACCUMULATE == 0:
                optimizer.step()
                optimizer.zero_grad()


if __name__ == "__main__":
    train()
