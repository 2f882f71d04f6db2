"""One probe trial: run the loop in short windows and stamp everything.

Nothing is averaged here: the parent decides from the raw stamps. Two kinds of window: throughput
(the device is synchronised at its ends only) and attribution (synchronised at each stage). On the
CPU nothing runs ahead, so the throughput window tells the stages as well and no other is needed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from ctrkit.child import family_reads
from ctrkit.child.device_clock import DeviceClock, event_maker
from ctrkit.child.recorder import ATTRIBUTION, THROUGHPUT, LoopProcess, Recorder
from ctrkit.child.training.batch_hash import batch_hash
from ctrkit.child.training.batches import ROWS_UNKNOWN, known_rows, row_counter
from ctrkit.child.training.checkpoint import save_checkpoint
from ctrkit.child.training.devices import peak_device_bytes, synchronize
from ctrkit.child.training.distributed import current_ranks
from ctrkit.child.training.epoch_place import Place, place_of
from ctrkit.child.training.loader_facts import facts_of, length_of, no_batch_words
from ctrkit.child.training.own_metrics import own_metrics
from ctrkit.child.training.seeding import kept_rng
from ctrkit.child.training.stages import StageTimer, stage_timer
from ctrkit.child.training.stamps import BatchClock
from ctrkit.child.training.torch_warnings import TorchWarnings
from ctrkit.child.workloads.iterable_loader import as_epoch_loader
from ctrkit.child.workloads.loader_parts import untold_data_set
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Task, Workload
from ctrkit.child.workloads.returned import UsedUpError, check_batch
from ctrkit.core.config import ChildSpec, RunSizes
from ctrkit.core.errors import UsageError
from ctrkit.core.losses import BadLoss, bad_loss
from ctrkit.core.progress import ProgressWriter, Stage
from ctrkit.core.records import Measurement, Stamps, untold_words

CACHED_BATCHES = 10
#: Batches at the beginning of an epoch by which configurations are compared.
HASHED_BATCHES = 8
_END = object()
Save = Callable[[Measurement], None]


class RunningTrial(LoopProcess):
    """A launch in progress: what it drives, and the recorder of what it measures."""

    def __init__(
        self, spec: ChildSpec, workload: Workload, progress: ProgressWriter, save: Save
    ) -> None:
        self.spec, self.cell = spec, spec.cell
        self.workload, self.progress = workload, progress
        self.task: Task | None = None
        self.ranks = current_ranks()
        self.rows = row_counter(workload, spec.cell, None)
        self.untold: str | None = None
        #: what the display of a real run would show after each step, as far as the task tells
        self.recent_losses: list[float] = []
        #: where in the first epoch the measured steps begin
        self.epoch_share = spec.windows.epoch_share
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
        return time.monotonic() - self.spec.spawned_at_s

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


def run_trial(
    spec: ChildSpec,
    workload: Workload,
    progress: ProgressWriter,
    save: Save,
    *,
    import_s: float | None = None,
) -> Measurement:
    """Run a trial of kind `full`, `compute` or `loader`; `save` gets the measurement as it grows.

    Args:
        spec: of the trial.
        workload: what it drives.
        progress: is told every stage and step.
        save: keeps the measurement.
        import_s: from the launch until torch was imported.

    Raises:
        Exception: whatever the workload raises; the measurement saved last has what came before.
    """
    trial = RunningTrial(spec, workload, progress, save)
    trial.recorder.fields["import_s"] = import_s
    try:
        if spec.kind == "compute":
            _measure_compute(trial)
        else:
            _measure_loop(trial)
    finally:
        trial.warnings.end()
    progress.enter(Stage.SHUTDOWN)
    trial.recorder.note(peak_device_bytes=peak_device_bytes(trial.cell.device), complete=True)
    return trial.measured


def _measure_loop(trial: RunningTrial) -> None:
    """The loader with the step (`full`) or on its own (`loader`), over an epoch boundary."""
    trial.progress.enter(Stage.DATA)
    loader = as_epoch_loader(trial.workload.train_loader(trial.cell))
    trial.rows = row_counter(trial.workload, trial.cell, loader)
    trial.untold = untold_data_set(loader)
    try:
        if trial.spec.kind == "full":
            trial.progress.enter(Stage.MODEL)
            trial.task = trial.workload.make_task(trial.cell)
        sizes = loader_sizes(trial.workload.sizes(trial.cell.batch_size), loader)
        trial.recorder.note(startup_s=trial.now_s(), sizes=sizes, loader=facts_of(loader))
        _measure_epochs(trial, loader, sizes)
        if trial.task is not None:
            _measure_end_of_epoch(trial)
        trial.progress.enter(Stage.SHUTDOWN)
    finally:
        loader.close()


def loader_sizes(sizes: RunSizes, loader: EpochLoader) -> RunSizes:
    """The sizes, with the loader's own length where the workload does not know it."""
    if sizes.train_batches is not None:
        return sizes
    return dataclasses.replace(sizes, train_batches=length_of(loader))


def _measure_epochs(trial: RunningTrial, loader: EpochLoader, sizes: RunSizes) -> None:
    """First batch, warm-up, windows, and then the boundary into a second epoch."""
    recorder, cell = trial.recorder, trial.cell
    # The first workers x prefetch batches were made before anybody waited for them, so they
    # are warm-up: they are faster than the loader can go on.
    recorder.warmup_steps = max(1, cell.queued_batches)
    recorder.hashed_batches, recorder.looks_into_second = HASHED_BATCHES, True
    if trial.task is not None and cell.device != "cpu":
        recorder.attribution_steps = trial.spec.windows.attribution_steps
    _measure_epoch(trial, loader, epoch=1, batches=sizes.train_batches)
    if trial.spec.windows.boundary:
        _measure_epoch(trial, loader, epoch=2, batches=sizes.train_batches)


def _measure_epoch(
    trial: RunningTrial, loader: EpochLoader, *, epoch: int, batches: int | None
) -> None:
    """As much of one epoch as the recorder wants; then the iterator is given up."""
    recorder = trial.recorder
    makes = not isinstance(loader, CachedLoader)
    place = Place()
    if epoch == 1 and makes:
        steps = trial.spec.windows.min_steps
        place = place_of(loader, batches, trial.epoch_share, recorder.warmup_steps, steps)
    if not _is_told(place, loader, epoch):
        recorder.note(second_batches=0)
        recorder.finished = True
        return
    to_come = None if batches is None else batches - place.left_out
    recorder.begin_epoch(epoch, to_come, left_out=place.left_out, as_written=place.after)
    trial.rows.begin_epoch(place.left_out)
    if trial.task is not None:
        trial.task.begin_epoch(epoch)
    trial.batches.begin_epoch(loader)
    iterator = place.iterator_of(loader)
    _take_steps(trial, iterator, makes)
    if place.left_out and recorder.finished and not recorder.step:
        # its len() promised too much: there is no batch there
        close_iterator(iterator)
        trial.epoch_share = 0.0
        _measure_epoch(trial, loader, epoch=epoch, batches=batches)
        return
    # one that begins elsewhere by itself is not checked: it may not do so
    checked = to_come is not None and recorder.step == to_come and not place.is_native
    if checked and not recorder.finished:
        taken = _take(trial, iterator)
        if taken is not None:  # beyond what was promised
            recorder.counted(1, known_rows(trial.rows.count(taken[2])), complete=False)
    if epoch == 1 and recorder.finished and not recorder.step:
        heeds = "batch_size" in trial.workload.axes
        raise UsageError(no_batch_words(loader, trial.cell.batch_size, heeds))
    facts = recorder.fields.get("loader")
    if epoch == 1 and makes and facts is not None and not recorder.finished:
        until_s = trial.now_s() + (0.0 if facts.length_is_exact else trial.spec.windows.count_s)
        _count_on(trial, iterator, until_s)
    if makes:
        trial.batches.complete(recorder.stamps, recorder.first_stamp)
        recorder.save()
    trial.progress.enter(Stage.EPOCH_BOUNDARY)
    began_s = trial.now_s()
    close_iterator(iterator)
    del iterator
    if epoch == 1:
        recorder.note(teardown_s=trial.now_s() - began_s)


def _is_told(place: Place, loader: EpochLoader, epoch: int) -> bool:
    """Tell the loader of the epoch; False where it can be iterated once only, and was."""
    try:
        place.tell(loader, epoch)
    except UsedUpError:
        return False
    return True


def _take_steps(trial: RunningTrial, iterator: Iterator[Batch], makes: bool) -> None:
    recorder = trial.recorder
    # elsewhere than on the CPU a stage could only be timed by waiting for it
    timers = {ATTRIBUTION: stage_timer(trial.cell.device)}
    if trial.cell.device == "cpu":
        timers[THROUGHPUT] = stage_timer("cpu")
    try:
        while recorder.wants_step and (taken := _take(trial, iterator)) is not None:
            asked_s, delivered_s, batch = taken
            made = trial.batches.taken(asked_s, delivered_s) if makes else {}
            recorder.delivered(asked_s, delivered_s, made)
            check_batch(batch)
            if makes and recorder.wants_hash:
                recorder.hashed(batch_hash(batch))
            _train_step(trial, batch, timers.get(recorder.window))
            # a real run asks for it after each step, too
            loss = trial.task.recent_loss() if trial.task is not None else None
            if recorder.epoch == 1:
                trial.recent_losses.append(0.0 if loss is None else float(loss))
            (rows,) = trial.ranks.sum(known_rows(trial.rows.count(batch)))
            recorder.step_done(trial.now_s(), rows)
    finally:
        for timer in timers.values():
            recorder.add_stages(timer.read())


def _count_on(trial: RunningTrial, iterator: Iterator[Batch], until_s: float) -> None:
    """Count what is left of the epoch, for a while; where several ranks train, none does."""
    batches, rows, ended = 0, 0, False
    while trial.ranks.count == 1 and trial.now_s() < until_s:
        batch = next(iterator, _END)
        if batch is _END:
            ended = True
            break
        batches, rows = batches + 1, rows + known_rows(trial.rows.count(batch))
        trial.progress.enter(Stage.STEP)
    trial.recorder.counted(batches, rows, ended)


def _take(trial: RunningTrial, iterator: Iterator[Batch]) -> tuple[float, float, Batch] | None:
    """Ask for a batch: (asked, delivered, batch), or None at the epoch's end."""
    asked_s = trial.now_s()
    try:
        batch = next(iterator)
    except StopIteration:
        trial.recorder.epoch_ended(asked_s, trial.now_s())
        return None
    return asked_s, trial.now_s(), batch


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


def _measure_compute(trial: RunningTrial) -> None:
    """The step's own ceiling: a few batches, kept on the device, trained on again and again."""
    trial.progress.enter(Stage.DATA)
    loader = _loader_of_few(trial)
    try:
        trial.progress.enter(Stage.MODEL)
        trial.task = trial.workload.make_task(trial.cell)
        assert trial.task is not None, "a compute trial needs a task"
        sizes = loader_sizes(trial.workload.sizes(trial.cell.batch_size), loader)
        trial.recorder.note(startup_s=trial.now_s(), sizes=sizes)
        trial.progress.enter(Stage.FIRST_BATCH, epoch=1)
        loader.set_epoch(1)
        iterator = iter(loader)
        taken = list(itertools.islice(iterator, CACHED_BATCHES))
        close_iterator(iterator)
    finally:
        loader.close()
    cached = CachedLoader([trial.task.transfer(batch) for batch in taken])
    if trial.cell.device != "cpu":
        trial.recorder.attribution_steps = trial.spec.windows.attribution_steps
    _measure_epoch(trial, cached, epoch=1, batches=None)
    _measure_end_of_epoch(trial)


def _loader_of_few(trial: RunningTrial) -> EpochLoader:
    """A loader of a few batches: without workers, unless it cannot be made so."""
    try:
        return as_epoch_loader(trial.workload.train_loader(trial.cell.without_workers))
    except Exception:
        if not trial.cell.workers:
            raise
        return as_epoch_loader(trial.workload.train_loader(trial.cell))


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


def _measure_end_of_epoch(trial: RunningTrial) -> None:
    """What a real run does after the last step of an epoch, in the same order."""
    _measure_validation(trial)
    _measure_metrics(trial)
    _measure_checkpoints(trial)


def _measure_validation(trial: RunningTrial) -> None:
    """Some validation batches, through the cell's own validation loader."""
    made = trial.workload.validation_loader(trial.cell)
    if made is None or trial.task is None or trial.spec.windows.validation_batches == 0:
        return
    loader = as_epoch_loader(made)
    trial.progress.enter(Stage.VALIDATION)
    try:
        loader.set_epoch(1, _first_to_validate(trial, loader))
        trial.task.begin_validation()
        began_s = trial.now_s()
        iterator = iter(loader)
        _validate(trial, iterator, began_s)
        ended_s = trial.now_s()
        close_iterator(iterator)
        del iterator
        trial.recorder.note(validation_teardown_s=trial.now_s() - ended_s)
        if trial.cell.workers and trial.cell.persistent:
            _validate_again(trial, loader)
    finally:
        loader.close()
    trial.recorder.save()


def _first_to_validate(trial: RunningTrial, loader: EpochLoader) -> int:
    """Where the timed batches begin; at the beginning unless a loader says it goes there at once.

    One that reads what it leaves out would be silent for long.
    """
    plan = trial.spec.windows
    known = trial.workload.sizes(trial.cell.batch_size).validation_batches or length_of(loader)
    first = 0
    if known is not None and getattr(loader, "skips_unread", False):
        first = round(plan.validation_from * max(0, known - plan.validation_batches - 1))
    trial.recorder.note(validation_from=first)
    return first


def _validate(trial: RunningTrial, iterator: Iterator[Batch], began_s: float) -> None:
    assert trial.task is not None, "there is a task to validate"
    for count in range(trial.spec.windows.validation_batches):
        asked_s = trial.now_s()
        batch = next(iterator, None)
        if batch is None:
            break
        if count == 0:
            trial.recorder.note(validation_restart_s=trial.now_s() - began_s)
            asked_s = trial.now_s()
        trial.task.validation_step(trial.task.transfer(batch))
        trial.synchronize()
        trial.recorder.validation_batch_s.append(trial.now_s() - asked_s)
        trial.progress.step(count + 1)


def _validate_again(trial: RunningTrial, loader: EpochLoader) -> None:
    """The start of a second validation: workers that are kept are there already."""
    loader.set_epoch(2)
    began_s = trial.now_s()
    iterator = iter(loader)
    if next(iterator, None) is not None:
        trial.recorder.note(validation_again_s=trial.now_s() - began_s)
    close_iterator(iterator)


def _measure_metrics(trial: RunningTrial) -> None:
    """The task's metrics; of so few batches it may well have none, which is no failure."""
    if trial.task is None or trial.spec.windows.checkpoints == 0:
        return
    trial.progress.enter(Stage.METRICS)
    imported = len(sys.modules)
    try:
        took_s = _metrics_s(trial, trial.task)
        if len(sys.modules) > imported:  # a library that is imported once is no time of an epoch
            with contextlib.suppress(Exception):
                took_s = _metrics_s(trial, trial.task)
    except UsageError:
        raise
    except Exception as error:
        trial.recorder.fields.setdefault("notes", []).append(
            f"metrics() raised {type(error).__name__} in a trial of a few batches "
            f"({' '.join(str(error).split())[:120]}): what it takes was not timed"
        )
    else:
        trial.recorder.metrics_s.append(took_s)
    trial.recorder.save()


def _metrics_s(trial: RunningTrial, task: Task) -> float:
    began_s = trial.now_s()
    with kept_rng(trial.cell.device):
        own_metrics(task.metrics())
    trial.synchronize()
    return trial.now_s() - began_s


def _measure_checkpoints(trial: RunningTrial) -> None:
    """Real checkpoints of the real state, written as the real run writes them."""
    if trial.task is None:
        return
    trial.progress.enter(Stage.CHECKPOINT)
    path = Path(trial.spec.folder) / "checkpoint.pt"
    for count in range(trial.spec.windows.checkpoints):
        began_s = trial.now_s()
        state = {"task": trial.task.state_dict()}
        if trial.ranks.rank == 0:
            save_checkpoint(path, state)
        trial.recorder.checkpoint_s.append(trial.now_s() - began_s)
        trial.progress.step(count + 1)
        path.unlink(missing_ok=True)
    trial.recorder.save()


def close_iterator(iterator: Iterator[Batch]) -> None:
    """End an iterator that offers it (a generator); others end when they are let go."""
    with contextlib.suppress(AttributeError):
        iterator.close()  # type: ignore[attr-defined]


def family_cpu_s() -> float:
    """CPU seconds of this process, of the children it has ended and of those that live.

    It never falls: what a worker burnt counts on once it has ended.
    """
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    total_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total_s += times.user + times.system
            # a fork server has ended workers of its own
            total_s += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
    return total_s
