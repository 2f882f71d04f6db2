"""The selective scan on CUDA: one kernel forward and one backward, written in Triton.

The scan in `ctrkit.ctr.models.scan` launches several operations from Python at each step of a
history. Here one program walks along a history by itself, for some channels, with their state in
registers. Memory holds no states except the marks for the backward pass: the state before every
`MARK_EVERY`-th step, from which the states in between are recomputed.

All sums have a fixed order, so a result is the same bit for bit each time. Triton comes with
torch's CUDA builds; without it, nothing imports this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctrkit.ctr.models.packing import PackedBlock

#: Steps between two marks. Fewer steps take more memory, more steps more recomputation.
MARK_EVERY = 8
#: Histories whose marks are held at once: 117 MB for a length of 50.
ROWS_AT_ONCE = 1024
#: Channels per program; each of its 32 threads holds the state of one.
CHANNELS_AT_ONCE = 32


def triton_scan(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, blocks: Sequence[PackedBlock]
) -> Tensor:
    """Compute the same as `ctrkit.ctr.models.scan.selective_scan`, in float32."""
    y: Tensor = _TritonScan.apply(x, dt, a, b, c, d, tuple(blocks))  # type: ignore[no-untyped-call]
    return y


class _Rows(NamedTuple):
    """Where each history's tokens are: `steps` tokens from `first` on, `stride` apart."""

    first: Tensor
    stride: Tensor
    steps: Tensor
    most_steps: int

    def part(self, begin: int) -> tuple[Tensor, Tensor, Tensor]:
        own = slice(begin, begin + ROWS_AT_ONCE)
        return self.first[own], self.stride[own], self.steps[own]


@lru_cache(maxsize=16)  # on an accelerator, all whole batches have the same blocks
def _rows(blocks: tuple[PackedBlock, ...], device: torch.device) -> _Rows:
    first = torch.cat([torch.arange(k.rows) + k.start for k in blocks])
    rows = torch.tensor([k.rows for k in blocks])
    stride = rows.repeat_interleave(rows)
    steps = torch.tensor([k.steps for k in blocks]).repeat_interleave(rows)
    most = max(k.steps for k in blocks)
    return _Rows(first.to(device), stride.to(device), steps.to(device), most)


class _TritonScan(torch.autograd.Function):
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
        terms = tuple(tensor.contiguous() for tensor in (x, dt, a, b, c, d))
        ctx.save_for_backward(*terms)
        ctx.blocks = blocks = tuple(block for block in blocks if block.size)
        y = torch.empty_like(terms[0])
        if blocks:
            rows, sizes = _rows(blocks, x.device), _sizes(a)
            grid = (len(rows.first), triton.cdiv(a.shape[0], CHANNELS_AT_ONCE))
            _forward[grid](*terms, y, *rows[:3], **sizes, num_warps=1)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, dt, a, b, c, d = terms = ctx.saved_tensors
        if not ctx.blocks:
            return (*map(torch.zeros_like, terms), None)
        grad_y, rows, sizes = grad_y.contiguous(), _rows(ctx.blocks, x.device), _sizes(a)
        parts, (channels, state) = triton.cdiv(a.shape[0], CHANNELS_AT_ONCE), a.shape
        grad_x, grad_dt = torch.empty_like(x), torch.empty_like(dt)
        # several programs write parts of the same gradient; the parts are added at the end
        grad_b, grad_c = b.new_empty(parts, *b.shape), c.new_empty(parts, *c.shape)
        grad_a = a.new_empty(len(rows.first), *a.shape)
        grad_d = d.new_empty(len(rows.first), *d.shape)
        marks = a.new_empty(
            min(len(rows.first), ROWS_AT_ONCE), triton.cdiv(rows.most_steps, MARK_EVERY),
            channels, state,
        )  # fmt: skip
        for begin in range(0, len(rows.first), ROWS_AT_ONCE):
            own = rows.part(begin)
            _backward[len(own[0]), parts](
                *terms, grad_y, grad_x, grad_dt, grad_b, grad_c,
                grad_a[begin:], grad_d[begin:], marks, *own, len(b), marks.shape[1],
                **sizes, EVERY=MARK_EVERY, num_warps=1,
            )  # fmt: skip
        return grad_x, grad_dt, grad_a.sum(0), grad_b.sum(0), grad_c.sum(0), grad_d.sum(0), None


def _sizes(a: Tensor) -> dict[str, int]:
    return {
        "CHANNELS": a.shape[0],
        "STATE": a.shape[1],
        "BLOCK_C": CHANNELS_AT_ONCE,
        "BLOCK_N": triton.next_power_of_2(a.shape[1]),
    }


@triton.jit
def _advance(h, decay, u, b_t):  # type: ignore[no-untyped-def]
    """The state after a step; u is dt_t x_t."""
    return decay * h + u[:, None] * b_t[None, :]


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x, dt, a, b, c, d, y, first, stride, steps,
    CHANNELS: tl.constexpr, STATE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The forward result of one history (axis 0) and some channels (axis 1)."""
    row = tl.program_id(0)
    ch = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    st = tl.arange(0, BLOCK_N)
    has_ch, has_st = ch < CHANNELS, st < STATE
    has = has_ch[:, None] & has_st[None, :]
    rates = tl.load(a + ch[:, None] * STATE + st[None, :], mask=has, other=0.0)
    skip = tl.load(d + ch, mask=has_ch, other=0.0)
    token, apart = tl.load(first + row), tl.load(stride + row)
    h = tl.zeros([BLOCK_C, BLOCK_N], dtype=tl.float32)
    for _ in range(0, tl.load(steps + row)):
        x_t = tl.load(x + token * CHANNELS + ch, mask=has_ch, other=0.0)
        dt_t = tl.load(dt + token * CHANNELS + ch, mask=has_ch, other=0.0)
        b_t = tl.load(b + token * STATE + st, mask=has_st, other=0.0)
        c_t = tl.load(c + token * STATE + st, mask=has_st, other=0.0)
        h = _advance(h, tl.exp(dt_t[:, None] * rates), dt_t * x_t, b_t)
        y_t = tl.sum(h * c_t[None, :], axis=1) + skip * x_t
        tl.store(y + token * CHANNELS + ch, y_t, mask=has_ch)
        token += apart


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x, dt, a, b, c, d, grad_y, grad_x, grad_dt, grad_b, grad_c, grad_a, grad_d, marks,
    first, stride, steps, tokens, marks_per_row,
    CHANNELS: tl.constexpr, STATE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_N: tl.constexpr,
    EVERY: tl.constexpr,
):  # fmt: skip
    """The gradients of one history (axis 0) and some channels (axis 1).

    With g_t the gradient of h_t: g_t = C_t gy_t + exp(dt_(t+1) A) g_(t+1).
    """
    row, part = tl.program_id(0), tl.program_id(1)
    ch = part * BLOCK_C + tl.arange(0, BLOCK_C)
    st = tl.arange(0, BLOCK_N)
    has_ch, has_st = ch < CHANNELS, st < STATE
    has = has_ch[:, None] & has_st[None, :]
    place = ch[:, None] * STATE + st[None, :]
    rates = tl.load(a + place, mask=has, other=0.0)
    skip = tl.load(d + ch, mask=has_ch, other=0.0)
    begin, apart, count = tl.load(first + row), tl.load(stride + row), tl.load(steps + row)
    marks += row.to(tl.int64) * marks_per_row * CHANNELS * STATE
    grad_b += part.to(tl.int64) * tokens * STATE
    grad_c += part.to(tl.int64) * tokens * STATE

    h = tl.zeros([BLOCK_C, BLOCK_N], dtype=tl.float32)
    for t in range(0, count):
        if t % EVERY == 0:
            tl.store(marks + t // EVERY * (CHANNELS * STATE) + place, h, mask=has)
        token = begin + t * apart
        x_t = tl.load(x + token * CHANNELS + ch, mask=has_ch, other=0.0)
        dt_t = tl.load(dt + token * CHANNELS + ch, mask=has_ch, other=0.0)
        b_t = tl.load(b + token * STATE + st, mask=has_st, other=0.0)
        h = _advance(h, tl.exp(dt_t[:, None] * rates), dt_t * x_t, b_t)
    # a mark may be read by another thread of the program than the one that wrote it
    tl.debug_barrier()

    g = tl.zeros([BLOCK_C, BLOCK_N], dtype=tl.float32)
    sum_a = tl.zeros([BLOCK_C, BLOCK_N], dtype=tl.float32)
    sum_d = tl.zeros([BLOCK_C], dtype=tl.float32)
    for back in range(0, count):
        t = count - 1 - back
        mark = t // EVERY
        before = tl.load(marks + mark * (CHANNELS * STATE) + place, mask=has, other=0.0)
        for s in range(mark * EVERY, t):
            token = begin + s * apart
            x_t = tl.load(x + token * CHANNELS + ch, mask=has_ch, other=0.0)
            dt_t = tl.load(dt + token * CHANNELS + ch, mask=has_ch, other=0.0)
            b_t = tl.load(b + token * STATE + st, mask=has_st, other=0.0)
            before = _advance(before, tl.exp(dt_t[:, None] * rates), dt_t * x_t, b_t)
        token = begin + t * apart
        x_t = tl.load(x + token * CHANNELS + ch, mask=has_ch, other=0.0)
        dt_t = tl.load(dt + token * CHANNELS + ch, mask=has_ch, other=0.0)
        gy_t = tl.load(grad_y + token * CHANNELS + ch, mask=has_ch, other=0.0)
        b_t = tl.load(b + token * STATE + st, mask=has_st, other=0.0)
        c_t = tl.load(c + token * STATE + st, mask=has_st, other=0.0)
        decay, u = tl.exp(dt_t[:, None] * rates), dt_t * x_t
        h = _advance(before, decay, u, b_t)
        g += gy_t[:, None] * c_t[None, :]
        grad_u = tl.sum(g * b_t[None, :], axis=1)
        # masked channels add nothing to the sums, since their gy, u and g are 0
        tl.store(grad_c + token * STATE + st, tl.sum(gy_t[:, None] * h, axis=0), mask=has_st)
        tl.store(grad_b + token * STATE + st, tl.sum(g * u[:, None], axis=0), mask=has_st)
        g = g * decay
        exponent = g * before  # the gradient of dt_t A
        gdt_t = tl.sum(exponent * rates, axis=1) + grad_u * x_t
        tl.store(grad_dt + token * CHANNELS + ch, gdt_t, mask=has_ch)
        tl.store(grad_x + token * CHANNELS + ch, grad_u * dt_t + gy_t * skip, mask=has_ch)
        sum_a += exponent * dt_t[:, None]
        sum_d += gy_t * x_t
    tl.store(grad_a + row.to(tl.int64) * (CHANNELS * STATE) + place, sum_a, mask=has)
    tl.store(grad_d + row.to(tl.int64) * CHANNELS + ch, sum_d, mask=has_ch)
