"""Times what follows the last step of an epoch: validation, metrics and checkpoints."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from ctrkit.child.training.checkpoint import save_checkpoint
from ctrkit.child.training.loader_facts import length_of
from ctrkit.child.training.own_metrics import own_metrics
from ctrkit.child.training.running_trial import RunningTrial, close_iterator
from ctrkit.child.training.seeding import kept_rng
from ctrkit.child.training.worker_deaths import deaths_told_afterwards
from ctrkit.child.workloads.iterable_loader import as_epoch_loader
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Task
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import Stage


def measure_end_of_epoch(trial: RunningTrial) -> None:
    """Time what a real run does after the last step of an epoch, in the same order."""
    _measure_validation(trial)
    _measure_metrics(trial)
    _measure_checkpoints(trial)


def _measure_validation(trial: RunningTrial) -> None:
    """Time some validation batches from the cell's own validation loader."""
    made = trial.workload.validation_loader(trial.cell)
    if made is None or trial.task is None or trial.spec.windows.validation_batches == 0:
        return
    loader = as_epoch_loader(made)
    trial.progress.enter(Stage.VALIDATION)
    try:
        loader.set_epoch(1, _first_to_validate(trial, loader))
        trial.task.begin_validation()
        began_s = trial.now_s()
        iterator = iter(loader)
        _validate(trial, iterator, began_s)
        ended_s = trial.now_s()
        close_iterator(iterator)
        del iterator
        trial.recorder.note(validation_teardown_s=trial.now_s() - ended_s)
        if trial.cell.workers and trial.cell.persistent:
            _validate_again(trial, loader)
    finally:
        loader.close()
    trial.recorder.save()


def _first_to_validate(trial: RunningTrial, loader: EpochLoader) -> int:
    """The index of the first timed batch: 0, unless the loader can skip without reading.

    A loader that reads what it skips would be silent for long.
    """
    plan = trial.spec.windows
    known = trial.workload.sizes(trial.cell.batch_size).validation_batches or length_of(loader)
    first = 0
    if known is not None and getattr(loader, "skips_unread", False):
        first = round(plan.validation_from * max(0, known - plan.validation_batches - 1))
    trial.recorder.note(validation_from=first)
    return first


def _validate(trial: RunningTrial, iterator: Iterator[Batch], began_s: float) -> None:
    assert trial.task is not None, "there is a task to validate"
    for count in range(trial.spec.windows.validation_batches):
        asked_s = trial.now_s()
        batch = next(iterator, None)
        if batch is None:
            break
        if count == 0:
            trial.recorder.note(validation_restart_s=trial.now_s() - began_s)
            asked_s = trial.now_s()
        trial.task.validation_step(trial.task.transfer(batch))
        trial.synchronize()
        trial.recorder.validation_batch_s.append(trial.now_s() - asked_s)
        trial.progress.step(count + 1)


def _validate_again(trial: RunningTrial, loader: EpochLoader) -> None:
    """Time the start of a second validation, for which persistent workers already exist."""
    loader.set_epoch(2)
    began_s = trial.now_s()
    iterator = iter(loader)
    if next(iterator, None) is not None:
        trial.recorder.note(validation_again_s=trial.now_s() - began_s)
    close_iterator(iterator)


@deaths_told_afterwards()  # a worker's death is no failure of the metrics
def _measure_metrics(trial: RunningTrial) -> None:
    """Time the task's metrics. With so few batches it may have none, which is no failure."""
    if trial.task is None or trial.spec.windows.checkpoints == 0:
        return
    trial.progress.enter(Stage.METRICS)
    imported = len(sys.modules)
    try:
        took_s = _metrics_s(trial, trial.task)
        # importing a library happens once and not in every epoch, so time it again
        if len(sys.modules) > imported:
            with contextlib.suppress(Exception):
                took_s = _metrics_s(trial, trial.task)
    except UsageError:
        raise
    except Exception as error:
        trial.recorder.fields.setdefault("notes", []).append(
            f"metrics() raised {type(error).__name__} in a trial of a few batches "
            f"({' '.join(str(error).split())[:120]}): what it takes was not timed"
        )
    else:
        trial.recorder.metrics_s.append(took_s)
    trial.recorder.save()


def _metrics_s(trial: RunningTrial, task: Task) -> float:
    began_s = trial.now_s()
    with kept_rng(trial.cell.device):
        own_metrics(task.metrics())
    trial.synchronize()
    return trial.now_s() - began_s


def _measure_checkpoints(trial: RunningTrial) -> None:
    """Time real checkpoints of the real state, written as a real run writes them."""
    if trial.task is None:
        return
    trial.progress.enter(Stage.CHECKPOINT)
    path = Path(trial.spec.folder) / "checkpoint.pt"
    for count in range(trial.spec.windows.checkpoints):
        began_s = trial.now_s()
        state = {"task": trial.task.state_dict()}
        if trial.ranks.rank == 0:
            save_checkpoint(path, state)
        trial.recorder.checkpoint_s.append(trial.now_s() - began_s)
        trial.progress.step(count + 1)
        path.unlink(missing_ok=True)
    trial.recorder.save()
