"""The shared state of a running trial: what it drives, and what it has measured."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
import torch

from ctrkit.child.recording import family_reads
from ctrkit.child.recording.device_clock import DeviceClock, event_maker
from ctrkit.child.recording.loop_process import LoopProcess
from ctrkit.child.recording.recorder import Recorder
from ctrkit.child.training.batches import ROWS_UNKNOWN, row_counter
from ctrkit.child.training.devices import synchronize
from ctrkit.child.training.distributed import current_ranks
from ctrkit.child.training.stamps import BatchClock
from ctrkit.child.training.torch_warnings import TorchWarnings
from ctrkit.child.workloads.protocol import Batch, Task, Workload
from ctrkit.core.child_records import Measurement, Stamps, untold_words
from ctrkit.core.config import ChildSpec
from ctrkit.core.losses import BadLoss, bad_loss
from ctrkit.core.progress import ProgressWriter

Save = Callable[[Measurement], None]


class RunningTrial(LoopProcess):
    """A launch in progress: what it drives, and the recorder of its measurement."""

    def __init__(
        self, spec: ChildSpec, workload: Workload, progress: ProgressWriter, save: Save
    ) -> None:
        self.spec, self.cell = spec, spec.cell
        self.workload, self.progress = workload, progress
        self.task: Task | None = None
        self.ranks = current_ranks()
        self.rows = row_counter(workload, spec.cell, None)
        self.untold: str | None = None
        #: losses that the display of a real run would show after each step, if the task tells them
        self.recent_losses: list[float] = []
        #: the share of the first epoch at which the measured steps begin, 0 to 1
        self.epoch_share = spec.windows.epoch_share
        self._left_out_s = 0.0
        self.batches = BatchClock(spec.folder, spec.cell, spec.spawned_at_s)
        self.warnings = TorchWarnings()
        self.recorder = Recorder(
            spec.kind, spec.windows, progress, self.now_s, lambda _: save(self.measured), self
        )

    @property
    def measured(self) -> Measurement:
        """The measurement so far."""
        fields = self.recorder.measurement()
        own = {"stamps": Stamps(**fields["stamps"]), "warnings": list(self.warnings.seen)}
        return Measurement(**fields | own)

    def now_s(self) -> float:
        """Seconds since the parent launched this process."""
        return time.monotonic() - self.spec.spawned_at_s - self._left_out_s

    def leave_out(self, seconds: float) -> None:
        """Subtract this time from the clock, because a real run does not spend it."""
        self._left_out_s += seconds
        self.batches.leave_out(seconds)

    def synchronize(self) -> None:
        synchronize(self.cell.device)

    def device_clock(self) -> DeviceClock:
        return DeviceClock(event_maker(torch, self.cell.device))

    def cpu_s(self) -> float:
        return self.ranks.sum(round(1e6 * family_cpu_s()))[0] / 1e6

    def counters(self) -> Mapping[str, float]:
        return family_reads.counters() if self.ranks.count == 1 else {}

    def files_in_use(self) -> Mapping[str, Any]:
        if self.ranks.count > 1:
            return {}
        return family_reads.files_in_use(self.spec.folder) | family_reads.threads_of_workers()

    def all_agree(self, enough: bool) -> bool:
        return self.ranks.sum(enough)[0] == self.ranks.count

    def at_window_end(self) -> Mapping[str, Any]:
        notes = [ROWS_UNKNOWN] if self.rows.is_unknown else []
        if self.untold is not None:
            notes.append(untold_words(self.untold))
        if self.task is None or self.spec.kind != "full":
            return {"notes": notes}
        losses = [float(loss) for loss in self.task.losses()]
        found = bad_loss(losses) or bad_loss(self.recent_losses)
        bad = None if found is None else BadLoss(**found)
        return {"losses": losses, "bad_loss": bad, "notes": [*notes, *self.task.notes()]}


def close_iterator(iterator: Iterator[Batch]) -> None:
    """Close an iterator that has `close` (a generator); others end when nothing refers to them."""
    with contextlib.suppress(AttributeError):
        iterator.close()  # type: ignore[attr-defined]


def family_cpu_s() -> float:
    """CPU seconds of this process, of its ended children and of its living ones.

    The sum never falls: the time of a worker still counts after the worker has ended.
    """
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    total_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total_s += times.user + times.system
            # a fork server has waited for workers of its own
            total_s += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total_s
