"""Runs one trial of a probe: the training loop in short windows, with every batch time-stamped.

It averages nothing: the parent decides from the raw stamps. There are two kinds of window. In a
throughput window, the device is synchronised only at both ends; in an attribution window, at each
stage. On the CPU nothing runs ahead of the host, so the throughput window gives the stages as well,
and no attribution window is needed.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

from ctrkit.child.recording.step_stamps import ATTRIBUTION, THROUGHPUT
from ctrkit.child.training.batch_hash import batch_hash
from ctrkit.child.training.batches import known_rows, row_counter
from ctrkit.child.training.devices import peak_device_bytes
from ctrkit.child.training.epoch_place import EpochPlace, place_of
from ctrkit.child.training.loader_facts import facts_of, length_of, no_batch_words
from ctrkit.child.training.running_trial import RunningTrial, Save, close_iterator
from ctrkit.child.training.stages import StageTimer, stage_timer
from ctrkit.child.training.trial_end_of_epoch import measure_end_of_epoch
from ctrkit.child.workloads.iterable_loader import as_epoch_loader
from ctrkit.child.workloads.loader_parts import untold_data_set
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Workload
from ctrkit.child.workloads.returned import UsedUpError, check_batch
from ctrkit.core.child_records import Measurement
from ctrkit.core.config import ChildSpec, RunSizes
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import ProgressWriter, Stage

CACHED_BATCHES = 10
#: Batches at the beginning of an epoch whose hashes are compared between configurations.
HASHED_BATCHES = 8
_END = object()


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
        spec: the trial's spec.
        workload: the workload to drive.
        progress: receives every stage and step.
        save: saves the measurement.
        import_s: seconds from the launch until torch was imported.

    Returns:
        The complete measurement.

    Raises:
        Exception: anything that the workload raises; the measurement so far is saved.
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
    """Measure the loader with the step (`full`) or alone (`loader`), into a second epoch."""
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
            measure_end_of_epoch(trial)
        trial.progress.enter(Stage.SHUTDOWN)
    finally:
        loader.close()


def loader_sizes(sizes: RunSizes, loader: EpochLoader) -> RunSizes:
    """The sizes, with the loader's own length if the workload does not know it."""
    if sizes.train_batches is not None:
        return sizes
    return dataclasses.replace(sizes, train_batches=length_of(loader))


def _measure_epochs(trial: RunningTrial, loader: EpochLoader, sizes: RunSizes) -> None:
    """Measure the first batch, warm-up, windows, and the boundary into a second epoch."""
    recorder, cell = trial.recorder, trial.cell
    # Workers made the first workers x prefetch batches before the loop waited for them. Those come
    # faster than the loader can sustain, so they count as warm-up.
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
    """Run as much of one epoch as the recorder wants, then close the iterator."""
    recorder = trial.recorder
    makes = not isinstance(loader, CachedLoader)
    place = EpochPlace()
    if epoch == 1 and makes:
        steps = trial.spec.windows.min_steps
        place = place_of(loader, batches, trial.epoch_share, recorder.warmup_steps, steps)
    if not _is_told(place, loader, epoch):
        recorder.note(second_batches=0)
        recorder.finished = True
        return
    if place.elsewhere is not None:
        recorder.warmup_steps += 1  # in one step the sampler skips batches, which takes CPU time
    to_come = None if batches is None else batches - place.left_out
    recorder.begin_epoch(epoch, to_come, left_out=place.left_out, as_written=place.after)
    trial.rows.begin_epoch(place.left_out)
    if trial.task is not None:
        trial.task.begin_epoch(epoch)
    trial.batches.begin_epoch(loader)
    iterator = place.iterator_of(loader, trial.leave_out)
    _take_steps(trial, iterator, makes)
    if place.left_out and recorder.finished and not recorder.step:
        # its len() is too large: that batch does not exist
        close_iterator(iterator)
        trial.epoch_share = 0.0
        _measure_epoch(trial, loader, epoch=epoch, batches=batches)
        return
    # a loader that skips by itself is not checked, because it may not really skip
    if recorder.step == to_come and not place.is_native and not recorder.finished:
        _look_past_the_length(trial, iterator)
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


def _look_past_the_length(trial: RunningTrial, iterator: Iterator[Batch]) -> None:
    """Ask for one batch more than `len()` promised, and count it if it comes."""
    taken = _take(trial, iterator)
    if taken is not None:
        trial.recorder.counted(1, known_rows(trial.rows.count(taken[2])), complete=False)


def _is_told(place: EpochPlace, loader: EpochLoader, epoch: int) -> bool:
    """Tell the loader the epoch; False if it can be iterated only once, and has been."""
    try:
        place.tell(loader, epoch)
    except UsedUpError:
        return False
    return True


def _take_steps(trial: RunningTrial, iterator: Iterator[Batch], makes: bool) -> None:
    recorder = trial.recorder
    # on other devices than the CPU, timing a stage means waiting for it
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
            # a real run reads the loss after each step, too
            loss = trial.task.recent_loss() if trial.task is not None else None
            if recorder.epoch == 1:
                trial.recent_losses.append(0.0 if loss is None else float(loss))
            (rows,) = trial.ranks.sum(known_rows(trial.rows.count(batch)))
            recorder.step_done(trial.now_s(), rows)
    finally:
        for timer in timers.values():
            recorder.add_stages(timer.read())


def _count_on(trial: RunningTrial, iterator: Iterator[Batch], until_s: float) -> None:
    """Count the rest of the epoch until a deadline; several ranks do not count."""
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
    """Take a batch: (asked at, delivered at, batch), or None at the end of the epoch."""
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
    """Measure the step alone: it trains on a few batches again and again, kept on the device."""
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
    measure_end_of_epoch(trial)


def _loader_of_few(trial: RunningTrial) -> EpochLoader:
    """A loader for a few batches: without workers, unless it cannot be made so."""
    try:
        return as_epoch_loader(trial.workload.train_loader(trial.cell.without_workers))
    except Exception:
        if not trial.cell.workers:
            raise
        return as_epoch_loader(trial.workload.train_loader(trial.cell))


class CachedLoader:
    """Yields the same few batches endlessly."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Every epoch is the same."""

    def __iter__(self) -> Iterator[Batch]:
        return itertools.cycle(self.batches)

    def close(self) -> None:
        """Nothing to end."""
