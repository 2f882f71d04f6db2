"""No DataLoader: an array indexed at random, two micro steps per optimizer step."""

import torch

torch.manual_seed(0)
data = torch.randn(1000, 4)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
gradient_accumulation_steps = 2
max_iters = 60
iter_num = 0
while True:
    for _micro_step in range(gradient_accumulation_steps):
        rows = data[torch.randint(1000, (8,))]
        (model(rows).square().mean() / gradient_accumulation_steps).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    iter_num += 1
    if iter_num > max_iters:
        break
