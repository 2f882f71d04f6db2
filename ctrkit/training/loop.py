"""The training loop of any workload: epochs, validation, early stopping, checkpoints, resuming."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrkit.config import Cell, RunSizes, TrainPlan
from ctrkit.errors import UsageError
from ctrkit.locks import only_writer
from ctrkit.progress import SPENT_FILE, ProgressWriter, Spending, Stage
from ctrkit.records import EPOCH_COLUMNS
from ctrkit.training.batches import batch_rows
from ctrkit.training.checkpoint import (
    differences,
    keep_as,
    load_checkpoint,
    plain_disk_errors,
    remove_halves,
    save_checkpoint,
)
from ctrkit.training.history import Row, read_epochs, write_epochs
from ctrkit.training.ledger import TimeLedger
from ctrkit.training.seeding import kept_rng, rng_state, set_rng_state
from ctrkit.workloads.protocol import Batch, EpochLoader, Mark, Task, Workload

_END = object()
#: how long a process of the same run may take to die before this one is a second writer
_OTHER_ENDS_S = 10.0


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """How a run ended.

    `finished`: all that the plan asked for is done, by the last epoch, early stopping or
    `max_steps`. `interrupted`: it was asked to stop, and `last.pt` continues it. `epochs_done`
    counts whole epochs, validated and in `epochs.csv`, from the very start of the run; `steps_run`
    the steps of this process: 0 where a resumed run had nothing left to do.
    """

    finished: bool
    stopped_early: bool
    interrupted: bool
    epochs_done: int
    best_epoch: int | None
    steps_run: int


@dataclass(kw_only=True)
class _Position:
    """Where the run stands; all of it goes into the checkpoint.

    `batch` and `rows` are done of `epoch`, which took `wall_s` so far; `steps` adds up over epochs.
    """

    epoch: int = 1
    batch: int = 0
    rows: int = 0
    wall_s: float = 0.0
    steps: int = 0
    best_epoch: int | None = None
    best_val_auc: float = -math.inf
    epochs_without_gain: int = 0
    history: list[Row] = field(default_factory=list)


class _LoaderTask(Task):
    """The task of a workload without a model: a step is only taking a batch."""

    def transfer(self, batch: Batch) -> Batch:
        return batch

    def train_step(self, batch: Batch, mark: Mark) -> None:
        pass


def run_training(
    workload: Workload,
    cell: Cell,
    plan: TrainPlan,
    progress: ProgressWriter,
    *,
    stop_requested: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    code: Mapping[str, str] | None = None,
) -> TrainOutcome:
    """Train as planned, from the start or from `checkpoints/last.pt`.

    Writes `epochs.csv`, `checkpoints/last.pt` (the one before it is `previous.pt`) and, where the
    metrics have a `val_auc`, `checkpoints/best.pt` into the run folder. A run that was stopped and
    continued gives the same parameters and the same `epochs.csv` (but for `wall_s`) as one that was
    not: on CPU with equal threads bit for bit.

    An epoch that `max_steps` or a stop cuts short is not validated and has no row yet: resuming
    ends it. Without a task there is no state to keep, so a checkpoint stands at the beginning of
    its epoch: a loader whose order nobody knows then still yields each row once. An endless
    loader without `max_steps` trains its first epoch until it is stopped.

    Args:
        workload: its loaders and its task; without a task a step is only taking a batch.
        cell: the configuration of the machine; its batch size is part of the experiment.
        plan: epochs, steps, checkpoints, and whether to resume.
        progress: every stage and step is written here; on an error it keeps the stage that failed.
        stop_requested: asked between steps; once True, the position is saved and training returns.
        clock: seconds, monotonic.
        code: versions of what computes a step, kept in the checkpoints.

    Raises:
        UsageError: nothing to resume from, a checkpoint of another workload, phase, data or batch
            size, a loader that yields nothing, a folder that cannot be written or that another
            process writes into, or a full disk.
    """
    folder = Path(plan.run_folder) / "checkpoints"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from None
    with only_writer(folder, wait_s=_OTHER_ENDS_S):
        remove_halves(folder)
        loop = _Loop(workload, cell, plan, progress, stop_requested, clock)
        loop.code = dict(code or {})
        return loop.run()


class _Loop:
    def __init__(
        self,
        workload: Workload,
        cell: Cell,
        plan: TrainPlan,
        progress: ProgressWriter,
        stop_requested: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self.workload, self.cell, self.plan, self.progress = workload, cell, plan, progress
        self.stop_requested, self.clock = stop_requested, clock
        self.ledger = TimeLedger(progress.path.with_name(SPENT_FILE))
        self.last_path = Path(plan.run_folder) / "checkpoints" / "last.pt"
        self.epochs_path = Path(plan.run_folder) / "epochs.csv"
        self.position = _Position()
        self.rng: Mapping[str, Any] | None = None  # to be put back when a resumed epoch goes on
        self.epoch_rng: Mapping[str, Any] | None = None  # that of the epoch's `iter`, for its order
        self.steps_run = 0
        self.saved_at = self.started_at = clock()

    code: dict[str, str]
    sizes: RunSizes
    batches: int | None  # of an epoch, as far as it is known
    task: Task
    train_loader: EpochLoader
    validation_loader: EpochLoader | None

    def run(self) -> TrainOutcome:
        interrupted = False
        with ExitStack() as stack:
            self.progress.enter(Stage.DATA)
            self.sizes = self.workload.sizes(self.cell.batch_size)
            self.batches = self.sizes.train_batches
            state = self._read_checkpoint() if self.plan.resume else None
            with plain_disk_errors(self.epochs_path):
                write_epochs(self.epochs_path, self.position.history)
            if not self._is_finished():
                self._open(stack, state)
                del state  # as large as the model and the optimiser together
                while not self._is_finished() and not interrupted:
                    interrupted = not self._run_epoch() and not self._is_finished()
            # not in a `finally`: after an error the progress must keep the stage that failed
            self.ledger.enter(Spending.SHUTDOWN)
            self.progress.enter(Stage.SHUTDOWN)
        return TrainOutcome(
            finished=self._is_finished(),
            stopped_early=self._is_stopped_early(),
            interrupted=interrupted,
            epochs_done=self.position.epoch - 1,
            best_epoch=self.position.best_epoch,
            steps_run=self.steps_run,
        )

    def _open(self, stack: ExitStack, state: Mapping[str, Any] | None) -> None:
        self.train_loader = self.workload.train_loader(self.cell)
        stack.callback(self.train_loader.close)
        self.batches = self.batches or _length(self.train_loader)
        self.validation_loader = self.workload.validation_loader(self.cell)
        if self.validation_loader is not None:
            stack.callback(self.validation_loader.close)
        self.progress.enter(Stage.MODEL)
        self.task = self.workload.make_task(self.cell) or _LoaderTask()
        if state is not None:
            # what a task resets at the start of an epoch is in the state, too
            self.task.begin_epoch(self.position.epoch)
            self.task.load_state_dict(state["task"])
            self.rng = state["rng"]
            self.epoch_rng = state.get("epoch_rng")
        self.saved_at = self.clock()

    # ---- what is left to do ----------------------------------------------------------------------

    def _is_stopped_early(self) -> bool:
        return 0 < self.sizes.patience <= self.position.epochs_without_gain

    def _is_finished(self) -> bool:
        trained = self.position.epoch > self.plan.epochs or self._is_stopped_early()
        return trained or (self._are_steps_used_up() and not self._is_epoch_trained())

    def _are_steps_used_up(self) -> bool:
        return self.plan.max_steps is not None and self.position.steps >= self.plan.max_steps

    def _is_epoch_trained(self) -> bool:
        """Whether only the validation of the epoch is left; never known of an unsized loader."""
        return self.batches is not None and self.position.batch >= self.batches

    # ---- an epoch --------------------------------------------------------------------------------

    def _run_epoch(self) -> bool:
        """What is left of the epoch; False if it was cut, with the position saved."""
        self.started_at = self.clock()
        if self._train() and self._validate():
            self._end_epoch()
            return True
        self.ledger.enter(Spending.CHECKPOINT)
        self._save()
        return False

    def _train(self) -> bool:
        position = self.position
        self.ledger.enter(Spending.DATA_WAIT)
        self.progress.enter(Stage.FIRST_BATCH, epoch=position.epoch, steps=self.batches or 0)
        if self.stop_requested():
            return False
        if position.batch == 0:
            self._restore_rng()
            self.task.begin_epoch(position.epoch)
        else:
            self.progress.step(position.batch)
        if self._is_epoch_trained():
            self._restore_rng()
            return True
        batches = self._begin_loading()
        while True:
            if self._is_epoch_trained():
                self.progress.enter(Stage.EPOCH_BOUNDARY)  # the iterator has yet to wind up
            elif position.batch and (self.stop_requested() or self._are_steps_used_up()):
                return False  # never at batch 0, where the random streams have already moved on
            self.ledger.enter(Spending.DATA_WAIT)
            asked_at = self.clock()
            batch = next(batches, _END)
            if batch is _END:
                break
            if self._are_steps_used_up():  # the loader is longer than it said
                return False
            self.progress.enter(Stage.STEP)
            self._step(batch, wait_s=self.clock() - asked_at)
        self.progress.enter(Stage.EPOCH_BOUNDARY)
        if position.batch == 0:
            raise UsageError(
                f"the training loader yielded no batch in epoch {position.epoch}; "
                "it must hold data and start anew each time it is iterated"
            )
        return True

    def _begin_loading(self) -> Iterator[Batch]:
        """The rest of the epoch; a loader that draws its order from torch's stream finds it again.

        `iter` draws a seed: from the same state as at the beginning of the epoch, after which the
        random streams go on where they were.
        """
        position = self.position
        if position.batch == 0:
            self.epoch_rng = rng_state(self.cell.device)
        elif self.epoch_rng is not None:
            set_rng_state(self.epoch_rng, self.cell.device)
        self.train_loader.set_epoch(position.epoch, position.batch)
        if hasattr(self.train_loader, "on_skip"):  # each batch that it has to take is progress
            self.train_loader.on_skip = lambda: self.progress.enter(Stage.FIRST_BATCH)
        batches = iter(self.train_loader)
        self._restore_rng()
        return batches

    def _step(self, batch: Batch, wait_s: float) -> None:
        self.ledger.enter(Spending.TRANSFER)
        moved = self.task.transfer(batch)
        self.ledger.enter(Spending.COMPUTE)
        self.task.train_step(moved, self.ledger.mark)
        self.ledger.enter(Spending.LOGGING)
        position, rows = self.position, batch_rows(batch)
        position.batch += 1
        position.steps += 1
        position.rows += rows
        self.steps_run += 1
        self.ledger.stepped(self.task, rows)
        loss = self.task.recent_loss()
        self.progress.step(position.batch, rows=rows, wait_s=wait_s, loss=loss)
        if self.clock() - self.saved_at >= self.plan.checkpoint_every_s:
            self.ledger.enter(Spending.CHECKPOINT)
            self._save()

    def _validate(self) -> bool:
        """Score the validation batches; False if it was asked to stop: resuming starts it anew."""
        self.ledger.enter(Spending.VALIDATION)
        if self.validation_loader is None:
            return True
        self.progress.enter(Stage.VALIDATION)
        self.task.begin_validation()
        self.validation_loader.set_epoch(self.position.epoch)
        for batch in self.validation_loader:
            if self.stop_requested():
                return False
            self.task.validation_step(self.task.transfer(batch))
            self.progress.enter(Stage.VALIDATION)  # each batch is progress
        return True

    def _end_epoch(self) -> None:
        self.progress.enter(Stage.EPOCH_BOUNDARY)
        position = self.position
        with kept_rng(self.cell.device):
            metrics = self.task.metrics()
        row: Row = {name: float(metrics[name]) for name in EPOCH_COLUMNS if name in metrics}
        row |= {"epoch": position.epoch, "rows": position.rows}
        position.history.append(row)
        is_best = self._judge(metrics.get("val_auc"))
        before_s = position.wall_s
        row["wall_s"] = before_s + self.clock() - self.started_at
        position.epoch += 1
        position.batch, position.rows, position.wall_s = 0, 0, 0.0
        self.ledger.enter(Spending.CHECKPOINT)
        self._save(elapsed_s=0.0)
        if is_best:
            with plain_disk_errors(self.last_path):
                keep_as(self.last_path, "best.pt")
        self.ledger.enter(Spending.LOGGING)
        # the checkpoint belongs to the epoch's time, so the file of epochs knows more than it does
        row["wall_s"] = before_s + self.clock() - self.started_at
        with plain_disk_errors(self.epochs_path):
            write_epochs(self.epochs_path, position.history)

    def _judge(self, val_auc: float | None) -> bool:
        """Early stopping's count; True if this epoch is the best one so far. NaN is no gain."""
        if val_auc is None:
            return False
        position = self.position
        if val_auc > position.best_val_auc:
            position.best_val_auc, position.best_epoch = val_auc, position.epoch
            position.epochs_without_gain = 0
            return True
        position.epochs_without_gain += 1
        return False

    # ---- checkpoints -----------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be continued, in people's words."""
        return {
            "workload": self.workload.name,
            "data fingerprint": self.workload.data_fingerprint(),
            "batch size": self.cell.batch_size,
            **self.workload.settings(),
            "workload fingerprint": self.workload.fingerprint(),
        }

    def _save(self, elapsed_s: float | None = None) -> None:
        """Write `last.pt`; `elapsed_s` are to be added to the epoch's time, as is usual."""
        self.progress.enter(Stage.CHECKPOINT)
        if elapsed_s is None:
            elapsed_s = self.clock() - self.started_at
        position, rng = dataclasses.asdict(self.position), self.rng
        position["wall_s"] += elapsed_s
        if self.position.batch and isinstance(self.task, _LoaderTask):
            position["steps"] -= self.position.batch
            position |= {"batch": 0, "rows": 0, "wall_s": 0.0}
            rng = self.epoch_rng
        state = {
            "identity": self._identity(),
            "code": self.code,
            "position": position,
            "task": self.task.state_dict(),
            "rng": rng_state(self.cell.device) if rng is None else rng,
            "epoch_rng": self.epoch_rng,
        }
        with plain_disk_errors(self.last_path):
            save_checkpoint(self.last_path, state)
        self.saved_at = self.clock()
        self.progress.enter(Stage.STEP if self.position.batch else Stage.EPOCH_BOUNDARY)

    def _restore_rng(self) -> None:
        if self.rng is not None:
            set_rng_state(self.rng, self.cell.device)
            self.rng = None

    def _read_checkpoint(self) -> Mapping[str, Any]:
        state = load_checkpoint(self.last_path)
        if different := differences(state["identity"], self._identity()):
            raise UsageError(
                f"{self.last_path}: cannot be resumed: {different}; give it what it was started "
                "with, or start a new run"
            )
        self.position = _Position(**state["position"])
        # only the file has the time that the epoch's own checkpoint took
        written = {row["epoch"]: row["wall_s"] for row in read_epochs(self.epochs_path)}
        for row in self.position.history:
            row["wall_s"] = written.get(row["epoch"], row["wall_s"])
        if self.position.batch == 0 and self.position.best_epoch == self.position.epoch - 1:
            keep_as(self.last_path, "best.pt")  # in case it ended between the two
        return state


def _length(loader: object) -> int | None:
    """`len()` where the loader has one; a loader of unknown length is counted as it goes."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None
