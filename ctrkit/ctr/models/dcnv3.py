"""The static branch: linear and exponential cross layers of DCNv3 (Li et al. 2024, 2407.13349)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossLayer(nn.Module):
    """Computes anchor * [c ; c * mask] + x, c = W x + b, mask = ReLU(LayerNorm(c)) (section 4).

    `forward(anchor (batch, width), x (batch, width)) -> (batch, width)`, width even. The anchor of
    a linear cross layer (LCN) is the first input, that of an exponential one (ECN) is x itself.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cross = nn.Linear(width, width // 2)
        self.norm = nn.LayerNorm(width // 2)

    def forward(self, anchor: Tensor, x: Tensor) -> Tensor:
        c = self.cross(x)
        return torch.addcmul(x, anchor, torch.cat([c, c * torch.relu(self.norm(c))], dim=1))


class DCNv3(nn.Module):
    """Both cross networks side by side on (batch, width); their mean, projected to out_width."""

    def __init__(self, width: int, out_width: int, *, layers: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.ModuleList(CrossLayer(width) for _ in range(layers))
        self.exponential = nn.ModuleList(CrossLayer(width) for _ in range(layers))
        self.out = nn.Sequential(nn.Linear(width, out_width), nn.ReLU(), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        linear = exponential = x
        for layer in self.linear:
            linear = layer(x, linear)
        for layer in self.exponential:
            exponential = layer(exponential, exponential)
        out: Tensor = self.out((linear + exponential) / 2)
        return out
