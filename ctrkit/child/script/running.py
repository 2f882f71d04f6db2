"""Watches a real run: progress, where its seconds go, and each epoch; it changes nothing."""

from __future__ import annotations

import os
from math import isfinite
from typing import TYPE_CHECKING, Any

from ctrkit.child.script import json_files
from ctrkit.child.script.watch import KEPT_NOTE, LoopWatch
from ctrkit.core.progress import ProgressWriter, Stage
from ctrkit.core.spending import SPENT_FILE, Spending, SpentWriter

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer
    from ctrkit.child.script.presence import Owner
    from ctrkit.child.script.seen_loaders import Seen

EPOCHS_FILE = "script-epochs.jsonl"
_SEEN_EVERY_S = 30.0
_FIRST_SEEN_STEPS = 8
_DEVICE_EVERY_S = 10.0
#: So many steps without a batch make an epoch on batches that the loop keeps.
_STEPS_BETWEEN_EPOCHS = 50
# looked up at each step
_DATA_WAIT, _COMPUTE = Spending.DATA_WAIT, Spending.COMPUTE
_OPTIMIZER, _LOGGING, _STEP = Spending.OPTIMIZER, Spending.LOGGING, Stage.STEP


class RunWatch(LoopWatch):
    """Writes what the supervisor reads: a few words of memory per step, a line per epoch."""

    def __init__(self, observer: Observer, owner: Owner) -> None:
        super().__init__(observer, owner)
        self.progress = ProgressWriter(os.path.join(owner.folder, "progress.bin"))
        self.spent = SpentWriter(os.path.join(owner.folder, SPENT_FILE))
        self._world = owner.world
        self._steps_in_batch = self._steps_in_last = 0
        self._seen_s = self._device_s = 0.0
        self._steps, self._wait_s = 0, 0.0
        self._epoch: dict[str, Any] = {}
        self._saved_s = 0.0
        observer.write_seen(owner.folder)

    def epoch_begins(self, at_s: float) -> None:
        self._write_epoch(over_s=at_s)
        self.progress.enter(Stage.FIRST_BATCH, epoch=self.epoch, steps=self.batches or 0)
        self._epoch = {
            "epoch": self.epoch, "batches": 0, "rows": 0, "began_s": at_s, "ended_s": None,
            "validation_s": 0.0, "checkpoint_s": 0.0,
        }  # fmt: skip

    def batch_taken(self, asked_s: float, delivered_s: float, rows: int) -> None:
        self._wait_s = delivered_s - asked_s
        self._steps_in_last, self._steps_in_batch = self._steps_in_batch, 0
        self.spent.enter(_COMPUTE, delivered_s)
        if self.progress.stage is not _STEP:
            self.progress.enter(_STEP)

    def _turn_to(self, doing: Spending, at_s: float) -> None:
        """The same activity goes on where there is nothing else to turn to."""
        if doing is not self.spent.doing:
            self.spent.enter(doing, at_s)

    def pass_asked(self, now_s: float, was_training: bool) -> None:
        """Count making an iterator and its workers as waiting for its first batch."""
        super().pass_asked(now_s, was_training)
        self._turn_to(_DATA_WAIT, now_s)

    def other_delivered(self, seen: Seen, now_s: float) -> None:
        super().other_delivered(seen, now_s)
        if seen is self.observer.train and self.spent.doing is _DATA_WAIT:
            self._turn_to(_COMPUTE, now_s)  # it is unknown yet whether it is trained on

    def waits(self, now_s: float) -> None:
        self.spent.enter(_DATA_WAIT, now_s)

    def takes_batches_again(self, now_s: float) -> None:
        if self._epoch.get("batches", 0) >= _STEPS_BETWEEN_EPOCHS:
            super().takes_batches_again(now_s)
            return
        # those steps were no epoch
        self._epoch, self.in_epoch, self._open = {}, False, None
        self.epoch -= 1
        self.observer.notes.remove(KEPT_NOTE)

    def step_over(self, done_s: float, rows: int) -> None:
        self._steps += 1
        rows *= self._world
        epoch = self._epoch
        epoch["batches"] += 1
        epoch["rows"] += rows
        self.progress.step(self.step, rows=rows, wait_s=self._wait_s)
        self.spent.step(rows)
        early = self._steps == _FIRST_SEEN_STEPS or (not self._told and self.reader.looked)
        if early or done_s - self._seen_s >= _SEEN_EVERY_S:
            self._seen_s, self._told = done_s, self.reader.looked
            self.observer.write_seen(self.owner.folder)
        if self.observer.device == "cuda" and done_s - self._device_s >= _DEVICE_EVERY_S:
            self._device_s = done_s
            self.spent.device(
                int(self.observer.torch.cuda.max_memory_allocated(self.observer.place))
            )

    _told = False

    def backward_begins(self, now_s: float, tensors: Any) -> None:
        if self.ranks is not None or not self.reader.looked:
            super().backward_begins(now_s, tensors)
        if self.spent.doing is not _COMPUTE:
            self.spent.enter(_COMPUTE, now_s)
        # on other devices, reading the loss would wait for the device
        if self.observer.device == "cpu":
            loss = _as_number(tensors)
            if loss is not None and not isfinite(loss):
                self.progress.saw_loss(self.step + 1, loss)

    def step_begins(self, now_s: float) -> None:
        self.spent.enter(_OPTIMIZER, now_s)

    def step_ends(self, now_s: float) -> None:
        """After as many optimizer steps as for the previous batch, computing is over.

        Not so on an accelerator: whoever reads the loss waits there for all that was queued.
        """
        self._steps_in_batch += 1
        last = self._steps_in_batch >= self._steps_in_last
        computes = not last or self.observer.device != "cpu"
        self.spent.enter(_COMPUTE if computes else _LOGGING, now_s)
        # a loop that takes batches ahead trains on the last ones when its loader has no more
        if not self.in_epoch and self._trains_on_last_batches():
            self._epoch["ended_s"] = now_s

    def _trains_on_last_batches(self) -> bool:
        """Whether this step is on a batch that was taken before its epoch's end."""
        observer = self.observer
        after_end = observer.steps_without_batch < observer.untrained_at_end
        return after_end and self._validating_since is None and "ended_s" in self._epoch

    def epoch_over(self, asked_s: float, ended_s: float) -> None:
        self.progress.enter(Stage.EPOCH_BOUNDARY)
        self._turn_to(_LOGGING, ended_s)
        self._epoch["ended_s"] = ended_s
        self.observer.write_seen(self.owner.folder)

    def validation_begins(self, at_s: float) -> None:
        self._saving_s = 0.0
        self.progress.enter(Stage.VALIDATION)
        self._turn_to(Spending.VALIDATION, at_s)

    def validation_batch(self, number: int, seconds: float) -> None:
        self.progress.enter(Stage.VALIDATION)

    def validation_ends(self, began_s: float, at_s: float) -> None:
        if self._epoch:
            # a checkpoint before the next step is counted separately
            self._epoch["validation_s"] += max(0.0, at_s - began_s - self._saving_s)
        self.progress.enter(Stage.STEP)
        self._turn_to(_DATA_WAIT, at_s)

    def checkpoint_begins(self, at_s: float) -> None:
        self._before, self._saved_s = self.progress.stage, at_s
        self.progress.enter(Stage.CHECKPOINT)
        self._turn_to(Spending.CHECKPOINT, at_s)

    def checkpoint_ends(self, at_s: float) -> None:
        if self._epoch:
            self._epoch["checkpoint_s"] += at_s - self._saved_s
        self._saving_s += at_s - self._saved_s
        self.progress.enter(self._before)
        validating = self._before is Stage.VALIDATION
        self._turn_to(Spending.VALIDATION if validating else _LOGGING, at_s)

    _before = Stage.STEP
    _saving_s = 0.0

    def _write_epoch(self, over_s: float | None = None) -> None:
        """Write an epoch's line when its validation and its checkpoint are over.

        `over_s` is when the next epoch began; None for the last one.
        """
        if over_s is not None and self._epoch:
            self._epoch["over_s"] = over_s
        if self._epoch and self._epoch["batches"]:
            json_files.append_line(os.path.join(self.owner.folder, EPOCHS_FILE), self._epoch)
        self._epoch = {}

    def script_ends(self, crashed: bool) -> None:
        """The script has ended: call nothing of torch any more."""
        if not crashed:
            now_s = self.observer.clock()
            self._end_others(now_s)
        if self._epoch and self._epoch["ended_s"] is None:
            before = self.epoch_batches
            if not crashed:
                ended_s = self._open_until or now_s
                self._end_epoch(ended_s, ended_s)
            # a `break` of the script looks the same; its exit code distinguishes them
            at_its_length = self.batches is not None and self.step >= self.batches
            self._epoch["cut"] = crashed or not (at_its_length or self.step == before)
        self._write_epoch()
        self._turn_to(Spending.SHUTDOWN, self.observer.clock())
        if not crashed:
            self.progress.enter(Stage.SHUTDOWN)
        self.observer.write_seen(self.owner.folder)


def _as_number(tensors: Any) -> float | None:
    """The loss at the start of a backward pass; None if it is not a single number."""
    try:
        loss = tensors.item() if tensors.numel() == 1 else None
    except Exception:  # a script may pass anything to backward()
        return None
    return loss if isinstance(loss, float) else None
