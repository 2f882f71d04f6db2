"""The sequence branch of selective state-space layers (Gu & Dao 2023, arXiv 2312.00752)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctrkit.models.packing import Block, Packing
from ctrkit.models.scan import selective_scan
from ctrkit.models.threads import share_out

EXPAND = 2
TAPS = 4
STATE = 16
RANK = 8
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class MambaBranch(nn.Module):
    """Packed, embedded histories to one vector a row: the mean over its real steps, 0 without any.

    `forward(tokens (tokens, in_width), packing) -> (batch, width)`. Dropout falls on this vector
    only: the layers have none, as in the paper.
    """

    def __init__(self, in_width: int, width: int, *, layers: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(in_width, width)
        self.layers = nn.ModuleList(MambaLayer(width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, packing: Packing) -> Tensor:
        tokens = self.enter(tokens)
        for layer in self.layers:
            tokens = layer(tokens, packing.blocks)
        out: Tensor = self.dropout(packing.mean(tokens))
        return out


class MambaLayer(nn.Module):
    """A pre-norm residual block: (tokens, width) to the same; no step sees a later one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = EXPAND * width
        self.norm = nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv_weight = nn.Parameter(
            torch.empty(TAPS, inner).uniform_(-(TAPS**-0.5), TAPS**-0.5)
        )
        self.conv_bias = nn.Parameter(torch.empty(inner).uniform_(-(TAPS**-0.5), TAPS**-0.5))
        self.x_proj = nn.Linear(inner, RANK + 2 * STATE, bias=False)
        self.dt_proj = nn.Linear(RANK, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, STATE + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._init_dt()

    def _init_dt(self) -> None:
        """Let dt start log-uniform in [DT_MIN, DT_MAX] (paper, section 3.6 and its code)."""
        nn.init.uniform_(self.dt_proj.weight, -(RANK**-0.5), RANK**-0.5)
        low, high = math.log(DT_MIN), math.log(DT_MAX)
        dt = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp().clamp(min=DT_FLOOR)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus inverted

    def forward(self, tokens: Tensor, blocks: Sequence[Block]) -> Tensor:
        x, z = self.in_proj(self.norm(tokens)).chunk(2, dim=1)
        x = F.silu(causal_conv(x, self.conv_weight, self.conv_bias, blocks))
        low, b, c = self.x_proj(x).split([RANK, STATE, STATE], dim=1)
        dt = F.softplus(self.dt_proj(low))
        y = selective_scan(x, dt, -self.A_log.exp(), b, c, self.D, blocks)
        out: Tensor = tokens + self.out_proj(y * F.silu(z))
        return out


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, blocks: Sequence[Block]) -> Tensor:
    """Depthwise convolution over time: y_t = bias + sum over k of weight[-1 - k] x_(t-k).

    Args:
        x: (tokens, channels), laid out as `ctrkit.models.packing` does.
        weight: (taps, channels), the last tap is of the step itself.
        bias: (channels,).
        blocks: they cover all tokens.

    Returns:
        y: (tokens, channels); what lies before a row's first step counts as 0.
    """
    y: Tensor = _CausalConv.apply(x, weight, bias, tuple(blocks))  # type: ignore[no-untyped-call]
    return y


class _CausalConv(torch.autograd.Function):
    """In the packed layout a shift by k steps is a shift by k * rows tokens, without a copy."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, blocks: tuple[Block, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.blocks = blocks = tuple(block for block in blocks if block.steps)
        y = x.new_empty(x.shape)

        def work(share: Iterator[Block]) -> None:
            for block in share:
                given, result = x[block.start : block.stop], y[block.start : block.stop]
                torch.addcmul(bias, given, weight[-1], out=result)
                for lag in range(1, min(len(weight), block.steps)):
                    shift = lag * block.rows
                    result[shift:].addcmul_(given[:-shift], weight[-1 - lag])

        share_out(work, blocks, x.device)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = x.new_empty(x.shape)
        grad_weight = weight.new_zeros(len(ctx.blocks), *weight.shape)

        def work(share: Iterator[tuple[int, Block]]) -> None:
            for place, block in share:
                own = slice(block.start, block.stop)
                given, grad, result = x[own], grad_y[own], grad_x[own]
                torch.mul(grad, weight[-1], out=result)
                torch.sum(grad * given, 0, out=grad_weight[place, -1])
                for lag in range(1, min(len(weight), block.steps)):
                    shift = lag * block.rows
                    result[:-shift].addcmul_(grad[shift:], weight[-1 - lag])
                    product = grad[shift:] * given[:-shift]
                    torch.sum(product, 0, out=grad_weight[place, -1 - lag])

        share_out(work, tuple(enumerate(ctx.blocks)), x.device)
        return grad_x, grad_weight.sum(0), grad_y.sum(0), None
