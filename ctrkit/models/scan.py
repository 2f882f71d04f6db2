"""The selective scan of Mamba, with a backward pass that recomputes the state block by block.

h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t,  y_t = C_t h_t + D x_t   (Gu & Dao 2023, algorithm 2)

Autograd over a plain loop would keep some (batch, length, channels, state) tensors. Here no more
than the states of one block of rows exist at a time, in a buffer that all blocks share. All that is
done to a state at a step is done at once, in place, while it lies in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctrkit.models.packing import Block


def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, blocks: Sequence[Block]
) -> Tensor:
    """Run the recurrence over the steps of every row of every block.

    Args:
        x: (tokens, channels), the input, laid out as `ctrkit.models.packing` does.
        dt: (tokens, channels), the step sizes, after softplus.
        a: (channels, state), not positive.
        b: (tokens, state), projection of the input.
        c: (tokens, state), projection of the state.
        d: (channels,), skip connection.
        blocks: they cover all tokens. One `Block(0, length, batch)` takes tensors of
            (length, batch, ...), flattened to tokens.

    Returns:
        y: (tokens, channels), of x's dtype.
    """
    y: Tensor = _SelectiveScan.apply(x, dt, a, b, c, d, tuple(blocks))  # type: ignore[no-untyped-call]
    return y


def _rows(tensor: Tensor, block: Block) -> tuple[Tensor, ...]:
    """The block's (rows, 1, width) view of each step."""
    part = tensor[block.start : block.stop]
    return part.view(block.steps, block.rows, 1, tensor.shape[1]).unbind(0)


def _columns(tensor: Tensor, block: Block) -> tuple[Tensor, ...]:
    """The block's (rows, width, 1) view of each step."""
    part = tensor[block.start : block.stop]
    return part.view(block.steps, block.rows, tensor.shape[1], 1).unbind(0)


def _buffers(like: Tensor, rates: Tensor, rows: int, count: int) -> list[Tensor]:
    """`count` zero tensors of (rows, state, channels)."""
    return [like.new_zeros(rows, *rates.shape) for _ in range(count)]


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        blocks: tuple[Block, ...],
    ) -> Tensor:
        x, dt, b, c = (tensor.contiguous() for tensor in (x, dt, b, c))
        ctx.save_for_backward(x, dt, a, b, c, d)
        ctx.blocks = blocks
        rates, inputs, y = a.t().contiguous(), x * dt, torch.empty_like(x)
        decays, states = _buffers(x, rates, max((block.rows for block in blocks), default=0), 2)
        for block in blocks:
            decay, state = decays[: block.rows], states[: block.rows].zero_()
            for dt_t, u_t, b_t, c_t, y_t in zip(
                _rows(dt, block),
                _rows(inputs, block),
                _columns(b, block),
                _rows(c, block),
                _rows(y, block),
                strict=True,
            ):
                torch.mul(dt_t, rates, out=decay).exp_()
                state.mul_(decay).addcmul_(b_t, u_t)
                torch.bmm(c_t, state, out=y_t)
        return y.addcmul_(x, d)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, dt, a, b, c, d = ctx.saved_tensors
        grad_y, inputs, rates = grad_y.contiguous(), x * dt, a.t().contiguous()
        grad_u, grad_dt, grad_b, grad_c = (torch.empty_like(like) for like in (x, dt, b, c))
        rows = max((block.rows for block in ctx.blocks), default=0)
        decays, grads, products, grad_rates = _buffers(x, rates, rows, 4)
        held = max(((block.steps + 1) * block.rows for block in ctx.blocks), default=0)
        states = x.new_empty(held, *rates.shape)
        ones = x.new_ones(rows, 1, rates.shape[0])
        for block in ctx.blocks:
            decay, grad_h, product, one, rate_sums = (
                buffer[: block.rows] for buffer in (decays, grads, products, ones, grad_rates)
            )
            h = states[: (block.steps + 1) * block.rows].split(block.rows)
            dt_, u, gy = _rows(dt, block), _rows(inputs, block), _rows(grad_y, block)
            b_column, grad_c_row = _columns(b, block), _rows(grad_c, block)
            h[0].zero_()
            for t in range(block.steps):
                torch.mul(dt_[t], rates, out=decay).exp_()
                torch.mul(h[t], decay, out=h[t + 1]).addcmul_(b_column[t], u[t])
                torch.bmm(gy[t], h[t + 1].transpose(1, 2), out=grad_c_row[t])
            b_row, c_column = _rows(b, block), _columns(c, block)
            grad_b_row, gu, gdt = _rows(grad_b, block), _rows(grad_u, block), _rows(grad_dt, block)
            grad_h.zero_()
            for t in reversed(range(block.steps)):
                grad_h.addcmul_(c_column[t], gy[t])
                torch.bmm(u[t], grad_h.transpose(1, 2), out=grad_b_row[t])
                torch.bmm(b_row[t], grad_h, out=gu[t])
                torch.mul(dt_[t], rates, out=decay).exp_()
                grad_h.mul_(decay)
                torch.mul(grad_h, h[t], out=product)  # gradient of dt_t A
                rate_sums.addcmul_(product, dt_[t])
                torch.bmm(one, product.mul_(rates), out=gdt[t])
        grad_x = torch.addcmul(grad_u * dt, grad_y, d)
        grad_dt.addcmul_(grad_u, x)
        grad_d = (grad_y * x).sum(0)
        return grad_x, grad_dt, grad_rates.sum(0).t(), grad_b, grad_c, grad_d, None
