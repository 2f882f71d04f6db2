"""Adam with L2 weight decay, gradient clipping and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam, Optimizer

from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.training.lazy_adam import LazyAdam, Together

#: as torch.nn.utils.clip_grad_norm_ has it
_NORM_EPSILON = 1e-6


def make_adam(parameters: Iterable[Parameter], phase: Phase) -> Adam:
    """Adam (Kingma & Ba 2015) whose weight decay is L2: added to the gradient, not decoupled.

    The fused kernel is the same mathematics in one pass over memory; where torch has none for the
    device, its own choice is taken. All parameters are on one device.
    """
    kept = list(parameters)
    fused = True if _has_fused_kernel(kept[0]) else None
    return Adam(kept, lr=phase.lr, weight_decay=phase.weight_decay, fused=fused)


def make_optimizer(
    kind: str, parameters: Iterable[Parameter], tables: Sequence[EmbeddingTable], phase: Phase
) -> Adam | Together:
    """The phase's Adam (`adam`), or with `LazyAdam` for the tables instead (`sparse-adam`)."""
    if kind == "adam":
        return make_adam(parameters, phase)
    of_tables = {id(table.weight) for table in tables}
    dense = make_adam([p for p in parameters if id(p) not in of_tables], phase)
    return Together(dense, LazyAdam(tables, lr=phase.lr, weight_decay=phase.weight_decay))


def _has_fused_kernel(like: Parameter) -> bool:
    """Tried out: torch's list of devices differs by version and is only looked at by a step."""
    parameter = Parameter(torch.zeros(1, dtype=like.dtype, device=like.device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        Adam([parameter], fused=True).step()
    except RuntimeError:
        return False
    return True


def clip_gradients(
    parameters: Iterable[Parameter], max_norm: float, tables: Sequence[EmbeddingTable] = ()
) -> Tensor:
    """Scale all gradients so that their common Euclidean norm is at most `max_norm`.

    Of tables only the touched rows are read and written, where they are known: all others are zero.
    Returns the norm before, a scalar on the device; nothing here waits for an accelerator.
    """
    by_row = {id(table.weight): table for table in tables if table.touched() is not None}
    found = [table.touched() for table in by_row.values()]
    dense = [p.grad for p in parameters if id(p) not in by_row and p.grad is not None]
    gradients = [*dense, *(touched[1] for touched in found if touched is not None)]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    factor = (max_norm / (norm + _NORM_EPSILON)).clamp(max=1.0)
    if norm.device.type == "cpu" and factor == 1:
        return norm
    if dense:
        torch._foreach_mul_(dense, factor)
    for table in by_row.values():
        table.scale_(factor)
    return norm


def lr_at(step: int, steps_per_epoch: int, phase: Phase, horizon_epochs: int) -> float:
    """Learning rate of one step of the run.

    `constant`: always `phase.lr`. `warmup-cosine`: rises linearly to `phase.lr` over
    `phase.warmup_epochs`, then falls as half a cosine (Loshchilov & Hutter 2017) to 0 at the last
    step of the horizon. A horizon within the warm-up ends while still rising.

    Args:
        step: counts from 1 over all epochs.
        steps_per_epoch: batches of an epoch.
        phase: has `lr`, `schedule` and `warmup_epochs`.
        horizon_epochs: the epochs that the schedule spans, not those that are really run.
    """
    if phase.schedule == "constant":
        return phase.lr
    last = horizon_epochs * steps_per_epoch
    warmup = round(phase.warmup_epochs * steps_per_epoch)
    if step <= warmup:
        return min(phase.lr, phase.lr * step / warmup)  # rounding may exceed it by a bit
    if step >= last:
        return 0.0
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (last - warmup)))


def set_lr(optimizer: Optimizer | Together, lr: float) -> None:
    """Use this learning rate from the next step on."""
    for group in optimizer.param_groups:
        group["lr"] = lr
