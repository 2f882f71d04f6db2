"""How many steps each trial measures, so that it fits into the time left. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ctrkit.core.config import Cell, WindowPlan

#: Assumed seconds to start an interpreter and import torch, until a launch has shown it.
ASSUMED_LAUNCH_S = 5.0
#: Seconds to end a trial and read its result.
_ENDING_S = 0.7
_WINDOW_S = 10.0
_LEAST_WINDOW_S = 0.5
_MOST_ATTRIBUTED = 10
_COUNT_SHARE = 0.5
_FIRST_PLACES = (0.0, 0.5, 0.9)
#: Validation batches to time if their number is unknown, and the most to time.
LEAST_TIMED, _MOST_TIMED = 20, 500
_SPAWNED = ("spawn", "forkserver")
#: The smallest full trial that says enough: three steps, an epoch boundary, validation, a
#: checkpoint.
USEFUL = WindowPlan(
    window_s=_LEAST_WINDOW_S,
    min_steps=3,
    attribution_steps=0,
    boundary_steps=1,
    validation_batches=1,
    checkpoints=1,
)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Expected seconds of a trial's parts, as far as trials have shown them.

    Args:
        launch_s: until a trial begins to measure; less than `start_s` if it is forked.
        start_s: the same for a process that is started anew, such as spawned workers.
        step_s: of a training step.
        workers_s: until new workers deliver.
        validation_batch_s: of a validation batch.
        checkpoint_s: of a checkpoint.
        metrics_s: of an epoch's metrics.
        validation_batches: number in the real run; more are never timed.
    """

    launch_s: float = ASSUMED_LAUNCH_S
    start_s: float = ASSUMED_LAUNCH_S
    step_s: float = 0.0
    workers_s: float = 0.0
    validation_batch_s: float = 0.0
    checkpoint_s: float = 0.0
    metrics_s: float = 0.0
    validation_batches: int = LEAST_TIMED


def epoch_share(launch: int) -> float:
    """Where a cell's launch of this number begins in the data, as a share: 0, the middle, ...

    Later ones follow van der Corput's sequence, so that any number of them is spread over the
    epoch.
    """
    if launch <= len(_FIRST_PLACES):
        return _FIRST_PLACES[launch - 1]
    share, digit, rest = 0.0, 0.5, launch - 2
    while rest:
        share += digit * (rest % 2)
        digit, rest = digit / 2, rest // 2
    return share


def workers_start_s(cell: Cell, start_s: float) -> float:
    """Seconds until new workers deliver; a spawned one starts its own interpreter."""
    if not cell.workers:
        return 0.0
    return start_s * (0.8 if cell.start_method in _SPAWNED else 0.1)


def warmup_steps(cell: Cell) -> int:
    """Steps before the throughput window: the pre-filled batches, at least one."""
    return max(1, cell.workers * (cell.prefetch or 0))


def compute_windows(share_s: float) -> WindowPlan:
    """Windows for a training step of unknown length, in about `share_s` including start-up."""
    return WindowPlan(
        window_s=min(_WINDOW_S, max(_LEAST_WINDOW_S, share_s / 6)),
        min_steps=1,
        max_steps=500,
        attribution_steps=2,
        boundary=False,
        validation_batches=2,
        checkpoints=1,
    )


def loader_windows(cell: Cell, costs: Costs, share_s: float) -> tuple[WindowPlan, float]:
    """Windows for a loader alone in about `share_s`, and the expected seconds."""
    fixed_s = costs.launch_s + workers_start_s(cell, costs.start_s) + _ENDING_S
    window_s = min(2.0, max(_LEAST_WINDOW_S, share_s - fixed_s))
    roomy = share_s > fixed_s + window_s + costs.launch_s
    restart_s = workers_start_s(cell, costs.start_s) if roomy else 0.0
    windows = WindowPlan(
        window_s=window_s,
        # workers deliver in bursts, so each must deliver once
        min_steps=max(2, cell.workers),
        attribution_steps=0,
        count_s=_COUNT_SHARE * window_s if roomy else 0.0,
        boundary=roomy,
        boundary_steps=1,
        validation_batches=0,
        checkpoints=0,
    )
    return windows, fixed_s + window_s + restart_s


def full_cost_s(cell: Cell, costs: Costs, windows: WindowPlan) -> float:
    """Expected seconds of a full trial, from its launch to its result."""
    starts = 2 if windows.boundary else 1
    steps = warmup_steps(cell) + windows.min_steps
    steps += windows.boundary_steps if windows.boundary else 0
    steps += windows.attribution_steps if cell.device != "cpu" else 0
    extra_window_s = max(0.0, windows.window_s - windows.min_steps * costs.step_s)
    # a validation loader also starts workers, and its first batch waits for them
    starts += 1 if windows.validation_batches else 0
    return (
        costs.launch_s
        + starts * costs.workers_s
        + steps * costs.step_s
        + extra_window_s
        + windows.validation_batches * costs.validation_batch_s
        + windows.checkpoints * costs.checkpoint_s
        + costs.metrics_s
        + _ENDING_S
    )


def full_windows(
    cell: Cell, costs: Costs, target_s: float, *, longest_s: float = _WINDOW_S
) -> tuple[WindowPlan, float]:
    """Windows for loader and step together in about `target_s`, and the expected seconds.

    At least the minimum is planned even if it does not fit; the caller decides whether to launch
    it. Short steps are measured for at least half a second: a single step of 10 ms, right after a
    process's first steps, says nothing, and more cost almost nothing. Spare time goes to validation
    (a quarter), attribution, a second checkpoint, and then to the throughput window, up to
    `longest_s`.
    """
    plan = WindowPlan()
    # workers that cannot keep up deliver in bursts, so each should deliver once if there is time
    for steps, boundary_steps in ((max(3, cell.workers), 1), (3, 1), (2, 1), (1, 1), (1, 0)):
        plan = WindowPlan(
            window_s=_LEAST_WINDOW_S if costs.step_s else 0.0,
            min_steps=steps,
            attribution_steps=1 if steps > 1 and cell.device != "cpu" else 0,
            boundary=boundary_steps > 0,
            boundary_steps=boundary_steps,
            validation_batches=1,
            checkpoints=1,
        )
        if full_cost_s(cell, costs, plan) <= target_s:
            break
    spare_s = target_s - full_cost_s(cell, costs, plan)
    if spare_s > 0:
        plan = _spend(plan, cell, costs, spare_s, longest_s)
    return plan, full_cost_s(cell, costs, plan)


def _spend(
    plan: WindowPlan, cell: Cell, costs: Costs, spare_s: float, longest_s: float
) -> WindowPlan:
    def affordable(share: float, each_s: float, most: int) -> int:
        part_s = share * spare_s
        return most if most * each_s <= part_s else math.floor(part_s / each_s)

    most = min(_MOST_TIMED, costs.validation_batches) - 1
    plan = replace(
        plan,
        validation_batches=1 + affordable(0.25, costs.validation_batch_s, most),
        checkpoints=1 + affordable(0.25, costs.checkpoint_s, 1),
        boundary_steps=plan.boundary_steps + affordable(0.1, costs.step_s, 1),
    )
    if cell.device != "cpu":
        more = affordable(0.1, costs.step_s, _MOST_ATTRIBUTED)
        plan = replace(plan, attribution_steps=plan.attribution_steps + more)
    left_s = spare_s * (0.4 if costs.validation_batch_s > 0 else 0.6)
    window_s = min(longest_s, plan.min_steps * costs.step_s + left_s)
    return replace(plan, window_s=max(_LEAST_WINDOW_S, window_s))


def loader_only_windows(
    cell: Cell, costs: Costs, target_s: float, *, counts: bool = False
) -> tuple[WindowPlan, float]:
    """Windows for a user's loader in about `target_s`: a step takes a batch, into a second epoch.

    `counts`: count on for half as long again, if the epoch's length is only promised.
    """
    fixed_s = costs.launch_s + 2 * costs.workers_s + _ENDING_S
    room_s = (target_s - fixed_s) / (1 + _COUNT_SHARE if counts else 1)
    window_s = min(_WINDOW_S, max(_LEAST_WINDOW_S, room_s))
    windows = WindowPlan(
        window_s=window_s,
        min_steps=2,
        count_s=_COUNT_SHARE * window_s if counts else 0.0,
        attribution_steps=0,
        validation_batches=0,
        checkpoints=0,
    )
    return windows, fixed_s + windows.window_s + windows.count_s
