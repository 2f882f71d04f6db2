"""The sequence branch of the Behavior Sequence Transformer (Chen et al. 2019, arXiv 1905.06874)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrkit.ctr.models.packing import Packing


class BSTBranch(nn.Module):
    """Maps packed, embedded histories, each followed by its target, to one vector per row.

    `forward(tokens (tokens, in_width), packing) -> (batch, width)`. Every row has at least one real
    step, its target, so an empty history attends to that. The learned positions are distances to
    the target; the paper uses the time before it. The output is the last layer's output at the
    target.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        *,
        layers: int,
        heads: int,
        hidden: int,
        longest: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.enter = nn.Linear(in_width, width)
        self.position = nn.Embedding(longest, width)
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads=heads, hidden=hidden, dropout=dropout)
            for _ in range(layers)
        )

    def forward(self, tokens: Tensor, packing: Packing) -> Tensor:
        tokens = self.enter(tokens) + self.position(packing.steps_left())
        for layer in self.layers:
            tokens = layer(tokens, packing)
        return packing.last(tokens)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each with dropout, residual and norm after it (paper, eq.

    3-5).

    `forward(tokens (tokens, width), packing) -> (tokens, width)`: a row attends to its real steps.
    """

    def __init__(self, width: int, *, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, hidden), nn.LeakyReLU(), nn.Linear(hidden, width)
        )
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, packing: Packing) -> Tensor:
        tokens = self.norm1(tokens + self.dropout(self.mix(self.attend(tokens, packing))))
        out: Tensor = self.norm2(tokens + self.dropout(self.feed(tokens)))
        return out

    def attend(self, tokens: Tensor, packing: Packing) -> Tensor:
        """Compute softmax(Q K^T / sqrt(d)) V over the real steps of each row, all heads at once."""
        parts = []
        for qkv, real, block in zip(
            packing.split(self.qkv(tokens)),
            packing.split(packing.real),
            packing.blocks,
            strict=True,
        ):
            q, k, v = qkv.view(block.steps, block.rows, 3, self.heads, -1).permute(2, 1, 3, 0, 4)
            keys = real.view(block.steps, 1, 1, block.rows).permute(3, 1, 2, 0)
            read = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
            parts.append(read.permute(2, 0, 1, 3).reshape(block.size, -1))
        return torch.cat(parts)
