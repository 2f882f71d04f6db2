"""Turns the events of a training loop into a trial's measurement, and decides when to stop.

Two kinds of loop feed it: that of a workload, which the trial drives itself, and that of a script,
which an observer watches. Each says when it asks for a batch, has it, and is done with the step;
the recorder knows to which window a step belongs, and when to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from ctrkit.child.recording.device_clock import DeviceClock
from ctrkit.child.recording.loop_process import LoopProcess
from ctrkit.child.recording.second_epoch import SecondEpoch
from ctrkit.child.recording.step_stamps import (
    ATTRIBUTION,
    BOUNDARY,
    OVER,
    SECOND,
    STAMP_COLUMNS,
    THROUGHPUT,
    WARMUP,
    append_stamp,
)
from ctrkit.child.recording.throughput_window import ThroughputWindow
from ctrkit.core.progress import ProgressWriter, Stage

#: Warm-up goes on for this long while batches are still to be hashed.
_HASHING_S = 0.25
#: A step so slow is saved at once, which takes some thousandths of a second.
_SLOW_STEP_S = 1.0


class Recorder:
    """The measurement so far, and the window that the next step belongs to.

    Args:
        kind: of the trial.
        plan: a `WindowPlan`, or anything with its attributes.
        progress: is told every stage and step.
        now_s: seconds since the launch.
        save: called with this recorder whenever a part is done.
        surroundings: what it asks of its process.
    """

    def __init__(
        self,
        kind: str,
        plan: Any,
        progress: ProgressWriter,
        now_s: Callable[[], float],
        save: Callable[[Recorder], None],
        surroundings: LoopProcess,
    ) -> None:
        self.plan, self.progress, self.now_s = plan, progress, now_s
        self._save, self._around = save, surroundings
        #: the measurement's fields, but for the stamps and the lists below
        self.fields: dict[str, Any] = {"kind": kind, "complete": False}
        self.stamps = SimpleNamespace(**{column: [] for column in STAMP_COLUMNS})
        self.stages: dict[str, list[float]] = {}
        self.validation_batch_s: list[float] = []
        self.metrics_s: list[float] = []
        self.checkpoint_s: list[float] = []
        #: batches that belong to one optimizer step: windows are whole groups of them
        self.group = 1
        self._device_clock = DeviceClock(None)
        #: when it began, and the stamps whose marks are yet to be read
        self._device_s, self._marked = 0.0, list[int]()
        #: steps before the throughput window
        self.warmup_steps = 1
        #: batches to be hashed at the beginning of an epoch, where that takes but a moment
        self.hashed_batches = 1
        #: whether more of a second epoch is measured where its pace may differ from the first's
        self.looks_into_second = False
        #: steps that are synchronised stage by stage after it
        self.attribution_steps = 0
        #: seconds that the recorder's own process spent on the observation, not on the epoch
        self.left_out_s = 0.0
        #: seconds of validations and checkpoints inside the epoch, which are counted by themselves
        self.beside_s = 0.0
        self.window = OVER
        #: there from its beginning on, while the window is THROUGHPUT
        self._throughput: ThroughputWindow
        self.epoch, self.step, self.rows, self.first_stamp = 0, 0, 0, 0
        #: batches of the epoch that the loader was told to leave out
        self.left_out = self._as_written = 0
        self.batches: int | None = None
        self.finished = False

    def measurement(self) -> dict[str, Any]:
        """The arguments of a `child_records.Measurement`; `stamps` is a mapping of columns."""
        return {
            **self.fields,
            "stages": self.stages,
            "validation_batch_s": self.validation_batch_s,
            "metrics_s": self.metrics_s,
            "checkpoint_s": self.checkpoint_s,
            "stamps": vars(self.stamps),
        }

    def note(self, **fields: Any) -> None:
        """Add to the measurement and save it: a trial that is cut off keeps what it had."""
        self.fields.update(fields)
        self.save()

    def save(self) -> None:
        """Hand over the measurement so far."""
        self._save(self)

    @property
    def delivered_s(self) -> float:
        """When the batch of the step under way was delivered, in seconds since the launch."""
        return self._delivered_s

    @property
    def wants_step(self) -> bool:
        """Whether another step of this epoch is to be measured."""
        return self.window != OVER and not self.finished

    # ---- an epoch --------------------------------------------------------------------------------

    def begin_epoch(
        self,
        epoch: int,
        batches: int | None,
        at_s: float | None = None,
        *,
        left_out: int = 0,
        as_written: int = 0,
    ) -> None:
        """The loader is asked for the iterator of an epoch, of so many batches, now or `at_s`.

        `left_out` more belong to it and do not come, after the first `as_written` ones: what comes
        is no whole epoch, and only those first ones are comparable with others' first ones.
        """
        self.progress.enter(Stage.FIRST_BATCH, epoch=epoch, steps=batches or 0)
        self.epoch, self.batches = epoch, batches
        self.step, self.rows, self.finished = 0, 0, False
        self.left_out, self._as_written = left_out, as_written
        if epoch == 1:
            self.fields["first_batch"] = left_out
        self.first_stamp = len(self.stamps.step)
        self.window, self._left = WARMUP, self.warmup_steps
        if epoch > 1:
            self.window, self._left = BOUNDARY, self.plan.boundary_steps
        self._steps_taken = 0
        self._more_batches = self._more_rows = 0
        self.left_out_s = self.beside_s = 0.0
        self._began_s = self.now_s() if at_s is None else at_s

    def know_batches(self, batches: int | None) -> None:
        """The epoch's length, where it is known only once the epoch has begun."""
        self.batches = batches
        self.progress.enter(self.progress.stage, steps=batches or 0)

    def delivered(self, asked_s: float, delivered_s: float, made: Mapping[str, Any]) -> None:
        """The loop has a batch; `made` are stamps of how it was made, where they are known."""
        self._asked_s, self._delivered_s, self._made = asked_s, delivered_s, made
        if self.step == 0 and self._steps_taken == 0:
            first_s = delivered_s - self._began_s
            self.note(**{"first_batch_s" if self.epoch == 1 else "restart_s": first_s})
        if self.window == WARMUP and self.batches is not None and self.step == 0:
            self._left = min(self._left, self.batches // 2)
        if self.window == WARMUP and self.step == 0 and self._left <= 0:
            self._begin_throughput()
        self._steps_taken += 1

    def step_done(self, done_s: float, rows: int) -> None:
        """The step of the batch that was delivered last is over."""
        self.step += 1
        self.rows += rows
        if self.window in (WARMUP, THROUGHPUT, BOUNDARY, SECOND):
            self._stamp(done_s, rows)
        self.progress.enter(Stage.STEP)
        self.progress.step(self.step, rows=rows, wait_s=self._delivered_s - self._asked_s)
        self._advance(done_s, rows)
        if done_s - self._asked_s >= _SLOW_STEP_S:
            self.save()  # the deadline may cut the trial before its window is over

    @property
    def wants_hash(self) -> bool:
        """Whether the batch that was delivered last is to be hashed: not in a timed window."""
        return self.window in (WARMUP, BOUNDARY) and self.step < self._most_hashed

    @property
    def _most_hashed(self) -> int:
        most = max(1, self.hashed_batches)
        return min(most, self._as_written) if self.left_out else most

    def hashed(self, text: str) -> None:
        """The hash of the batch that was delivered last."""
        name = "batch_hashes" if self.epoch == 1 else "second_hashes"
        self.fields.setdefault(name, []).append(text)

    def interrupted(self) -> None:
        """The step under way also validates or saves: it is no measure of a step."""
        if self.window == THROUGHPUT:
            self._throughput.interrupt()

    def epoch_ended(self, asked_s: float, ended_s: float) -> None:
        """The loader was asked for a batch and had no more."""
        self.finished = True
        if self.window == THROUGHPUT:
            self._throughput.close_last_group(asked_s, self.stamps, self.group)
            self._end_throughput(asked_s)
        self._end_windows()
        if self.epoch == 1 and self.left_out:
            self.save()  # not a whole one: nothing was counted
        elif self.epoch == 1:
            self.note(
                epoch_complete=True,
                epoch_batches=self.step,
                epoch_rows=self.rows,
                epoch_s=ended_s - self._began_s - self.left_out_s - self.beside_s,
            )
        elif self.epoch == 2:
            self.note(second_batches=self.step)

    def counted(self, batches: int, rows: int, complete: bool) -> None:
        """The epoch went on by so many batches that were only counted; `complete`: to its end."""
        self.finished = self.finished or complete
        self._more_batches, self._more_rows = self._more_batches + batches, self._more_rows + rows
        if self.epoch == 1:
            counts = not self.left_out
            self.note(
                epoch_complete=complete and counts,
                epoch_batches=self.left_out + self.step + self._more_batches,
                epoch_rows=self.rows + self._more_rows if counts else 0,
            )

    def add_stages(self, stages: Mapping[str, Sequence[float]]) -> None:
        """Add what stages of the step took."""
        for stage, seconds in stages.items():
            self.stages.setdefault(stage, []).extend(seconds)

    # ---- windows ---------------------------------------------------------------------------------

    def _stamp(self, done_s: float, rows: int) -> None:
        values = {
            "epoch": self.epoch, "step": self.step, "window": self.window,
            "asked_s": self._asked_s, "delivered_s": self._delivered_s, "done_s": done_s,
            "rows": rows, **self._made,
        }  # fmt: skip
        append_stamp(self.stamps, values)
        if self.window != WARMUP:
            self._device_clock.mark()
            self._marked.append(len(self.stamps.step) - 1)

    def _read_device_clock(self) -> None:
        """Note when the device was done with the steps since the last time; it was waited for."""
        for place, seconds in zip(self._marked, self._device_clock.read_s()):
            self.stamps.device_done_s[place] = self._device_s + seconds
        self._marked = []

    def _advance(self, done_s: float, rows: int) -> None:
        if self.window == THROUGHPUT:
            if self._throughput.count(rows) >= self.group:
                self._throughput.close_group(done_s, self.stamps)
                if self._has_enough(done_s):
                    self._end_throughput(None)
            return
        self._left -= 1
        if self.window == SECOND:
            second = self._second()
            if second is None or second.is_enough(self.step, done_s - self._boundary_s):
                self._end_windows()
                self.save()
            return
        if self._left > 0:
            return
        if self.window == WARMUP:
            half = self.batches is not None and self.step >= self.batches // 2
            if half or (self._around.is_warm() and not self._may_hash_more(done_s)):
                self._begin_throughput()
        elif self.window == ATTRIBUTION:
            self.window = OVER
        elif self.window == BOUNDARY:
            self._boundary_s = done_s
            second = self._second()
            if second is not None and second.is_worth_it(self.step):
                self.window = SECOND
            else:
                self._end_windows()
            self.save()

    def _may_hash_more(self, done_s: float) -> bool:
        """Whether warm-up goes on: a few quick batches are hashed, of which none is timed."""
        room = self.batches is None or 8 * self.step < self.batches
        quick = done_s - self._began_s < _HASHING_S + float(self.fields["first_batch_s"])
        return self.step < min(self.hashed_batches, self._most_hashed) and room and quick

    def _second(self) -> SecondEpoch | None:
        """The second epoch beside the first; None where it has no steps at equal places."""
        window_s, steps = self.fields.get("throughput_s"), self.fields.get("throughput_steps")
        if not self.looks_into_second or not window_s or not steps:
            return None
        if self.fields.get("first_batch"):
            return None
        return SecondEpoch(self.stamps, self.first_stamp, self.warmup_steps, window_s, steps)

    def _begin_throughput(self) -> None:
        self._around.synchronize()
        self._device_clock = self._around.device_clock()
        self._device_clock.begin()
        self._throughput = ThroughputWindow(self._around, self.now_s)
        self._device_s = self._throughput.began_s
        self.window = THROUGHPUT

    def _has_enough(self, at_s: float) -> bool:
        window, plan = self._throughput, self.plan
        long = window.lasted_s(at_s) >= plan.window_s
        # all make the same steps: until the slowest has had enough
        agreed = self._around.all_agree(window.steps >= plan.min_steps and long)
        return agreed or bool(window.steps >= plan.max_steps)

    def _end_throughput(self, end_s: float | None) -> None:
        self._around.synchronize()
        end_s = self.now_s() if end_s is None else end_s
        self._read_device_clock()
        measured = self._throughput.measured(end_s, self.stamps)
        self.window, self._left = ATTRIBUTION, self.attribution_steps
        if self._left <= 0:
            self.window = OVER
        self.note(**measured, **self._around.at_window_end())

    def _end_windows(self) -> None:
        if self.window in (BOUNDARY, SECOND):
            self._around.synchronize()
            self._read_device_clock()
        self.window = OVER

    _left = 0
    _steps_taken = _more_batches = _more_rows = 0
    _began_s = _asked_s = _delivered_s = _boundary_s = 0.0
    _made: Mapping[str, Any] = {}
