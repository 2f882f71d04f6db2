"""The selective scan of Mamba, with a backward pass that recomputes the state block by block.

h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t,  y_t = C_t h_t + D x_t   (Gu & Dao 2023, algorithm 2)

Autograd over a plain loop would keep some (batch, length, channels, state) tensors. Here a thread
holds the states of one block of rows at a time, in a buffer that all its blocks share. All that is
done to a state at a step is done at once, in place, while it lies in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctrkit.models.packing import Block
from ctrkit.models.threads import share_out


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


class _Terms(NamedTuple):
    """What a step reads, or the gradients of that."""

    x: Tensor
    dt: Tensor
    b: Tensor
    c: Tensor

    def of(self, block: Block) -> _Terms:
        """The block's tokens."""
        return _Terms(*(tensor[block.start : block.stop] for tensor in self))


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dt: Tensor,
        a: Tensor,
        b: Tensor,
        c: Tensor,
        d: Tensor,
        blocks: tuple[Block, ...],
    ) -> Tensor:
        terms = _Terms(*(tensor.contiguous() for tensor in (x, dt, b, c)))
        ctx.save_for_backward(*terms, a, d)
        ctx.blocks = blocks = tuple(block for block in blocks if block.steps)
        rates, y = a.t().contiguous(), terms.x.new_empty(x.shape)

        def work(share: Iterator[Block]) -> None:
            scratch = x.new_empty(2, max(block.rows for block in blocks), *rates.shape)
            for block in share:
                part, result = terms.of(block), y[block.start : block.stop]
                _forward_block(part, rates, result, scratch[:, : block.rows])
                result.addcmul_(part.x, d)

        share_out(work, blocks, x.device)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        *saved, a, d = ctx.saved_tensors
        terms = _Terms(*saved)
        blocks: tuple[Block, ...] = ctx.blocks
        grad_y, rates = grad_y.contiguous(), a.t().contiguous()
        grads = _Terms(*(torch.empty_like(tensor) for tensor in terms))
        # One sum per block: their order, and so the rounding, is the same with any threads.
        grad_rates = rates.new_empty(len(blocks), *rates.shape)
        grad_d = d.new_empty(len(blocks), *d.shape)

        def work(share: Iterator[tuple[int, Block]]) -> None:
            states = rates.new_empty(max(block.size + block.rows for block in blocks), *rates.shape)
            scratch = rates.new_empty(4, max(block.rows for block in blocks), *rates.shape)
            for place, block in share:
                part, wanted, grad = (
                    terms.of(block),
                    grads.of(block),
                    grad_y[block.start : block.stop],
                )
                _backward_block(
                    part, rates, grad, wanted, grad_rates[place], states, scratch[:, : block.rows]
                )
                wanted.x.addcmul_(grad, d)
                torch.sum(grad * part.x, 0, out=grad_d[place])

        share_out(work, tuple(enumerate(blocks)), grad_y.device)
        return grads.x, grads.dt, grad_rates.sum(0).t(), grads.b, grads.c, grad_d.sum(0), None


def _by_step(part: Tensor, rows: int) -> tuple[Tensor, ...]:
    """A block's (rows, 1, width) view of each step."""
    return part.view(-1, rows, 1, part.shape[1]).unbind(0)


def _forward_block(terms: _Terms, rates: Tensor, y: Tensor, scratch: Tensor) -> None:
    """Write C_t h_t to y.

    `rates` is A transposed, (state, channels), as `scratch` is (2, rows, state, channels): channels
    innermost let every operation run over contiguous memory.
    """
    decay, state = scratch
    inputs = terms.dt * terms.x
    state.zero_()
    for dt_t, u_t, b_t, c_t, y_t in zip(
        *(_by_step(part, len(state)) for part in (terms.dt, inputs, terms.b, terms.c, y)),
        strict=True,
    ):
        torch.mul(dt_t, rates, out=decay).exp_()
        state.mul_(decay).addcmul_(b_t.mT, u_t)
        torch.bmm(c_t, state, out=y_t)


def _backward_block(
    terms: _Terms,
    rates: Tensor,
    grad_y: Tensor,
    grads: _Terms,
    grad_rates: Tensor,
    states: Tensor,
    scratch: Tensor,
) -> None:
    """Write the gradients of one block, all but the skip connection's.

    With g_t the gradient of h_t: g_t = C_t gy_t + exp(dt_(t+1) A) g_(t+1), and the gradient of
    dt_t A is g_t exp(dt_t A) h_(t-1). The states are computed anew forwards, and read backwards.
    """
    decay, grad_h, product, rate_sums = scratch
    rows = len(decay)
    inputs, grad_inputs = terms.dt * terms.x, torch.empty_like(terms.x)
    dt, u, b, c = (_by_step(part, rows) for part in (terms.dt, inputs, terms.b, terms.c))
    gdt, gu, gb, gc = (_by_step(part, rows) for part in (grads.dt, grad_inputs, grads.b, grads.c))
    gy = _by_step(grad_y, rows)
    h = torch.split(states[: len(grad_y) + rows], rows)
    h[0].zero_()
    for t in range(len(u)):
        torch.mul(dt[t], rates, out=decay).exp_()
        torch.mul(h[t], decay, out=h[t + 1]).addcmul_(b[t].mT, u[t])
        torch.bmm(gy[t], h[t + 1].mT, out=gc[t])
    grad_h.zero_()
    rate_sums.zero_()
    ones = rates.new_ones(rows, 1, len(rates))
    for t in reversed(range(len(u))):
        grad_h.addcmul_(c[t].mT, gy[t])
        torch.bmm(u[t], grad_h.mT, out=gb[t])
        torch.bmm(b[t], grad_h, out=gu[t])
        torch.mul(dt[t], rates, out=decay).exp_()
        torch.mul(grad_h.mul_(decay), h[t], out=product)
        rate_sums.addcmul_(product, dt[t])
        torch.bmm(ones, product.mul_(rates), out=gdt[t])  # its sum over the state
    torch.sum(rate_sums, 0, out=grad_rates)
    torch.mul(grad_inputs, terms.dt, out=grads.x)
    grads.dt.addcmul_(grad_inputs, terms.x)
