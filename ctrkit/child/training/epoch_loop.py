"""Runs the epochs of a training run: steps, validation, checkpoints, stops, and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from ctrkit.child.training.batches import RowCounter, known_rows, row_counter
from ctrkit.child.training.distributed import Ranks
from ctrkit.child.training.loader_facts import length_of, no_batch_words
from ctrkit.child.training.own_metrics import own_metrics
from ctrkit.child.training.plain_state import to_plain
from ctrkit.child.training.run_state import LoaderTask, RunState
from ctrkit.child.training.seeding import kept_rng, rng_of_rank, rng_state, seed_rank, set_rng_state
from ctrkit.child.training.time_spent import TimeLedger
from ctrkit.child.workloads.iterable_loader import as_epoch_loader
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Workload
from ctrkit.child.workloads.returned import UsedUpError, check_batch
from ctrkit.core import stops
from ctrkit.core.config import Cell, TrainPlan
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import ProgressWriter, Stage
from ctrkit.core.spending import SPENT_FILE, Spending

_END = object()
#: A stop signal to all processes may end a loader's process before this one notices the signal.
_SAME_STOP_S = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainOutcome:
    """How a run ended.

    Attributes:
        finished: everything planned is done, by the last epoch, early stopping or `max_steps`.
        interrupted: it was asked to stop; it can continue from `last.pt`.
        epochs_done: whole epochs since the very start of the run, validated and in `epochs.csv`.
        steps_done: steps since the very start of the run.
        by_max_steps: `max_steps` ended it before its last epoch.
        steps_run: steps of this process; 0 if a resumed run had nothing left to do.
        best_lost: the disk refused the best epoch, so `best.pt` is an older one.
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


class EpochLoop(RunState):
    """Runs the epochs of one process; `run_training` documents what it guarantees."""

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
        super().__init__(workload, cell, plan, progress, stop_requested, clock, ranks)
        self.ledger = TimeLedger(progress.path.with_name(SPENT_FILE))
        self.stopping = False  # what all ranks agreed on after the last step
        self.steps_run = 0

    train_loader: EpochLoader
    rows: RowCounter
    validation_loader: EpochLoader | None

    def run(self) -> TrainOutcome:
        interrupted = False
        with ExitStack() as stack:
            self.progress.enter(Stage.DATA)
            self.sizes = self.workload.sizes(self.cell.batch_size)
            state = self.read_checkpoint() if self.plan.resume else None
            self.ranks.check_equal("position", (self.position.epoch, self.position.batch))
            self.batches = self.position.counted or self.sizes.train_batches
            self.write_epochs(must=True)
            if not self._is_finished():
                self._open(stack, state)
                del state  # it is as large as the model and the optimizer together
                stops.let(stops.Raises.NEVER)  # from here on there may be unsaved state
                while not self._is_finished() and not interrupted:
                    interrupted = not self._run_epoch() and not self._is_finished()
                self.save_at_last()
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
        self.task = self.workload.make_task(self.cell) or LoaderTask()
        seed_rank(self.ranks.rank)
        if state is not None:
            # the state to load includes what a task resets at the start of an epoch
            self.task.begin_epoch(self.position.epoch)
            self.task.load_state_dict(state["task"])
            self.rng = rng_of_rank(state, self.ranks.rank, self.cell.device)
            self.epoch_rng = state.get("epoch_rng")
        self.ranks.check_equal("sum of the parameters", self.task.checksum())
        if state is None:
            to_plain(self.task.state_dict(), "task")  # an error now is better than one after hours
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
        """Run the rest of the epoch; False if it was cut short (its position is saved)."""
        self.started_at = self.clock()
        try:
            is_whole = self._train() and self._validate()
        except stops.Stopped:
            is_whole = False
        if is_whole:
            self._end_epoch()
            return True
        self.ledger.enter(Spending.CHECKPOINT)
        if self.saved != self.place():
            self.save()
        return False

    def _train(self) -> bool:
        position = self.position
        self.ledger.enter(Spending.DATA_WAIT)
        self.progress.enter(Stage.FIRST_BATCH, epoch=position.epoch, steps=self.batches or 0)
        self.stopping = self.any_rank(self.stop_requested())
        if self.stopping:
            return False
        if position.batch == 0:
            self.restore_rng()
            self.begun_rng = rng_state(self.cell.device)
            self.task.begin_epoch(position.epoch)
        else:
            self.progress.step(position.batch)
        if position.trained:
            self.restore_rng()
            return True
        try:
            batches = self._begin_loading()
            self._take_all(batches)
        except stops.Stopped:
            if position.batch == 0:  # the random streams and the loader have already advanced
                self.rng = self.begun_rng
            raise
        return position.trained

    def _take_all(self, batches: Iterator[Batch]) -> None:
        """Train on the rest of the epoch, or until it is cut short."""
        position = self.position
        while True:
            if self._is_at_its_end():
                self.progress.enter(Stage.EPOCH_BOUNDARY)  # the iterator still has to end
            elif position.batch and (self.stopping or self._are_steps_used_up()):
                return  # at batch 0 the random streams have already advanced
            self.ledger.enter(Spending.DATA_WAIT)
            asked_at = self.clock()
            batch = self._next(batches)
            if batch is _END:
                break
            if self._are_steps_used_up():  # the loader yields more batches than its length says
                return
            self.progress.enter(Stage.STEP)
            self._step(batch, wait_s=self.clock() - asked_at)
        self.progress.enter(Stage.EPOCH_BOUNDARY)
        if position.batch == 0:
            raise UsageError(self._no_batch_words())
        position.end_training()
        self.batches = position.counted  # the count overrides what `len()` says

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
        """A message: there is no further epoch, nothing is lost, and what to do."""
        epoch = self.position.epoch
        done = "epoch 1 is" if epoch == 2 else f"epochs 1 to {epoch - 1} are"
        return (
            f"epoch {epoch} cannot start: {why}; the loader can be iterated only once. {done} "
            f"saved: train with --epochs {epoch - 1}, or make the loader start again each time "
            f"it is iterated, and continue with ctrkit train --resume {self.plan.run_folder}"
        ).replace(". epoch", ". Epoch")

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch, or `_END`.

        Raises:
            Stopped: a stop came during the wait. The state is that of the last step. If other
                processes make the batches, the random streams are also unchanged, so the wait is
                given up at once; otherwise only a wait that takes too long is given up.
        """
        is_exact = self.cell.workers > 0 or self.saved == self.place() or not self.position.batch
        at_once = is_exact and not self._is_at_its_end()
        with self._waiting(stops.Raises.AT_ONCE if at_once else stops.Raises.LATE):
            return next(batches, _END)

    @contextmanager
    def _waiting(self, raises: stops.Raises) -> Iterator[None]:
        """Within this context the loop waits for its loader, and a stop may raise `Stopped`.

        An error that comes together with a stop counts as the stop, which went to all processes.
        """
        if self.ranks.count > 1:  # all ranks must stop at the same step
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
        """An iterator over the rest of the epoch.

        `iter` draws a seed from torch's stream. To repeat the epoch's order, it gets the stream's
        state from the beginning of the epoch; afterwards the streams are put back.
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
        # each batch that it takes only to skip it is progress
        if hasattr(self.train_loader, "on_skip"):
            self.train_loader.on_skip = lambda: self.progress.enter(Stage.FIRST_BATCH)
        with self._waiting(stops.Raises.AT_ONCE):  # there is no unsaved step yet
            batches = iter(self.train_loader)
        self.restore_rng()
        return batches

    def _step(self, batch: Batch, wait_s: float) -> None:
        check_batch(batch)
        self.ledger.enter(Spending.TRANSFER)
        moved = self.task.transfer(batch)
        self.ledger.enter(Spending.COMPUTE)
        self.task.train_step(moved, self.ledger.mark)
        self.ledger.enter(Spending.LOGGING)
        is_due = self.clock() - self.tried_at >= self.plan.checkpoint_every_s
        # a single exchange: the rows of all ranks, and whether any rank wants to stop or save
        rows, stop, save = self.ranks.sum(
            known_rows(self.rows.count(batch)), self.stop_requested(), is_due
        )
        self.stopping = bool(stop)
        self.position.count_step(rows)
        self.steps_run += 1
        if self.batches is not None and self.position.batch > self.batches:
            self.batches = None  # `len()` was wrong, so the end of the epoch is unknown
            self.progress.enter(Stage.STEP, steps=0)
        self.ledger.stepped(self.task, rows)
        loss = self.task.recent_loss()
        self.progress.step(self.position.batch, rows=rows, wait_s=wait_s, loss=loss)
        if save:
            self.ledger.enter(Spending.CHECKPOINT)
            self.save()

    def _validate(self) -> bool:
        """Score the validation batches; False if it was asked to stop. Resuming validates anew."""
        self.ledger.enter(Spending.VALIDATION)
        if self.validation_loader is None:
            return True
        self.progress.enter(Stage.VALIDATION)
        # put back afterwards, since resuming draws the seed of `iter` again
        before = rng_state(self.cell.device)
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
            if self.any_rank(self.stop_requested()):
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
        is_saved = self.save(elapsed_s=0.0)
        if is_best:
            position.best_lost = not (is_saved and self.keep_best())
        self.ledger.enter(Spending.LOGGING)
        # The epoch's time includes writing its checkpoint, so `epochs.csv` knows a longer time than
        # the checkpoint itself.
        row["wall_s"] = before_s + self.clock() - self.started_at
        self.write_epochs()

    def _metrics(self) -> dict[str, float | str | None]:
        """The epoch's metrics; if the task raises, the epoch's training is saved first."""
        try:
            with kept_rng(self.cell.device):
                return own_metrics(self.task.metrics())
        except Exception:
            # with several ranks, the others may have their metrics and would not join the save
            if self.ranks.count == 1:
                self.save()
            self.progress.enter(Stage.METRICS)
            raise
