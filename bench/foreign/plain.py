"""A plain loop with validation and a checkpoint."""

import torch
from slow_rows import SlowRows
from torch import nn
from torch.utils.data import DataLoader


def main() -> None:
    torch.manual_seed(0)
    loader = DataLoader(SlowRows(1536), batch_size=32, shuffle=True)
    held_out = DataLoader(SlowRows(256), batch_size=64)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.Adam(model.parameters())
    loss_of = nn.BCEWithLogitsLoss()
    for epoch in range(3):
        for rows, labels in loader:
            loss = loss_of(model(rows).squeeze(1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            lost = sum(loss_of(model(rows).squeeze(1), labels).item() for rows, labels in held_out)
        torch.save(model.state_dict(), "last.pt")
        print(f"epoch {epoch}: {loss.item():.4f} {lost:.4f}", flush=True)


if __name__ == "__main__":
    main()
