"""A run as the loop makes it: epochs, validation, stops, checkpoints, and where it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.child.training.batches import RowCounter, known_rows, row_counter
from ctrkit.child.training.checkpoint import (
    keep_as,
    save_checkpoint,
)
from ctrkit.child.training.distributed import Ranks
from ctrkit.child.training.loader_facts import length_of, no_batch_words
from ctrkit.child.training.own_metrics import check_watch, own_metrics
from ctrkit.child.training.plain_state import to_plain
from ctrkit.child.training.position import Position, identity, read_state
from ctrkit.child.training.saving import Saving, never_saved
from ctrkit.child.training.seeding import kept_rng, rng_of_rank, rng_state, seed_rank, set_rng_state
from ctrkit.child.training.time_spent import TimeLedger
from ctrkit.child.workloads.iterable_loader import as_epoch_loader
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Mark, Task, Workload
from ctrkit.child.workloads.returned import UsedUpError, check_batch
from ctrkit.core import stops
from ctrkit.core.config import Cell, RunSizes, TrainPlan
from ctrkit.core.epochs import EPOCHS, write_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.files import plain_disk_errors
from ctrkit.core.progress import SPENT_FILE, ProgressWriter, Spending, Stage
from ctrkit.core.unsaved import UNSAVED_FILE

_END = object()
#: a stop that went to all processes may have ended one of the loader's before this one hears of it
_SAME_STOP_S = 1.0
#: how long a run that is done waits at most for a disk that does not take its last state, and how
#: long it waits between two tries
_LAST_TRIES_S, _BETWEEN_TRIES_S = 60.0, 2.0


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """How a run ended.

    `finished`: all that the plan asked for is done, by the last epoch, early stopping or
    `max_steps`. `interrupted`: it was asked to stop, and `last.pt` continues it. `epochs_done`
    counts whole epochs, validated and in `epochs.csv`, from the very start of the run, and
    `steps_done` all of its steps; `by_max_steps`: it ended before its last epoch; `steps_run`
    the steps of this process: 0 where a resumed run had nothing left to do. `best_lost`: the disk
    refused to keep the best epoch, so that `best.pt` is an older one.
    """

    finished: bool
    stopped_early: bool
    interrupted: bool
    epochs_done: int
    best_epoch: int | None
    steps_run: int
    steps_done: int = 0
    by_max_steps: bool = False
    best_lost: bool = False


class _LoaderTask(Task):
    """The task of a workload without a model: a step is only taking a batch."""

    def transfer(self, batch: Batch) -> Batch:
        return batch

    def train_step(self, batch: Batch, mark: Mark) -> None:
        pass


class EpochLoop:
    """One process's way through a run; see `run_training` for what it promises."""

    def __init__(
        self,
        workload: Workload,
        cell: Cell,
        plan: TrainPlan,
        progress: ProgressWriter,
        stop_requested: Callable[[], bool],
        clock: Callable[[], float],
        ranks: Ranks,
    ) -> None:
        self.workload, self.cell, self.plan, self.progress = workload, cell, plan, progress
        self.stop_requested, self.clock, self.ranks = stop_requested, clock, ranks
        self.ledger = TimeLedger(progress.path.with_name(SPENT_FILE))
        self.last_path = Path(plan.run_folder) / "checkpoints" / "last.pt"
        self.epochs_path = Path(plan.run_folder) / EPOCHS
        self.position = Position(watch=check_watch(workload.watch))
        self.rng: Mapping[str, Any] | None = None  # to be put back when a resumed epoch goes on
        self.epoch_rng: Mapping[str, Any] | None = None  # that of the epoch's `iter`, for its order
        self.begun_rng: Mapping[str, Any] | None = None  # that of the epoch's first moment
        self.saved: tuple[int, int, bool] | None = None  # the position in `last.pt`
        self.stopping = False  # as all ranks have agreed after the last step
        self.steps_run = 0
        self.tried_at = self.started_at = clock()  # when it was last saved, or tried in vain
        self.refused = 0  # the error with which the disk refused the last checkpoint; 0: it did not
        self.epochs_refused = 0  # the same of `epochs.csv`, at the rank that writes it
        note = progress.path.with_name(UNSAVED_FILE) if ranks.rank == 0 else None
        self.saving = Saving(note, plan.checkpoint_every_s)

    code: dict[str, str]
    sizes: RunSizes
    batches: int | None  # of an epoch, as far as it is known
    task: Task
    train_loader: EpochLoader
    rows: RowCounter
    validation_loader: EpochLoader | None

    def run(self) -> TrainOutcome:
        interrupted = False
        with ExitStack() as stack:
            self.progress.enter(Stage.DATA)
            self.sizes = self.workload.sizes(self.cell.batch_size)
            state = self._read_checkpoint() if self.plan.resume else None
            self.ranks.check_equal("position", (self.position.epoch, self.position.batch))
            self.batches = self.position.counted or self.sizes.train_batches
            self._write_epochs(must=True)
            if not self._is_finished():
                self._open(stack, state)
                del state  # as large as the model and the optimiser together
                stops.let(stops.Raises.NEVER)  # from here on there may be something to save
                while not self._is_finished() and not interrupted:
                    interrupted = not self._run_epoch() and not self._is_finished()
                self._save_at_last()
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
            steps_done=self.position.steps,
            by_max_steps=self._is_cut_by_max_steps(),
            best_lost=self.position.best_lost,
        )

    def _open(self, stack: ExitStack, state: Mapping[str, Any] | None) -> None:
        self.train_loader = as_epoch_loader(self.workload.train_loader(self.cell))
        stack.callback(self.train_loader.close)
        self.rows = row_counter(self.workload, self.cell, self.train_loader)
        self.batches = self.batches or length_of(self.train_loader)
        made = self.workload.validation_loader(self.cell)
        self.validation_loader = None if made is None else as_epoch_loader(made)
        if self.validation_loader is not None:
            stack.callback(self.validation_loader.close)
        self.progress.enter(Stage.MODEL)
        self.task = self.workload.make_task(self.cell) or _LoaderTask()
        seed_rank(self.ranks.rank)
        if state is not None:
            # what a task resets at the start of an epoch is in the state, too
            self.task.begin_epoch(self.position.epoch)
            self.task.load_state_dict(state["task"])
            self.rng = rng_of_rank(state, self.ranks.rank, self.cell.device)
            self.epoch_rng = state.get("epoch_rng")
        self.ranks.check_equal("sum of the parameters", self.task.checksum())
        if state is None:
            to_plain(self.task.state_dict(), "task")  # better now than after hours
        self.tried_at = self.clock()

    # ---- what is left to do ----------------------------------------------------------------------

    def _is_stopped_early(self) -> bool:
        return 0 < self.sizes.patience <= self.position.epochs_without_gain

    def _is_finished(self) -> bool:
        has_ended = self._are_steps_used_up() and not self.position.trained
        return self._is_past_the_last_epoch() or has_ended

    def _is_cut_by_max_steps(self) -> bool:
        return self._are_steps_used_up() and not self._is_past_the_last_epoch()

    def _is_past_the_last_epoch(self) -> bool:
        last = self.plan.epochs
        return (last is not None and self.position.epoch > last) or self._is_stopped_early()

    def _are_steps_used_up(self) -> bool:
        return self.plan.max_steps is not None and self.position.steps >= self.plan.max_steps

    def _is_at_its_end(self) -> bool:
        """Whether the loader should have no more batches, as far as its length is known."""
        return self.batches is not None and self.position.batch == self.batches

    # ---- an epoch --------------------------------------------------------------------------------

    def _run_epoch(self) -> bool:
        """What is left of the epoch; False if it was cut, with the position saved."""
        self.started_at = self.clock()
        try:
            is_whole = self._train() and self._validate()
        except stops.Stopped:
            is_whole = False
        if is_whole:
            self._end_epoch()
            return True
        self.ledger.enter(Spending.CHECKPOINT)
        if self.saved != self._place():
            self._save()
        return False

    def _train(self) -> bool:
        position = self.position
        self.ledger.enter(Spending.DATA_WAIT)
        self.progress.enter(Stage.FIRST_BATCH, epoch=position.epoch, steps=self.batches or 0)
        self.stopping = self._any(self.stop_requested())
        if self.stopping:
            return False
        if position.batch == 0:
            self._restore_rng()
            self.begun_rng = rng_state(self.cell.device)
            self.task.begin_epoch(position.epoch)
        else:
            self.progress.step(position.batch)
        if position.trained:
            self._restore_rng()
            return True
        try:
            batches = self._begin_loading()
            self._take_all(batches)
        except stops.Stopped:
            if position.batch == 0:  # the streams and the loader have already moved on
                self.rng = self.begun_rng
            raise
        return position.trained

    def _take_all(self, batches: Iterator[Batch]) -> None:
        """Train on what is left of the epoch, or until it is cut."""
        position = self.position
        while True:
            if self._is_at_its_end():
                self.progress.enter(Stage.EPOCH_BOUNDARY)  # the iterator has yet to wind up
            elif position.batch and (self.stopping or self._are_steps_used_up()):
                return  # at batch 0 the random streams have already moved on
            self.ledger.enter(Spending.DATA_WAIT)
            asked_at = self.clock()
            batch = self._next(batches)
            if batch is _END:
                break
            if self._are_steps_used_up():  # the loader is longer than it said
                return
            self.progress.enter(Stage.STEP)
            self._step(batch, wait_s=self.clock() - asked_at)
        self.progress.enter(Stage.EPOCH_BOUNDARY)
        if position.batch == 0:
            raise UsageError(self._no_batch_words())
        position.end_training()
        self.batches = position.counted  # what was counted overrides what `len()` says

    def _no_batch_words(self) -> str:
        epoch = self.position.epoch
        if epoch > 1 and self.position.counted:
            return self._once_only(
                f"no batch came, after {self.position.counted} in the one before"
            )
        heeds = "batch_size" in self.workload.axes
        words = no_batch_words(self.train_loader, self.cell.batch_size, heeds)
        return f"epoch {epoch}: {words}"

    def _once_only(self, why: str) -> str:
        """That there is no further epoch, that nothing is lost by it, and what to do."""
        epoch = self.position.epoch
        done = "epoch 1 is" if epoch == 2 else f"epochs 1 to {epoch - 1} are"
        return (
            f"epoch {epoch} cannot be had: {why}; the loader can be iterated only once. {done} "
            f"saved: train with --epochs {epoch - 1}, or have the loader begin anew each time that "
            f"it is iterated, and go on with ctrkit train --resume {self.plan.run_folder}"
        ).replace(". epoch", ". Epoch")

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch, or `_END`.

        Raises:
            Stopped: a stop came while it waited. The state is that of the last step; the random
                streams, too, where the batches are made by other processes. Elsewhere only a wait
                that takes too long is given up.
        """
        is_exact = self.cell.workers > 0 or self.saved == self._place() or not self.position.batch
        at_once = is_exact and not self._is_at_its_end()
        with self._waiting(stops.Raises.AT_ONCE if at_once else stops.Raises.LATE):
            return next(batches, _END)

    @contextmanager
    def _waiting(self, raises: stops.Raises) -> Iterator[None]:
        """Inside, the loop waits for its loader, and a stop may raise `Stopped`.

        An error that comes together with a stop is one of the stop: it went to all processes.
        """
        if self.ranks.count > 1:  # all of them must stop at the same step
            yield
            return
        try:
            with stops.raising(raises):
                yield
        except Exception as error:
            if stops.comes_within(_SAME_STOP_S):
                raise stops.Stopped from error
            raise

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
        try:
            self.train_loader.set_epoch(position.epoch, position.batch)
        except UsedUpError as error:
            raise UsageError(self._once_only(str(error).partition(",")[0])) from None
        self.rows.begin_epoch(position.batch)
        if hasattr(self.train_loader, "on_skip"):  # each batch that it has to take is progress
            self.train_loader.on_skip = lambda: self.progress.enter(Stage.FIRST_BATCH)
        with self._waiting(stops.Raises.AT_ONCE):  # there is no step yet that is not saved
            batches = iter(self.train_loader)
        self._restore_rng()
        return batches

    def _step(self, batch: Batch, wait_s: float) -> None:
        check_batch(batch)
        self.ledger.enter(Spending.TRANSFER)
        moved = self.task.transfer(batch)
        self.ledger.enter(Spending.COMPUTE)
        self.task.train_step(moved, self.ledger.mark)
        self.ledger.enter(Spending.LOGGING)
        is_due = self.clock() - self.tried_at >= self.plan.checkpoint_every_s
        # one exchange tells all ranks how many rows there were, and what any of them wishes
        rows, stop, save = self.ranks.sum(
            known_rows(self.rows.count(batch)), self.stop_requested(), is_due
        )
        self.stopping = bool(stop)
        self.position.count_step(rows)
        self.steps_run += 1
        if self.batches is not None and self.position.batch > self.batches:
            self.batches = None  # `len()` was wrong: where the epoch ends is not known
            self.progress.enter(Stage.STEP, steps=0)
        self.ledger.stepped(self.task, rows)
        loss = self.task.recent_loss()
        self.progress.step(self.position.batch, rows=rows, wait_s=wait_s, loss=loss)
        if save:
            self.ledger.enter(Spending.CHECKPOINT)
            self._save()

    def _any(self, wish: bool) -> bool:
        """Whether any rank wishes it; all ranks must ask at the same place."""
        return self.ranks.sum(wish)[0] > 0

    def _validate(self) -> bool:
        """Score the validation batches; False if it was asked to stop: resuming starts it anew."""
        self.ledger.enter(Spending.VALIDATION)
        if self.validation_loader is None:
            return True
        self.progress.enter(Stage.VALIDATION)
        before = rng_state(self.cell.device)  # what an `iter` draws is drawn anew
        try:
            if self._score(self.validation_loader):
                return True
        except stops.Stopped:
            self.rng = before
            raise
        self.rng = before
        return False

    def _score(self, loader: EpochLoader) -> bool:
        self.task.begin_validation()
        loader.set_epoch(self.position.epoch)
        with self._waiting(stops.Raises.AT_ONCE):
            batches = iter(loader)
        while True:
            with self._waiting(stops.Raises.AT_ONCE):
                batch = next(batches, _END)
            if batch is _END:
                return True
            if self._any(self.stop_requested()):
                return False
            self.task.validation_step(self.task.transfer(batch))
            self.progress.enter(Stage.VALIDATION)  # each batch is progress

    def _end_epoch(self) -> None:
        self.progress.enter(Stage.METRICS)
        position = self.position
        metrics = self._metrics()
        rows = None if self.rows.is_unknown else position.rows
        row = metrics | {"epoch": position.epoch, "rows": rows}
        position.history.append(row)
        is_best = position.judge(metrics)
        before_s = position.wall_s
        row["wall_s"] = before_s + self.clock() - self.started_at
        position.next_epoch()
        self.ledger.enter(Spending.CHECKPOINT)
        is_saved = self._save(elapsed_s=0.0)
        if is_best:
            position.best_lost = not (is_saved and self._keep_best())
        self.ledger.enter(Spending.LOGGING)
        # the checkpoint belongs to the epoch's time, so the file of epochs knows more than it does
        row["wall_s"] = before_s + self.clock() - self.started_at
        self._write_epochs()

    def _metrics(self) -> dict[str, float | str | None]:
        """Of the epoch; where the task cannot tell them, the epoch's training is saved first."""
        try:
            with kept_rng(self.cell.device):
                return own_metrics(self.task.metrics())
        except Exception:
            if self.ranks.count == 1:  # the others may have theirs, and would not save with it
                self._save()
            self.progress.enter(Stage.METRICS)
            raise

    # ---- checkpoints -----------------------------------------------------------------------------

    def _place(self) -> tuple[int, int, bool]:
        """The position as a checkpoint of now would have it."""
        position = self.position
        if self._saves_beginning():
            return position.epoch, 0, False
        return position.epoch, position.batch, position.trained

    def _saves_beginning(self) -> bool:
        return bool(self.position.batch) and isinstance(self.task, _LoaderTask)

    def _save(self, elapsed_s: float | None = None) -> bool:
        """Write `last.pt`; False where the disk refuses: the checkpoint before stays as it is.

        Args:
            elapsed_s: to be added to the epoch's time, as is usual; since this process began it if
                left out.
        """
        self.progress.enter(Stage.CHECKPOINT)
        if elapsed_s is None:
            elapsed_s = self.clock() - self.started_at
        at_beginning = self._saves_beginning()
        rng = self.epoch_rng if at_beginning else self.rng
        # of every rank, and by all of them together: the task gathers what they have, too
        rngs = self.ranks.gather(rng_state(self.cell.device) if rng is None else rng)
        task = self.task.state_dict()
        refused = 0
        if rngs is not None:
            state = {
                "identity": identity(self.workload, self.cell),
                "code": self.code,
                "position": self.position.as_saved(elapsed_s, at_beginning=at_beginning),
                "task": task,
                "rng": rngs[0],
                "epoch_rng": self.epoch_rng,
                "rng_of_ranks": rngs[1:],
            }
            refused = self.saving.refused(
                self.last_path, lambda: save_checkpoint(self.last_path, state)
            )
        self.refused = self.ranks.sum(refused)[0]  # one rank writes, and all of them know
        if not self.refused:
            self.saved = self._place()
        self.saving.note(self.refused, self._place(), self.saved)
        self.tried_at = self.clock()
        self.progress.enter(Stage.STEP if self.position.batch else Stage.EPOCH_BOUNDARY)
        return not self.refused

    def _save_at_last(self) -> None:
        """Before the process ends: what the disk refused is tried again, for a while.

        Raises:
            UsageError: it was in vain, or the user would not wait.
        """
        if not self.refused and not self.epochs_refused:
            return
        waits_s = min(self.plan.checkpoint_every_s, _LAST_TRIES_S)
        self.saving.waits(waits_s)
        until = self.clock() + waits_s
        while self.refused and not self._any(self.stop_requested() or self.clock() >= until):
            time.sleep(_BETWEEN_TRIES_S)
            self._save(elapsed_s=None if self.position.batch else 0.0)
        if self.refused:
            raise never_saved(self.last_path, self.refused, self.plan.run_folder, self.saved)
        self._write_epochs(must=True)

    def _keep_best(self) -> bool:
        """The last checkpoint is the best one, too; False where the disk refuses."""
        if self.ranks.rank != 0:
            return True
        return not self.saving.refused(self.last_path, lambda: keep_as(self.last_path, "best.pt"))

    def _write_epochs(self, *, must: bool = False) -> None:
        """The rows so far. They are in every checkpoint as well: the disk may refuse them here.

        Args:
            must: then it must not.

        Raises:
            UsageError: the disk refuses, and must not.
        """
        if self.ranks.rank != 0:
            return

        def write() -> None:
            write_epochs(self.epochs_path, self.position.history, self.workload.epoch_columns)

        if must:
            folder = self.plan.run_folder
            begin = f"make room, then begin with ctrkit train --resume {folder}"
            advice = "" if self.last_path.is_file() else f"nothing was saved yet: {begin}"
            with plain_disk_errors(self.epochs_path, resume=folder, advice=advice):
                write()
            return
        self.epochs_refused = self.saving.refused(self.epochs_path, write)
        if self.epochs_refused:
            self.saving.note(self.epochs_refused, self._place(), self.saved)

    def _restore_rng(self) -> None:
        if self.rng is not None:
            set_rng_state(self.rng, self.cell.device)
            self.rng = None

    def _read_checkpoint(self) -> Mapping[str, Any]:
        wanted = identity(self.workload, self.cell)
        state, self.position = read_state(self.last_path, self.epochs_path, wanted)
        self.position.watch_for(check_watch(self.workload.watch))
        self.saved = self.position.epoch, self.position.batch, self.position.trained
        if self.position.batch == 0 and self.position.best_epoch == self.position.epoch - 1:
            self._keep_best()  # in case it ended between the two
        return state
