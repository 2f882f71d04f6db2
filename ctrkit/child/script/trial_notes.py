"""What a trial of a script notes of its loop: sizes, losses, stamps and errors, and saves it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctrkit.child.recording.recorder import Recorder
from ctrkit.child.script import json_files
from ctrkit.child.script.ending import CommonEnd, error_of
from ctrkit.child.script.hooked_step import HookedStep
from ctrkit.child.script.rare_events import RareEvents
from ctrkit.child.script.script_process import ScriptProcess
from ctrkit.child.script.trial_sizes import BesideTheSteps, run_sizes
from ctrkit.child.script.watch import LoopWatch
from ctrkit.core.losses import bad_loss
from ctrkit.core.progress import ProgressWriter

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer
    from ctrkit.child.script.presence import Owner


class _Plan:
    """The window plan of the spec, as attributes."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    window_s = 10.0
    min_steps, max_steps, boundary, boundary_steps = 3, 2000, True, 2
    validation_batches, checkpoints = 20, 2


class TrialNotes(LoopWatch, ScriptProcess):
    """What is noted so far; the measurement is saved as it grows."""

    def __init__(self, observer: Observer, owner: Owner) -> None:
        super().__init__(observer, owner)
        self.launched_s = float(observer.spec["spawned_at_s"])
        self.plan = _Plan(observer.spec["windows"])
        self.progress = ProgressWriter(os.path.join(owner.folder, "progress.bin"))
        self.recorder = Recorder(
            observer.kind, self.plan, self.progress, self._now_s, self._save, self
        )
        rank = owner.rank or 0
        self._end = CommonEnd(observer.folder, observer.presence.launch, rank, owner.world)
        self._steps, self._served, self._left_out_s = 0, 0, 0.0
        self._hooked = HookedStep()
        self.hears_backward_end = True
        self._beside, self._rare = BesideTheSteps(), RareEvents()

    def _now_s(self) -> float:
        return self._time(self.observer.clock())

    def _time(self, at_s: float) -> float:
        """Seconds since the launch, without time spent only on serving cached batches."""
        return at_s - self.launched_s - self._left_out_s

    def _save(self, recorder: Recorder) -> None:
        path = os.path.join(self.owner.folder, "measurement.json")
        json_files.write_json(path, recorder.measurement())

    # ---- what the recorder asks ----

    def is_warm(self) -> bool:
        self.recorder.group = self.observer.pattern.group
        if self.observer.kind == "compute" and self._served <= (self.observer.pattern.ahead or 0):
            return False  # it still trains on batches from the loader
        return self.observer.pattern.is_known or bool(self.observer.optimizer_clock)

    def at_window_end(self) -> Mapping[str, Any]:
        losses = self._hooked.losses()
        bad = bad_loss(losses, "backward pass")
        return {
            "losses": losses,
            "bad_loss": bad,
            "notes": list(self.observer.notes),
            **self._taken(),
        }

    def _taken(self) -> dict[str, int]:
        """What was taken of an unfinished first epoch, which is at least that long."""
        recorder = self.recorder
        if self.observer.kind != "full" or recorder.epoch != 1 or self._epoch_complete:
            return {}
        if self.left_out:
            return {"epoch_batches": recorder.step + self.left_out}
        return {"epoch_batches": recorder.step, "epoch_rows": recorder.rows}

    @property
    def _epoch_complete(self) -> bool:
        return bool(self.recorder.fields.get("epoch_complete"))

    @property
    def _batches_of_first(self) -> int | None:
        first = None if self.epoch <= 1 or self.batches is None else self._first_length
        return first or self.batches

    def _sizes(self) -> dict[str, Any]:
        """The values of a `RunSizes` as known before a batch; epochs as far as seen."""
        whole = self._first_steps if self._epoch_complete else self.batches
        in_epoch = self.in_epoch and self.epoch == 1
        sizes: dict[str, Any] = {
            "epochs": None,
            "train_batches": self._batches_of_first,
            **self._beside.of_an_epoch(self._first_steps, in_epoch=in_epoch, whole=whole),
            **self._rare.shares(),
        }
        if self.reader.length is not None:
            known, group = self._batches_of_first, self.observer.pattern.group
            sizes.update(run_sizes(self.reader.length, known, group))
        return sizes

    def _write(self, complete: bool) -> None:
        observer = self.observer
        if observer.problem:
            self._say_error("setup-failed", observer.problem)
        if self._cut and not self.recorder.validation_batch_s:
            observer.note(
                "no validation followed the epoch that ctrkit ended early, so it cannot tell "
                "whether one follows a whole epoch"
            )
        for note in self._rare.notes(self.epoch) if observer.kind == "full" else ():
            observer.note(note)
        self.recorder.note(
            **self._taken(), sizes=self._sizes(), notes=list(observer.notes), complete=complete,
            peak_device_bytes=self.peak_device_bytes(),
        )  # fmt: skip
        observer.write_seen(self.owner.folder)

    def _say_error(self, verdict: str, message: str) -> None:
        self.recorder.note(error=error_of(verdict, self.progress.stage, message))

    def _complete_stamps(self) -> None:
        """Add the workers' stamps of the first epoch's batches."""
        from ctrkit.child.training.stamps import fill_in, matched, read_rings

        train, stamps = self.observer.train, self.recorder.stamps
        if train is None or self.observer.kind == "compute" or self._stamped:
            return
        self._stamped = True
        count = stamps.epoch.count(1)
        delivered_s = [at_s + self.launched_s for at_s in stamps.delivered_s[:count]]
        if not count or train.first_pass_s is None or not train.worker_pids:
            return
        made = read_rings(self.observer.folder, train.first_pass_s, train.worker_pids)
        fill_in(stamps, 0, matched(made, delivered_s), self.launched_s)

    _stamped = False
    #: whether the first epoch was ended early, the steps seen of it, and its length as claimed
    _cut = False
    _first_steps = 0
    _first_length: int | None = None
