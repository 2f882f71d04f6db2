"""The depthwise causal convolution of Mamba over packed tokens.

In the packed layout a shift by k steps is a shift by k * rows tokens, without a copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctrkit.ctr.models.packing import PackedBlock
from ctrkit.ctr.models.threads import share_out


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, blocks: Sequence[PackedBlock]) -> Tensor:
    """Depthwise convolution over time: y_t = bias + sum over k of weight[-1 - k] x_(t-k).

    Args:
        x: (tokens, channels), laid out as in `ctrkit.ctr.models.packing`.
        weight: (taps, channels); the last tap is for the step itself.
        bias: (channels,).
        blocks: blocks that cover all tokens.

    Returns:
        y: (tokens, channels); steps before a row's first one count as 0.
    """
    y: Tensor = _CausalConv.apply(x, weight, bias, tuple(blocks))  # type: ignore[no-untyped-call]
    return y


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, blocks: tuple[PackedBlock, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.blocks = blocks = tuple(block for block in blocks if block.steps)
        y = x.new_empty(x.shape)

        def work(share: Iterator[PackedBlock]) -> None:
            for block in share:
                own = slice(block.start, block.stop)
                conv_forward(x[own], weight, bias, block.rows, y[own])

        share_out(work, blocks, x.device)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = x.new_empty(x.shape)
        grad_weight = weight.new_zeros(len(ctx.blocks), *weight.shape)

        def work(share: Iterator[tuple[int, PackedBlock]]) -> None:
            for place, block in share:
                own = slice(block.start, block.stop)
                conv_backward(
                    x[own], weight, grad_y[own], block.rows, grad_x[own], grad_weight[place]
                )

        share_out(work, tuple(enumerate(ctx.blocks)), x.device)
        return grad_x, grad_weight.sum(0), grad_y.sum(0), None


def conv_forward(x: Tensor, weight: Tensor, bias: Tensor, rows: int, y: Tensor) -> None:
    """Write one block's convolution to y; x and y are (steps * rows, channels)."""
    torch.addcmul(bias, x, weight[-1], out=y)
    for lag in range(1, min(len(weight), len(x) // rows)):
        shift = lag * rows
        y[shift:].addcmul_(x[:-shift], weight[-1 - lag])


def conv_backward(
    x: Tensor, weight: Tensor, grad_y: Tensor, rows: int, grad_x: Tensor, grad_weight: Tensor
) -> None:
    """Write one block's gradients; the bias's gradient is the sum of `grad_y`."""
    torch.mul(grad_y, weight[-1], out=grad_x)
    torch.sum(grad_y * x, 0, out=grad_weight[-1])
    steps = len(x) // rows
    # taps that reach back beyond the block's beginning
    grad_weight[: max(0, len(weight) - steps)] = 0
    for lag in range(1, min(len(weight), steps)):
        shift = lag * rows
        grad_x[:-shift].addcmul_(grad_y[shift:], weight[-1 - lag])
        torch.sum(grad_y[shift:] * x[:-shift], 0, out=grad_weight[-1 - lag])
