"""Chooses the selective scan: the Triton kernel where it helps and gave the right result.

The kernel is tried once per process, forward and backward, and compared with the step-by-step scan.
If it does not compile or gives another result, the run uses the step-by-step scan and says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ctrkit.ctr.models.packing import PackedBlock
from ctrkit.ctr.models.scan import selective_scan

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Sequence[PackedBlock]], Tensor]

#: The largest allowed difference between the two, as a share of the largest value.
_TOLERANCE = 1e-3
_MOST_REASON = 200


def takes_kernel(device: str, dtype: torch.dtype, *, has_triton: bool) -> bool:
    """Whether to try the Triton kernel: on CUDA, in float32, if Triton is installed."""
    return device == "cuda" and dtype == torch.float32 and has_triton


def scan_of(x: Tensor, state: int) -> Scan:
    """The scan for an input like x, (tokens, channels), with `state` states per channel."""
    asks = takes_kernel(x.device.type, x.dtype, has_triton=has_triton())
    if asks and not failure_of(x.device.type, x.shape[1], state):
        from ctrkit.ctr.models.triton_scan import triton_scan

        return triton_scan
    return selective_scan


def scan_note(device: torch.device, channels: int, state: int) -> str:
    """A message on the choice for a device; empty if there is nothing to say."""
    if device.type != "cuda":
        return ""
    if not has_triton():
        return "the scan goes step by step, which is slow on CUDA: triton is not installed"
    failure = failure_of(device.type, channels, state)
    return f"the scan goes step by step, which is slow on CUDA: {failure}" if failure else ""


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether the `triton` package is installed."""
    return importlib.util.find_spec("triton") is not None


@lru_cache(maxsize=8)
def failure_of(device: str, channels: int, state: int) -> str:
    """Why the kernel cannot be used on this process's device with these sizes; empty if it can."""
    return tried(_kernel, torch.device(device), channels, state)


def _kernel(*arguments: Any) -> Tensor:
    from ctrkit.ctr.models.triton_scan import triton_scan

    return triton_scan(*arguments)


def tried(kernel: Callable[..., Tensor], device: torch.device, channels: int, state: int) -> str:
    """Compare a kernel with the step-by-step scan on a few histories.

    Returns:
        Why it must not be used; empty if it is right.

    Raises:
        torch.OutOfMemoryError: the device is full, which says nothing about the kernel.
    """
    blocks = (PackedBlock(0, 11, 3), PackedBlock(33, 1, 1))
    try:
        with torch.enable_grad():
            found = _with_gradients(kernel, blocks, device, channels, state)
            wanted = _with_gradients(selective_scan, blocks, device, channels, state)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # any error, of a compiler or a driver: the other scan still works
        first = next(iter(str(error).strip().splitlines()), "")
        return f"its Triton kernel failed ({type(error).__name__}: {first})"[:_MOST_REASON]
    for ours, theirs in zip(found, wanted, strict=True):
        apart = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))
        if not apart <= _TOLERANCE:  # also catches NaN
            return f"its Triton kernel is wrong here by {apart:.2g} of the largest value"
    return ""


def _with_gradients(
    scan: Callable[..., Tensor],
    blocks: Sequence[PackedBlock],
    device: torch.device,
    channels: int,
    state: int,
) -> tuple[Tensor, ...]:
    """The result and all gradients for made-up inputs; draws no random number."""
    tokens = 34

    def made(*shape: int, step: float) -> Tensor:
        count = torch.arange(torch.Size(shape).numel(), dtype=torch.float32)
        return (count * step).sin().view(shape).to(device)

    made_up = (
        made(tokens, channels, step=0.37), made(tokens, channels, step=0.53).abs() * 0.5,
        -made(channels, state, step=0.71).abs() * 3, made(tokens, state, step=0.41),
        made(tokens, state, step=0.59), made(channels, step=0.23),
    )  # fmt: skip
    terms = tuple(term.requires_grad_() for term in made_up)
    y = scan(*terms, blocks)
    weights = made(tokens, channels, step=0.97)
    return y.detach(), *torch.autograd.grad((y * weights).sum(), terms)
