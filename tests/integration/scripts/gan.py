"""A GAN without a main guard: three backward passes and two optimizer steps a batch."""

import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
loader = DataLoader(TensorDataset(torch.randn(160, 4)), batch_size=8, shuffle=True)
generator, critic = torch.nn.Linear(2, 4), torch.nn.Linear(4, 1)
of_generator = torch.optim.Adam(generator.parameters())
of_critic = torch.optim.Adam(critic.parameters())
loss_of = torch.nn.BCEWithLogitsLoss()
niter = 3
for _epoch in range(niter):
    for _i, (real,) in enumerate(loader, 0):
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        critic.zero_grad()
        loss_of(critic(real), ones).backward()
        fake = generator(torch.randn(len(real), 2))
        loss_of(critic(fake.detach()), zeros).backward()
        of_critic.step()
        generator.zero_grad()
        loss_of(critic(fake), ones).backward()
        of_generator.step()
