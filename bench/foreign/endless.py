"""A loop that never ends, over a data set that claims 10,000,000,000 rows."""

import torch
from slow_rows import SlowRows
from torch import nn
from torch.utils.data import DataLoader, RandomSampler


def main() -> None:
    torch.manual_seed(0)
    data = SlowRows(10_000_000_000)
    sampler = RandomSampler(data, replacement=True, num_samples=10_000_000_000)
    loader = DataLoader(data, sampler=sampler, batch_size=32)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.Adam(model.parameters())
    batches = iter(loader)
    while True:
        try:
            rows, labels = next(batches)
        except StopIteration:
            batches = iter(loader)
            continue
        loss = nn.functional.binary_cross_entropy_with_logits(model(rows).squeeze(1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    main()
