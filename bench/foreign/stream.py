"""An IterableDataset that does not ask which worker it is in."""

import torch
from slow_rows import SlowRows
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


class Stream(IterableDataset):
    """All rows, whoever asks."""

    def __init__(self, rows: int) -> None:
        self.rows = SlowRows(rows)

    def __iter__(self):
        return iter(self.rows)


def main() -> None:
    torch.manual_seed(0)
    loader = DataLoader(Stream(1024), batch_size=32)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(3):
        for rows, labels in loader:
            loss = nn.functional.binary_cross_entropy_with_logits(model(rows).squeeze(1), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
