"""The state of a run at one moment, and how `last.pt`, `best.pt` and `epochs.csv` keep it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ctrkit.child.training.checkpoint import keep_as, save_checkpoint
from ctrkit.child.training.distributed import Ranks
from ctrkit.child.training.own_metrics import check_watch
from ctrkit.child.training.position import Position, identity, read_state
from ctrkit.child.training.saving import Saving, never_saved
from ctrkit.child.training.seeding import rng_state, set_rng_state
from ctrkit.child.workloads.protocol import Batch, Mark, Task, Workload
from ctrkit.core.config import Cell, RunSizes, TrainPlan
from ctrkit.core.epochs import EPOCHS, write_epochs
from ctrkit.core.files import plain_disk_errors
from ctrkit.core.progress import ProgressWriter, Stage
from ctrkit.core.unsaved import UNSAVED_FILE

#: How long a finished run retries when the disk refuses its last state, and the pause between
#: tries.
_LAST_TRIES_S, _BETWEEN_TRIES_S = 60.0, 2.0


class LoaderTask(Task):
    """The task of a workload without a model: a step is only taking a batch."""

    def transfer(self, batch: Batch) -> Batch:
        return batch

    def train_step(self, batch: Batch, mark: Mark) -> None:
        pass


class RunState:
    """The position, random streams and task of a run, which checkpoints save and restore."""

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
        self.last_path = Path(plan.run_folder) / "checkpoints" / "last.pt"
        self.epochs_path = Path(plan.run_folder) / EPOCHS
        self.position = Position(watch=check_watch(workload.watch))
        self.rng: Mapping[str, Any] | None = None  # to restore when a resumed epoch continues
        # state at the epoch's `iter`, which fixes its order
        self.epoch_rng: Mapping[str, Any] | None = None
        self.begun_rng: Mapping[str, Any] | None = None  # state at the beginning of the epoch
        self.saved: tuple[int, int, bool] | None = None  # the position in `last.pt`
        self.tried_at = self.started_at = clock()  # when it last tried to save
        self.refused = 0  # errno of the last failed checkpoint; 0 if it was written
        self.epochs_refused = 0  # the same for `epochs.csv`, on the rank that writes it
        note = progress.path.with_name(UNSAVED_FILE) if ranks.rank == 0 else None
        self.saving = Saving(note, plan.checkpoint_every_s)

    code: dict[str, str]
    sizes: RunSizes
    batches: int | None  # batches of an epoch, if known
    task: Task

    def place(self) -> tuple[int, int, bool]:
        """The position that a checkpoint written now would have."""
        position = self.position
        if self._saves_beginning():
            return position.epoch, 0, False
        return position.epoch, position.batch, position.trained

    def _saves_beginning(self) -> bool:
        return bool(self.position.batch) and isinstance(self.task, LoaderTask)

    def save(self, elapsed_s: float | None = None) -> bool:
        """Write `last.pt`; False if the disk refuses, and then the previous checkpoint stays.

        Args:
            elapsed_s: seconds to add to the epoch's time; those since this process began it if left
                out.
        """
        self.progress.enter(Stage.CHECKPOINT)
        if elapsed_s is None:
            elapsed_s = self.clock() - self.started_at
        at_beginning = self._saves_beginning()
        rng = self.epoch_rng if at_beginning else self.rng
        # all ranks do this together: the task may gather state from all of them, too
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
        self.refused = self.ranks.sum(refused)[0]  # one rank writes, and all learn the result
        if not self.refused:
            self.saved = self.place()
        self.saving.note(self.refused, self.place(), self.saved)
        self.tried_at = self.clock()
        self.progress.enter(Stage.STEP if self.position.batch else Stage.EPOCH_BOUNDARY)
        return not self.refused

    def save_at_last(self) -> None:
        """Save before the process ends; if the disk refuses, retry for a while.

        Raises:
            UsageError: the disk kept refusing, or the user did not want to wait.
        """
        if not self.refused and not self.epochs_refused:
            return
        waits_s = min(self.plan.checkpoint_every_s, _LAST_TRIES_S)
        self.saving.waits(waits_s)
        until = self.clock() + waits_s
        while self.refused and not self.any_rank(self.stop_requested() or self.clock() >= until):
            time.sleep(_BETWEEN_TRIES_S)
            self.save(elapsed_s=None if self.position.batch else 0.0)
        if self.refused:
            raise never_saved(self.last_path, self.refused, self.plan.run_folder, self.saved)
        self.write_epochs(must=True)

    def keep_best(self) -> bool:
        """Keep the last checkpoint as the best one; False if the disk refuses."""
        if self.ranks.rank != 0:
            return True
        return not self.saving.refused(self.last_path, lambda: keep_as(self.last_path, "best.pt"))

    def write_epochs(self, *, must: bool = False) -> None:
        """Write `epochs.csv`. The disk may refuse: every checkpoint holds the rows as well.

        Args:
            must: raise an error if the disk refuses.

        Raises:
            UsageError: the disk refuses, and `must` is set.
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
            self.saving.note(self.epochs_refused, self.place(), self.saved)

    def restore_rng(self) -> None:
        if self.rng is not None:
            set_rng_state(self.rng, self.cell.device)
            self.rng = None

    def read_checkpoint(self) -> Mapping[str, Any]:
        wanted = identity(self.workload, self.cell)
        state, self.position = read_state(self.last_path, self.epochs_path, wanted)
        self.position.watch_for(check_watch(self.workload.watch))
        self.saved = self.position.epoch, self.position.batch, self.position.trained
        if self.position.batch == 0 and self.position.best_epoch == self.position.epoch - 1:
            self.keep_best()  # the process may have ended between writing the two
        return state

    def any_rank(self, wish: bool) -> bool:
        """Whether any rank wants this; all ranks must call it at the same place."""
        return self.ranks.sum(wish)[0] > 0
