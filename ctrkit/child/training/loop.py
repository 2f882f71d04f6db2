"""Trains any workload for real; makes sure that only one process writes its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ctrkit.child.training.checkpoint import remove_halves
from ctrkit.child.training.distributed import ALONE, Ranks
from ctrkit.child.training.epoch_loop import EpochLoop, TrainOutcome
from ctrkit.child.workloads.protocol import Workload
from ctrkit.core.config import Cell, TrainPlan
from ctrkit.core.errors import UsageError
from ctrkit.core.locks import only_writer
from ctrkit.core.progress import ProgressWriter

#: how long a process of the same run may take to die before this one is a second writer
_OTHER_ENDS_S = 10.0


def run_training(
    workload: Workload,
    cell: Cell,
    plan: TrainPlan,
    progress: ProgressWriter,
    *,
    stop_requested: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    code: Mapping[str, str] | None = None,
    ranks: Ranks = ALONE,
) -> TrainOutcome:
    """Train as planned, from the start or from `checkpoints/last.pt`.

    Writes `epochs.csv`, `checkpoints/last.pt` (the one before it is `previous.pt`) and, where the
    workload watches a metric, `checkpoints/best.pt` into the run folder. A run that was stopped and
    continued gives the same parameters and the same `epochs.csv` (but for `wall_s`) as one that was
    not: on CPU with equal threads bit for bit.

    A stop is looked at after each step and each validation batch, and ends a wait for a batch. An
    epoch that it or `max_steps` cuts short is not validated and has no row yet: resuming ends it.
    Where nothing was done since the last checkpoint, none is written. Without a task there is no
    state to keep, so a checkpoint stands at the beginning of its epoch: a loader whose order nobody
    knows then still yields each row once. What is counted overrides what a loader's `len()` says.
    An endless loader without `max_steps` trains its first epoch until it is stopped.

    Several ranks call it together, each with a progress of its own. They make the same steps, and
    rank 0 alone writes into the run folder, which the others only read to resume. With dropout,
    each rank draws masks of its own, so that the result depends on how many there are.

    Args:
        workload: its loaders and its task; without a task a step is only taking a batch.
        cell: the configuration of the machine; its batch size is part of the experiment.
        plan: epochs, steps, checkpoints, and whether to resume.
        progress: every stage and step is written here; on an error it keeps the stage that failed.
        stop_requested: once True, the position is saved and training returns.
        clock: seconds, monotonic.
        code: versions of what computes a step, kept in the checkpoints.
        ranks: this process among those that train together.

    Raises:
        UsageError: nothing to resume from, a checkpoint of another workload, phase, data or batch
            size, a loader that yields nothing, a folder that cannot be written or that another
            process writes into, or a full disk.
    """
    with _writing(Path(plan.run_folder) / "checkpoints") if ranks.rank == 0 else nullcontext():
        loop = EpochLoop(workload, cell, plan, progress, stop_requested, clock, ranks)
        loop.code = dict(code or {})
        return loop.run()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Inside, this process is the one that writes checkpoints into the folder, which is made."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    with only_writer(folder, wait_s=_OTHER_ENDS_S):
        remove_halves(folder)
        yield
