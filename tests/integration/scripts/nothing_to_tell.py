"""Neither a DataLoader nor an optimizer: gradients are applied by hand."""

import torch

weights = torch.zeros(4, 1, requires_grad=True)
for _i in range(500):
    (torch.randn(8, 4) @ weights - 1).square().mean().backward()
    with torch.no_grad():
        weights -= 0.01 * weights.grad
    weights.grad = None
