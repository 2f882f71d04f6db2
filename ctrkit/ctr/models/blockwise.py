"""Computes a whole Mamba layer on the CPU, one block of rows at a time, forward and backward.

Over all tokens at once, each of the layer's twenty intermediate results is tens of megabytes: they
go through main memory, and the system clears fresh pages for them in every step. The results of one
block stay in the cache. They are not kept: the backward pass recomputes them, which costs less than
keeping them. Each thread takes whole blocks, so no operation ends in a barrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ctrkit.ctr.models.conv import conv_backward, conv_forward
from ctrkit.ctr.models.packing import PackedBlock
from ctrkit.ctr.models.scan import Scratch, Terms, scan_backward, scan_forward
from ctrkit.ctr.models.threads import share_out

_NORM_EPSILON = 1e-5


class Weights(NamedTuple):
    """The parameters of a layer, named and shaped as in `ctrkit.ctr.models.mamba.MambaLayer`."""

    norm: Tensor
    norm_bias: Tensor
    in_proj: Tensor
    conv: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_proj: Tensor
    dt_bias: Tensor
    a_log: Tensor
    d: Tensor
    out_proj: Tensor

    @property
    def rates(self) -> Tensor:
        """A transposed, (state, channels)."""
        return self.a_log.exp().neg_().t().contiguous()


def mamba_layer(tokens: Tensor, weights: Weights, blocks: tuple[PackedBlock, ...]) -> Tensor:
    """Compute a `MambaLayer`: (tokens, width) in CPU memory to the same shape."""
    out: Tensor = _MambaLayer.apply(tokens, blocks, *weights)  # type: ignore[no-untyped-call]
    return out


class _Inside(NamedTuple):
    """Intermediate results of one block that its backward pass needs."""

    normed: Tensor
    mean: Tensor
    rstd: Tensor
    x_in: Tensor
    z: Tensor
    conv: Tensor
    low: Tensor
    dt_in: Tensor
    terms: Terms


def _enter(tokens: Tensor, weights: Weights, rows: int) -> _Inside:
    """Compute everything before the scan."""
    width, rank, state = tokens.shape[1:], weights.dt_proj.shape[1], weights.a_log.shape[1]
    normed, mean, rstd = torch.native_layer_norm(
        tokens, width, weights.norm, weights.norm_bias, _NORM_EPSILON
    )
    x_in, z = (normed @ part.t() for part in weights.in_proj.chunk(2))
    conv = torch.empty_like(x_in)
    conv_forward(x_in, weights.conv, weights.conv_bias, rows, conv)
    x = F.silu(conv)
    low, b, c = (x @ part.t() for part in torch.split(weights.x_proj, [rank, state, state]))
    dt_in = torch.addmm(weights.dt_bias, low, weights.dt_proj.t())
    terms = Terms(x, F.softplus(dt_in), b, c)
    return _Inside(normed, mean, rstd, x_in, z, conv, low, dt_in, terms)


class _MambaLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, blocks: tuple[PackedBlock, ...], *given: Tensor
    ) -> Tensor:
        ctx.save_for_backward(tokens, *given)
        ctx.blocks = blocks = tuple(block for block in blocks if block.steps)
        weights, out = Weights(*given), tokens.new_empty(tokens.shape)
        rates = weights.rates

        def work(share: Iterator[PackedBlock]) -> None:
            scratch = Scratch(rates, blocks)
            for block in share:
                own = slice(block.start, block.stop)
                inside = _enter(tokens[own], weights, block.rows)
                y = torch.empty_like(inside.z)
                scan_forward(inside.terms, rates, weights.d, block.rows, y, scratch)
                y.mul_(F.silu(inside.z))
                torch.addmm(tokens[own], y, weights.out_proj.t(), out=out[own])

        share_out(work, blocks, tokens.device)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        tokens, *given = ctx.saved_tensors
        weights, blocks, grad_out = Weights(*given), ctx.blocks, grad_out.contiguous()
        rates, grad_tokens = weights.rates, torch.empty_like(tokens)
        # One sum per block, so that the order of sums and the rounding do not depend on threads.
        parts: list[Weights] = [weights] * len(blocks)

        def work(share: Iterator[tuple[int, PackedBlock]]) -> None:
            scratch = Scratch(rates, blocks)
            for place, block in share:
                own = slice(block.start, block.stop)
                parts[place] = _backward_block(
                    tokens[own],
                    grad_out[own],
                    weights,
                    rates,
                    block.rows,
                    grad_tokens[own],
                    scratch,
                )

        share_out(work, tuple(enumerate(blocks)), tokens.device)
        sums = (_sum(of_blocks) for of_blocks in zip(*parts, strict=True))
        grads = Weights(*sums) if parts else Weights(*map(torch.zeros_like, given))
        # the blocks hold the gradient of A transposed; A = -exp(A_log)
        grads = grads._replace(a_log=(grads.a_log * rates).t()) if parts else grads
        return grad_tokens, None, *grads


def _sum(parts: tuple[Tensor, ...]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _backward_block(
    tokens: Tensor,
    grad_out: Tensor,
    weights: Weights,
    rates: Tensor,
    rows: int,
    grad_tokens: Tensor,
    scratch: Scratch,
) -> Weights:
    """Write the gradient of the block's tokens; returns the weights' gradients of this block."""
    inside = _enter(tokens, weights, rows)
    terms, z = inside.terms, inside.z
    y, gate = torch.empty_like(z), F.silu(z)
    grad_gated = grad_out @ weights.out_proj
    grads = Terms(*(torch.empty_like(term) for term in terms))
    grad_rates, grad_d = torch.empty_like(rates), torch.empty_like(weights.d)
    grad_y = grad_gated * gate
    scan_backward(
        terms, rates, weights.d, rows, grad_y, grads, grad_rates, grad_d, scratch, y
    )  # fmt: skip
    grad_z = torch.ops.aten.silu_backward(grad_gated.mul_(y), z)
    grad_dt = torch.ops.aten.softplus_backward(grads.dt, inside.dt_in, 1.0, 20.0)
    grad_low = torch.cat([grad_dt @ weights.dt_proj, grads.b, grads.c], dim=1)
    grads.x.addmm_(grad_low, weights.x_proj)
    grad_conv = torch.ops.aten.silu_backward(grads.x, inside.conv)
    grad_x_in, grad_taps = torch.empty_like(z), torch.empty_like(weights.conv)
    conv_backward(inside.x_in, weights.conv, grad_conv, rows, grad_x_in, grad_taps)
    in_x, in_z = weights.in_proj.chunk(2)
    grad_normed = (grad_x_in @ in_x).addmm_(grad_z, in_z)
    into, grad_norm, grad_norm_bias = torch.ops.aten.native_layer_norm_backward(
        grad_normed, tokens, tokens.shape[1:], inside.mean, inside.rstd,
        weights.norm, weights.norm_bias, [True, True, True],
    )  # fmt: skip
    torch.add(into, grad_out, out=grad_tokens)
    return Weights(
        norm=grad_norm,
        norm_bias=grad_norm_bias,
        in_proj=torch.cat([grad_x_in.t() @ inside.normed, grad_z.t() @ inside.normed]),
        conv=grad_taps,
        conv_bias=grad_conv.sum(0),
        x_proj=grad_low.t() @ terms.x,
        dt_proj=grad_dt.t() @ inside.low,
        dt_bias=grad_dt.sum(0),
        a_log=grad_rates,
        d=grad_d,
        out_proj=grad_out.t() @ y.mul_(gate),
    )
