"""A script without a DataLoader: it indexes an array at random."""

import torch
from torch import nn

torch.manual_seed(0)
rows, labels = torch.randn(20_000, 64), torch.randint(0, 4, (20_000,))
model = nn.Sequential(
    nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4)
)
optimizer = torch.optim.Adam(model.parameters())
for _ in range(3000):
    chosen = torch.randint(0, len(rows), (64,))
    loss = nn.functional.cross_entropy(model(rows[chosen]), labels[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"{loss.item():.4f}")
