"""The selective scan of Mamba, with a backward pass that recomputes the state block by block.

h_t = exp(dt_t A) h_(t-1) + dt_t B_t x_t,  y_t = C_t h_t + D x_t   (Gu & Dao 2023, algorithm 2)

Autograd over a plain loop would keep several (batch, length, channels, state) tensors. Here a
thread holds the states of one block of rows at a time, in a buffer that all its blocks share.
Everything done to a state in a step is done at once and in place, while it is in the processor's
cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctrkit.ctr.models.packing import PackedBlock
from ctrkit.ctr.models.threads import share_out

#: Rows of a block whose states are held at once: on an accelerator (False) and on the CPU (True).
#: Fewer rows take less memory and as much time; with too few, threads wait for the interpreter
#: lock.
_ROWS_AT_ONCE = {False: 256, True: 16}


def selective_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, blocks: Sequence[PackedBlock]
) -> Tensor:
    """Run the recurrence over the steps of every row of every block.

    Args:
        x: (tokens, channels), the input, laid out as in `ctrkit.ctr.models.packing`.
        dt: (tokens, channels), the step sizes, after softplus.
        a: (channels, state), not positive.
        b: (tokens, state), input projection.
        c: (tokens, state), state projection.
        d: (channels,), skip connection.
        blocks: blocks that cover all tokens. One `PackedBlock(0, length, batch)` stands for tensors
            of (length, batch, ...), flattened to tokens.

    Returns:
        y: (tokens, channels), with x's dtype.
    """
    y: Tensor = _SelectiveScan.apply(x, dt, a, b, c, d, tuple(blocks))  # type: ignore[no-untyped-call]
    return y


class Terms(NamedTuple):
    """The inputs of a step, or their gradients."""

    x: Tensor
    dt: Tensor
    b: Tensor
    c: Tensor

    def of(self, block: PackedBlock) -> Terms:
        """The same for the tokens of one block."""
        return Terms(*(tensor[block.start : block.stop] for tensor in self))


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
        blocks: tuple[PackedBlock, ...],
    ) -> Tensor:
        terms = Terms(*(tensor.contiguous() for tensor in (x, dt, b, c)))
        ctx.save_for_backward(*terms, a, d)
        ctx.blocks = blocks = tuple(block for block in blocks if block.steps)
        rates, y = a.t().contiguous(), terms.x.new_empty(x.shape)

        def work(share: Iterator[PackedBlock]) -> None:
            scratch = Scratch(rates, blocks)
            for block in share:
                own = slice(block.start, block.stop)
                scan_forward(terms.of(block), rates, d, block.rows, y[own], scratch)

        share_out(work, blocks, x.device)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        *saved, a, d = ctx.saved_tensors
        terms = Terms(*saved)
        blocks: tuple[PackedBlock, ...] = ctx.blocks
        grad_y, rates = grad_y.contiguous(), a.t().contiguous()
        grads = Terms(*(torch.empty_like(tensor) for tensor in terms))
        # One sum per block: their order, and so the rounding, is the same with any threads.
        grad_rates = rates.new_empty(len(blocks), *rates.shape)
        grad_d = d.new_empty(len(blocks), *d.shape)

        def work(share: Iterator[tuple[int, PackedBlock]]) -> None:
            scratch = Scratch(rates, blocks)
            for place, block in share:
                scan_backward(
                    terms.of(block), rates, d, block.rows, grad_y[block.start : block.stop],
                    grads.of(block), grad_rates[place], grad_d[place], scratch,
                )  # fmt: skip

        share_out(work, tuple(enumerate(blocks)), grad_y.device)
        return grads.x, grads.dt, grad_rates.sum(0).t(), grads.b, grads.c, grad_d.sum(0), None


class Scratch:
    """A thread's buffers for any of the blocks, made once."""

    def __init__(self, rates: Tensor, blocks: Sequence[PackedBlock]) -> None:
        rows = min(_ROWS_AT_ONCE[rates.device.type == "cpu"], max(block.rows for block in blocks))
        self.rows_at_once, self._rates = rows, rates
        self._steps = max(block.steps for block in blocks)
        self._step = rates.new_empty(4, rows, *rates.shape)
        self._states: Tensor | None = None

    def parts(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges (first, end) of the rows to work on at once."""
        for first in range(0, rows, self.rows_at_once):
            yield first, min(first + self.rows_at_once, rows)

    def of_step(self, rows: int) -> Tensor:
        """Buffers for one step: (4, rows, state, channels)."""
        return self._step[:, :rows]

    def states(self, steps: int, rows: int) -> tuple[Tensor, ...]:
        """State before the first step and after each, (rows, state, channels) each."""
        if self._states is None:
            most = (self._steps + 1) * self.rows_at_once
            self._states = self._rates.new_empty(most, *self._rates.shape)
        return torch.split(self._states[: (steps + 1) * rows], rows)


def _by_step(part: Tensor, rows: int, first: int, last: int) -> tuple[Tensor, ...]:
    """A (rows, 1, width) view of these rows of a block for each step."""
    return part.view(-1, rows, 1, part.shape[1])[:, first:last].unbind(0)


def scan_forward(
    terms: Terms, rates: Tensor, d: Tensor, rows: int, y: Tensor, scratch: Scratch
) -> None:
    """Write C_t h_t + D x_t of one block to y.

    `rates` is A transposed, (state, channels): with channels innermost, every operation runs over
    contiguous memory.
    """
    inputs = terms.dt * terms.x
    for part in scratch.parts(rows):
        decay, state = scratch.of_step(part[1] - part[0])[:2]
        state.zero_()
        for dt_t, u_t, b_t, c_t, y_t in zip(
            *(_by_step(term, rows, *part) for term in (terms.dt, inputs, terms.b, terms.c, y)),
            strict=True,
        ):
            torch.mul(dt_t, rates, out=decay).exp_()
            state.mul_(decay).addcmul_(b_t.mT, u_t)
            torch.bmm(c_t, state, out=y_t)
    y.addcmul_(terms.x, d)


def scan_backward(
    terms: Terms,
    rates: Tensor,
    d: Tensor,
    rows: int,
    grad_y: Tensor,
    grads: Terms,
    grad_rates: Tensor,
    grad_d: Tensor,
    scratch: Scratch,
    y: Tensor | None = None,
) -> None:
    """Write the gradients of one block; if `y` is given, also write the forward result to it.

    With g_t the gradient of h_t: g_t = C_t gy_t + exp(dt_(t+1) A) g_(t+1), and the gradient of dt_t
    A is g_t exp(dt_t A) h_(t-1). The states are recomputed forwards, and read backwards.
    """
    inputs, grad_inputs = terms.dt * terms.x, torch.empty_like(terms.x)
    read = (terms.dt, inputs, terms.b, terms.c, grad_y)
    written = (grads.dt, grad_inputs, grads.b, grads.c)
    grad_rates.zero_()
    for part in scratch.parts(rows):
        _backward_part(
            [_by_step(term, rows, *part) for term in read],
            [_by_step(term, rows, *part) for term in written],
            None if y is None else _by_step(y, rows, *part),
            rates, grad_rates, scratch,
        )  # fmt: skip
    torch.mul(grad_inputs, terms.dt, out=grads.x).addcmul_(grad_y, d)
    grads.dt.addcmul_(grad_inputs, terms.x)
    torch.sum(grad_y * terms.x, 0, out=grad_d)
    if y is not None:
        y.addcmul_(terms.x, d)


def _backward_part(
    read: Sequence[tuple[Tensor, ...]],
    written: Sequence[tuple[Tensor, ...]],
    y: tuple[Tensor, ...] | None,
    rates: Tensor,
    grad_rates: Tensor,
    scratch: Scratch,
) -> None:
    """The backward pass of some rows of a block; adds to the gradient of `rates`."""
    (dt, u, b, c, gy), (gdt, gu, gb, gc) = read, written
    rows, steps = len(u[0]), len(u)
    decay, grad_h, product, rate_sums = scratch.of_step(rows)
    h = scratch.states(steps, rows)
    h[0].zero_()
    for t in range(steps):
        torch.mul(dt[t], rates, out=decay).exp_()
        torch.mul(h[t], decay, out=h[t + 1]).addcmul_(b[t].mT, u[t])
        torch.bmm(gy[t], h[t + 1].mT, out=gc[t])
        if y is not None:
            torch.bmm(c[t], h[t + 1], out=y[t])
    grad_h.zero_()
    rate_sums.zero_()
    ones = rates.new_ones(rows, 1, len(rates))
    for t in reversed(range(steps)):
        grad_h.addcmul_(c[t].mT, gy[t])
        torch.bmm(u[t], grad_h.mT, out=gb[t])
        torch.bmm(b[t], grad_h, out=gu[t])
        torch.mul(dt[t], rates, out=decay).exp_()
        torch.mul(grad_h.mul_(decay), h[t], out=product)
        rate_sums.addcmul_(product, dt[t])
        torch.bmm(ones, product.mul_(rates), out=gdt[t])  # sums it over the state
    grad_rates += rate_sums.sum(0)
