"""Turns the events of a training loop into a trial's measurement, and decides when to stop.

Two kinds of loop feed it: the loop of a workload, which the trial drives itself, and the loop of a
script, which an observer watches. Each reports when it asks for a batch, when it has it, and when
the step is done. The recorder assigns each step to a window.
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

#: Warm-up continues for at most this long while there are batches to hash.
_HASHING_S = 0.25
#: A step that takes this long is saved at once; saving takes a few milliseconds.
_SLOW_STEP_S = 1.0


class Recorder:
    """Collects a measurement, and knows the window that the next step belongs to.

    Args:
        kind: the trial's kind: `full`, `compute` or `loader`.
        plan: a `WindowPlan`, or anything with its attributes.
        progress: receives every stage and step.
        now_s: returns the seconds since the launch.
        save: called with this recorder each time a part of the measurement is done.
        surroundings: answers the recorder's questions about its process.
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
        #: the measurement's fields, except the stamps and the lists below
        self.fields: dict[str, Any] = {"kind": kind, "complete": False}
        self.stamps = SimpleNamespace(**{column: [] for column in STAMP_COLUMNS})
        self.stages: dict[str, list[float]] = {}
        self.validation_batch_s: list[float] = []
        self.metrics_s: list[float] = []
        self.checkpoint_s: list[float] = []
        #: batches per optimizer step (gradient accumulation); a window counts whole groups of them
        self.group = 1
        self._device_clock = DeviceClock(None)
        #: when the device's clock began, and the indices of the stamps whose marks it has yet to
        #: read
        self._device_s, self._marked = 0.0, list[int]()
        #: steps before the throughput window
        self.warmup_steps = 1
        #: batches to hash at the beginning of an epoch, as long as that is quick
        self.hashed_batches = 1
        #: whether to measure more of the second epoch if its pace may differ from the first's
        self.looks_into_second = False
        #: steps after the throughput window in which each stage is synchronised
        self.attribution_steps = 0
        #: seconds that the observation itself took, which are no part of the epoch
        self.left_out_s = 0.0
        #: seconds of validations and checkpoints within the epoch, which are counted separately
        self.beside_s = 0.0
        self.window = OVER
        #: set while the window is THROUGHPUT, and after it
        self._throughput: ThroughputWindow
        self.epoch, self.step, self.rows, self.first_stamp = 0, 0, 0, 0
        #: batches of the epoch that the loader was told to skip
        self.left_out = self._as_written = 0
        self.batches: int | None = None
        self.finished = False

    def measurement(self) -> dict[str, Any]:
        """The arguments of a `child_records.Measurement`; `stamps` maps each column to its list."""
        return {
            **self.fields,
            "stages": self.stages,
            "validation_batch_s": self.validation_batch_s,
            "metrics_s": self.metrics_s,
            "checkpoint_s": self.checkpoint_s,
            "stamps": vars(self.stamps),
        }

    def note(self, **fields: Any) -> None:
        """Add fields to the measurement and save it, so that a trial that is cut off keeps them."""
        self.fields.update(fields)
        self.save()

    def save(self) -> None:
        """Save the measurement so far."""
        self._save(self)

    @property
    def delivered_s(self) -> float:
        """When the current step's batch was delivered, in seconds since the launch."""
        return self._delivered_s

    @property
    def wants_step(self) -> bool:
        """Whether to measure another step of this epoch."""
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
        """The loop asks the loader for the iterator of an epoch.

        Args:
            epoch: its number, from 1.
            batches: its length, None if unknown.
            at_s: when, in seconds since the launch; now if left out.
            left_out: batches of the epoch that the loader skips. The rest is not a whole epoch, and
                only the batches before the gap can be compared with those of other launches.
            as_written: batches that come before the gap, in the order as written.
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
        """Set the epoch's length, if it becomes known only after the epoch has begun."""
        self.batches = batches
        self.progress.enter(self.progress.stage, steps=batches or 0)

    def delivered(self, asked_s: float, delivered_s: float, made: Mapping[str, Any]) -> None:
        """The loop has its batch; `made` holds the stamps of how it was made, if known."""
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
        """The step on the batch delivered last is done."""
        self.step += 1
        self.rows += rows
        if self.window in (WARMUP, THROUGHPUT, BOUNDARY, SECOND):
            self._stamp(done_s, rows)
        wait_s = self._delivered_s - self._asked_s
        self.progress.step(self.step, rows=rows, wait_s=wait_s, stage=Stage.STEP)
        self._advance(done_s, rows)
        if done_s - self._asked_s >= _SLOW_STEP_S:
            self.save()  # the deadline may cut the trial before its window is over

    @property
    def wants_hash(self) -> bool:
        """Whether to hash the batch delivered last; never in a timed window."""
        return self.window in (WARMUP, BOUNDARY) and self.step < self._most_hashed

    @property
    def _most_hashed(self) -> int:
        most = max(1, self.hashed_batches)
        return min(most, self._as_written) if self.left_out else most

    def hashed(self, text: str) -> None:
        """Add the hash of the batch delivered last."""
        name = "batch_hashes" if self.epoch == 1 else "second_hashes"
        self.fields.setdefault(name, []).append(text)

    def interrupted(self) -> None:
        """The current step also validates or saves, so its time does not count as a step's."""
        if self.window == THROUGHPUT:
            self._throughput.interrupt()

    def epoch_ended(self, asked_s: float, ended_s: float) -> None:
        """The loop asked for a batch at `asked_s`, and at `ended_s` the loader had no more."""
        self.finished = True
        if self.window == THROUGHPUT:
            self._throughput.close_last_group(asked_s, self.stamps, self.group)
            self._end_throughput(asked_s)
        self._end_windows()
        ended_s = max(ended_s, self._device_done_s())
        if self.epoch == 1 and self.left_out:
            self.save()  # the epoch was not whole, so it has no count
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
        """The epoch went on for so many batches that were only counted; `complete`: to its end."""
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
        """Add seconds per stage, a list entry per step."""
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
        """Read when the device finished the steps since the last reading. Synchronize it first."""
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
        """Whether warm-up goes on, to hash a few more quick batches, none of which is timed."""
        room = self.batches is None or 8 * self.step < self.batches
        quick = done_s - self._began_s < _HASHING_S + float(self.fields["first_batch_s"])
        return self.step < min(self.hashed_batches, self._most_hashed) and room and quick

    def _second(self) -> SecondEpoch | None:
        """Compares the second epoch with the first.

        None if the first has no steps of equal numbers.
        """
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
        # all ranks make the same steps, so they go on until the slowest has enough
        agreed = self._around.all_agree(window.steps >= plan.min_steps and long)
        return agreed or bool(window.steps >= plan.max_steps)

    def _end_throughput(self, end_s: float | None) -> None:
        self._around.synchronize()
        now_s = self.now_s()
        self._read_device_clock()
        end_s = now_s if end_s is None else max(end_s, self._device_done_s())
        measured = self._throughput.measured(end_s, self.stamps)
        self.window, self._left = ATTRIBUTION, self.attribution_steps
        if self._left <= 0:
            self.window = OVER
        self.note(**measured, **self._around.at_window_end())

    def _device_done_s(self) -> float:
        """When the device had done the latest step that it stamped; 0 if it stamps none."""
        done = self.stamps.device_done_s
        return (done[-1] if done else None) or 0.0

    def _end_windows(self) -> None:
        if self.window in (BOUNDARY, SECOND):
            self._around.synchronize()
            self._read_device_clock()
        self.window = OVER

    _left = 0
    _steps_taken = _more_batches = _more_rows = 0
    _began_s = _asked_s = _delivered_s = _boundary_s = 0.0
    _made: Mapping[str, Any] = {}
