"""A GAN: two optimizers, three backward passes a batch, no main guard."""

import torch
from slow_rows import SlowRows
from torch import nn
from torch.utils.data import DataLoader

torch.manual_seed(0)
loader = DataLoader(SlowRows(1024), batch_size=32, shuffle=True)
makes = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 64))
judges = nn.Sequential(nn.Linear(64, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1))
first = torch.optim.Adam(judges.parameters(), lr=2e-4)
second = torch.optim.Adam(makes.parameters(), lr=2e-4)
loss_of = nn.BCEWithLogitsLoss()
for epoch in range(3):
    for real, _ in loader:
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        first.zero_grad()
        loss_of(judges(real), ones).backward()
        made = makes(torch.randn(len(real), 16))
        loss_of(judges(made.detach()), zeros).backward()
        first.step()
        second.zero_grad()
        loss = loss_of(judges(made), ones)
        loss.backward()
        second.step()
    print(f"epoch {epoch}: {loss.item():.4f}", flush=True)
