"""Gradient accumulation: one optimizer step for four batches."""

import torch
from slow_rows import SlowRows
from torch import nn
from torch.utils.data import DataLoader


def main() -> None:
    torch.manual_seed(0)
    loader = DataLoader(SlowRows(1536), batch_size=16, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_of = nn.BCEWithLogitsLoss()
    for epoch in range(3):
        for index, (rows, labels) in enumerate(loader):
            loss = loss_of(model(rows).squeeze(1), labels) / 4
            loss.backward()
            if (index + 1) % 4 == 0:
                optimizer.step()
                optimizer.zero_grad()
        print(f"epoch {epoch}: {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
