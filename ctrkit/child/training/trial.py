"""One probe trial: run the loop in short windows and stamp everything.

Nothing is averaged here: the parent decides from the raw stamps. Two kinds of window: throughput
(the device is synchronised at its ends only) and attribution (synchronised at each stage). On the
CPU nothing runs ahead, so the throughput window tells the stages as well and no other is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from ctrkit.child.training.batches import batch_rows
from ctrkit.child.training.checkpoint import save_checkpoint
from ctrkit.child.training.devices import peak_device_bytes, synchronize
from ctrkit.child.training.distributed import current_ranks
from ctrkit.child.training.stages import StageTimer, stage_timer
from ctrkit.child.training.stamps import BatchClock
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Task, Workload
from ctrkit.core.config import ChildSpec, RunSizes
from ctrkit.core.progress import ProgressWriter, Stage
from ctrkit.core.records import Measurement, Stamps

CACHED_BATCHES = 10
_STAMP_COLUMNS = tuple(f.name for f in dataclasses.fields(Stamps))

Save = Callable[[Measurement], None]


class RunningTrial:
    """A launch in progress: what it drives, and the measurement so far."""

    def __init__(
        self, spec: ChildSpec, workload: Workload, progress: ProgressWriter, save: Save
    ) -> None:
        self.spec, self.cell, self.plan = spec, spec.cell, spec.windows
        self.workload, self.progress, self.save = workload, progress, save
        self.measured = Measurement(kind=spec.kind)
        self.task: Task | None = None
        self.ranks = current_ranks()
        self.batches = BatchClock(spec.folder, spec.cell, spec.spawned_at_s)

    def now_s(self) -> float:
        """Seconds since the parent launched this process."""
        return time.monotonic() - self.spec.spawned_at_s

    def note(self, **measured: Any) -> None:
        """Add to the measurement and save it: a trial that is cut off keeps what it had."""
        self.measured = dataclasses.replace(self.measured, **measured)
        self.save(self.measured)

    def add_stages(self, timer: StageTimer) -> None:
        """Add what stages of the step took."""
        for stage, seconds in timer.read().items():
            self.measured.stages.setdefault(stage, []).extend(seconds)

    def synchronize(self) -> None:
        """Wait for the device, where one is used."""
        synchronize(self.cell.device)


def run_trial(
    spec: ChildSpec, workload: Workload, progress: ProgressWriter, save: Save
) -> Measurement:
    """Run a trial of kind `full`, `compute` or `loader`; `save` gets the measurement as it grows.

    Raises:
        Exception: whatever the workload raises; the measurement saved last has what came before.
    """
    trial = RunningTrial(spec, workload, progress, save)
    if spec.kind == "compute":
        _measure_compute(trial)
    else:
        _measure_loop(trial)
    progress.enter(Stage.SHUTDOWN)
    trial.note(peak_device_bytes=peak_device_bytes(trial.cell.device), complete=True)
    return trial.measured


def _measure_loop(trial: RunningTrial) -> None:
    """The loader with the step (`full`) or on its own (`loader`), over an epoch boundary."""
    trial.progress.enter(Stage.DATA)
    loader = trial.workload.train_loader(trial.cell)
    try:
        if trial.spec.kind == "full":
            trial.progress.enter(Stage.MODEL)
            trial.task = trial.workload.make_task(trial.cell)
        sizes = loader_sizes(trial.workload.sizes(trial.cell.batch_size), loader)
        trial.note(startup_s=trial.now_s(), sizes=sizes)
        _measure_epochs(trial, loader, sizes)
        if trial.task is not None:
            _measure_validation(trial)
            _measure_checkpoints(trial)
        trial.progress.enter(Stage.SHUTDOWN)
    finally:
        loader.close()


def loader_sizes(sizes: RunSizes, loader: EpochLoader) -> RunSizes:
    """The sizes, with the loader's own length where the workload does not know it."""
    if sizes.train_batches is not None:
        return sizes
    try:
        batches = len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return sizes
    return dataclasses.replace(sizes, train_batches=batches)


def _measure_epochs(trial: RunningTrial, loader: EpochLoader, sizes: RunSizes) -> None:
    """First batch, warm-up, windows, and then the boundary into a second epoch."""
    window = EpochWindow(trial, loader, epoch=1, batches=sizes.train_batches)
    trial.note(first_batch_s=window.first_batch_s)
    window.run(trial.plan.window_s, trial.plan.min_steps, trial.plan.max_steps)
    if trial.task is not None and trial.cell.device != "cpu":
        window.attribute(trial.plan.attribution_steps)
    window.end()
    if trial.plan.boundary:
        second = EpochWindow(trial, loader, epoch=2, batches=sizes.train_batches)
        if second.first_batch_s is not None:
            trial.note(restart_s=second.first_batch_s)
            second.steps("boundary", trial.plan.boundary_steps)
        second.end()


class EpochWindow:
    """One epoch's iterator, asked for batches in windows."""

    def __init__(
        self, trial: RunningTrial, loader: EpochLoader, *, epoch: int, batches: int | None
    ) -> None:
        self.trial, self.epoch, self.step = trial, epoch, 0
        self.rows, self.finished, self.ending_s = 0, False, 0.0
        self.makes = not isinstance(loader, CachedLoader)
        trial.progress.enter(Stage.FIRST_BATCH, epoch=epoch, steps=batches or 0)
        loader.set_epoch(epoch)
        if trial.task is not None:
            trial.task.begin_epoch(epoch)
        trial.batches.begin_epoch(loader)
        self.first = len(trial.measured.stamps.step)
        self.began_s = trial.now_s()
        self.iterator = iter(loader)
        self.batches = batches
        self.pending = self._take()
        self.first_batch_s = None if self.finished else trial.now_s() - self.began_s

    def _take(self) -> tuple[float, float, Batch] | None:
        """Ask for a batch: (asked, delivered, batch), or None at the epoch's end."""
        asked_s = self.trial.now_s()
        try:
            batch = next(self.iterator)
        except StopIteration:
            self.finished, self.ending_s = True, self.trial.now_s() - asked_s
            return None
        return asked_s, self.trial.now_s(), batch

    def run(self, window_s: float, min_steps: int, max_steps: int) -> None:
        """Warm up, then the throughput window: until its time or its steps are over.

        The first workers x prefetch batches were made before anybody waited for them, so they
        are warm-up: they are faster than the loader can go on.
        """
        cell = self.trial.cell
        warmup = max(1, cell.workers * (cell.prefetch or 0))
        if self.batches is not None:
            warmup = min(warmup, self.batches // 2)
        self.steps("warmup", warmup)
        if self.finished:
            return
        self.trial.synchronize()
        cpu_s, began_s, step, rows = family_cpu_s(), self.trial.now_s(), self.step, self.rows
        for count in itertools.count(1):
            if not self.steps("throughput", 1, save=False):
                break
            enough = count >= min_steps and self.trial.now_s() - began_s >= window_s
            # all make the same steps: until the slowest has had enough
            ranks = self.trial.ranks
            if ranks.sum(enough)[0] == ranks.count or count >= max_steps:
                break
        self.trial.synchronize()
        self.trial.note(
            # a loader that came to its end may have ended its workers, which is no step
            throughput_s=self.trial.now_s() - began_s - self.ending_s,
            throughput_steps=self.step - step,
            throughput_rows=self.rows - rows,
            cpu_s=self.trial.ranks.sum(round(1e6 * (family_cpu_s() - cpu_s)))[0] / 1e6,
        )
        if self.trial.task is not None and self.trial.spec.kind == "full":
            self.trial.note(losses=self.trial.task.losses(), notes=self.trial.task.notes())
        self.complete_stamps()

    def steps(self, window: str, count: int, *, save: bool = True) -> bool:
        """Take so many steps, stamped; False once the epoch is over."""
        # elsewhere than on the CPU a stage could only be timed by waiting for it
        timed = window == "throughput" and self.trial.cell.device == "cpu"
        timer = stage_timer("cpu") if timed else None
        for _ in range(count):
            taken = self.pending or self._take()
            self.pending = None
            if taken is None:
                return False
            asked_s, delivered_s, batch = taken
            made = self.trial.batches.taken(asked_s, delivered_s) if self.makes else {}
            _train_step(self.trial, batch, timer)
            self.step += 1
            (rows,) = self.trial.ranks.sum(batch_rows(batch))
            self.rows += rows
            stamp(
                self.trial.measured.stamps, epoch=self.epoch, step=self.step, window=window,
                asked_s=asked_s, delivered_s=delivered_s, done_s=self.trial.now_s(), rows=rows,
                **made,
            )  # fmt: skip
            self.trial.progress.enter(Stage.STEP)
            self.trial.progress.step(self.step, rows=rows, wait_s=delivered_s - asked_s)
        if timer is not None:
            self.trial.add_stages(timer)
        if save:
            self.trial.save(self.trial.measured)
        return True

    def complete_stamps(self) -> None:
        """Add what the workers kept of this epoch's batches so far."""
        if self.makes:
            self.trial.batches.complete(self.trial.measured.stamps, self.first)
            self.trial.save(self.trial.measured)

    def attribute(self, count: int) -> None:
        """The attribution window: its stages alone are timed."""
        timer = stage_timer(self.trial.cell.device)
        for _ in range(count):
            taken = self._take()
            if taken is None:
                break
            _train_step(self.trial, taken[2], timer)
            self.step += 1
            self.rows += self.trial.ranks.sum(batch_rows(taken[2]))[0]
            self.trial.progress.step(self.step)
        self.trial.add_stages(timer)

    def end(self) -> None:
        """End the epoch: to its own end where that was reached, else by giving the iterator up."""
        if self.batches is not None and self.step == self.batches and not self.finished:
            self._take()
        if self.finished and self.epoch == 1:
            self.trial.note(
                epoch_complete=True,
                epoch_batches=self.step,
                epoch_rows=self.rows,
                epoch_s=self.trial.now_s() - self.began_s,
            )
        self.complete_stamps()
        self.trial.progress.enter(Stage.EPOCH_BOUNDARY)
        began_s = self.trial.now_s()
        close_iterator(self.iterator)
        del self.iterator
        if self.epoch == 1:
            self.trial.note(teardown_s=self.trial.now_s() - began_s)


def _train_step(trial: RunningTrial, batch: Batch, timer: StageTimer | None) -> None:
    if trial.task is None:
        return
    if timer is None:
        trial.task.train_step(trial.task.transfer(batch), lambda stage: None)
        return
    timer.begin()
    on_device = trial.task.transfer(batch)
    timer.mark("transfer")
    trial.task.train_step(on_device, timer.mark)


def stamp(stamps: Stamps, **values: Any) -> None:
    """Append one step's times to the columns; None to those that are not named."""
    for column in _STAMP_COLUMNS:
        getattr(stamps, column).append(values.get(column))


def _measure_compute(trial: RunningTrial) -> None:
    """The step's own ceiling: a few batches, kept on the device, trained on again and again."""
    trial.progress.enter(Stage.DATA)
    loader = trial.workload.train_loader(trial.cell)
    try:
        trial.progress.enter(Stage.MODEL)
        trial.task = trial.workload.make_task(trial.cell)
        assert trial.task is not None, "a compute trial needs a task"
        sizes = loader_sizes(trial.workload.sizes(trial.cell.batch_size), loader)
        trial.note(startup_s=trial.now_s(), sizes=sizes)
        trial.progress.enter(Stage.FIRST_BATCH, epoch=1)
        loader.set_epoch(1)
        iterator = iter(loader)
        taken = list(itertools.islice(iterator, CACHED_BATCHES))
        close_iterator(iterator)
    finally:
        loader.close()
    cached = CachedLoader([trial.task.transfer(batch) for batch in taken])
    window = EpochWindow(trial, cached, epoch=1, batches=None)
    window.run(trial.plan.window_s, trial.plan.min_steps, trial.plan.max_steps)
    if trial.cell.device != "cpu":
        window.attribute(trial.plan.attribution_steps)
    _measure_validation(trial)
    _measure_checkpoints(trial)


class CachedLoader:
    """The same few batches for ever."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Every epoch is the same."""

    def __iter__(self) -> Iterator[Batch]:
        return itertools.cycle(self.batches)

    def close(self) -> None:
        """Nothing to end."""


def _measure_validation(trial: RunningTrial) -> None:
    """Some validation batches, through the cell's own validation loader."""
    loader = trial.workload.validation_loader(trial.cell)
    if loader is None or trial.task is None or trial.plan.validation_batches == 0:
        return
    trial.progress.enter(Stage.VALIDATION)
    try:
        loader.set_epoch(1)
        trial.task.begin_validation()
        began_s = trial.now_s()
        iterator = iter(loader)
        for count in range(trial.plan.validation_batches):
            asked_s = trial.now_s()
            batch = next(iterator, None)
            if batch is None:
                break
            if count == 0:
                trial.note(validation_restart_s=trial.now_s() - began_s)
                asked_s = trial.now_s()
            trial.task.validation_step(trial.task.transfer(batch))
            trial.synchronize()
            trial.measured.validation_batch_s.append(trial.now_s() - asked_s)
            trial.progress.step(count + 1)
        close_iterator(iterator)
    finally:
        loader.close()
    trial.save(trial.measured)


def _measure_checkpoints(trial: RunningTrial) -> None:
    """Real checkpoints of the real state, written as the real run writes them."""
    if trial.task is None:
        return
    trial.progress.enter(Stage.CHECKPOINT)
    path = Path(trial.spec.folder) / "checkpoint.pt"
    for count in range(trial.plan.checkpoints):
        began_s = trial.now_s()
        state = {"task": trial.task.state_dict()}
        if trial.ranks.rank == 0:
            save_checkpoint(path, state)
        trial.measured.checkpoint_s.append(trial.now_s() - began_s)
        trial.progress.step(count + 1)
        path.unlink(missing_ok=True)
    trial.save(trial.measured)


def close_iterator(iterator: Iterator[Batch]) -> None:
    """End an iterator that offers it (a generator); others end when they are let go."""
    with contextlib.suppress(AttributeError):
        iterator.close()  # type: ignore[attr-defined]


def family_cpu_s() -> float:
    """CPU seconds of this process and of its living children, the loader's workers."""
    me = psutil.Process()
    total_s = 0.0
    for process in (me, *me.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s
