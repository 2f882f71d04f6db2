"""The records that a child writes for its parent, as frozen dataclasses.

A trial writes a `Measurement`; a child that inspects a workload writes an `Inspection` and an
`Examination`. Nothing here does any I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ctrkit.core.config import CELL_AXES, RunSizes, Watch
from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.core.losses import BadLoss

STAGES = ("fetch", "collate", "ipc", "transfer", "forward", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True)
class Stamps:
    """Times of each step of a trial, in order; every list has one entry per step.

    Times are `time.monotonic()` in seconds, minus the launch of the process. The lists on how a
    batch was made have None where nothing saw it, and are empty in older files.

    Attributes:
        window: `warmup`, `throughput`, `attribution`, `boundary` (the first steps of the second
            epoch) or `second` (later steps of it).
        asked_s: the loop asks the loader for a batch.
        delivered_s: the loop has the batch.
        done_s: the step is done: its last call returned, which on a GPU may be before it was
            computed.
        worker: number of the worker that made the batch; None without workers.
        fetch_start_s: the worker begins to fetch the samples.
        fetch_end_s: it has the samples.
        collate_end_s: it has collated them.
        sent_s: it has pickled the batch for the loop.
        device_done_s: the device finished the step, by an event in its queue; None if it has no
            events. The host's times run ahead of it.
    """

    epoch: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    window: list[str] = field(default_factory=list)
    asked_s: list[float] = field(default_factory=list)
    delivered_s: list[float] = field(default_factory=list)
    done_s: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    worker: list[int | None] = field(default_factory=list)
    fetch_start_s: list[float | None] = field(default_factory=list)
    fetch_end_s: list[float | None] = field(default_factory=list)
    collate_end_s: list[float | None] = field(default_factory=list)
    sent_s: list[float | None] = field(default_factory=list)
    device_done_s: list[float | None] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class WorkerExit:
    """A process that has ended.

    Attributes:
        exit_code: negative for a signal.
        worker: its number; None if it died before it could write it.
        kind: a DataLoader `worker`, or a `rank` of several training processes.
    """

    pid: int
    worker: int | None
    exit_code: int
    kind: str = "worker"


@dataclass(frozen=True, kw_only=True)
class ChildError:
    """An exception that ended a child.

    Attributes:
        verdict: `setup-failed`, `out-of-memory`, ...
        stage: label of the progress stage in which it was raised.
        message: one line.
        traceback: the whole text.
        dead_workers: processes that had ended by then, to blame or not.
        rank: number of the rank that raised it.
    """

    verdict: str
    stage: str
    message: str
    traceback: str
    dead_workers: list[WorkerExit] = field(default_factory=list)
    rank: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderFacts:
    """What the training loader says about itself; None or empty if it holds no DataLoader.

    Args:
        claimed_batches: `len()` of the loader before its first epoch; None if it has none.
        dataset: class name of the data set.
        dataset_rows: `len()` of the data set: rows, or batches if it makes its own batches.
        iterable: whether it is an iterable data set, which has no access by index.
        batch_size: rows that the DataLoader puts into a batch; None if it makes no batches.
        drop_last: whether an incomplete last batch is dropped.
        workers: number of worker processes that it really has.
        length_is_exact: whether `len()` follows from the indices that will be drawn.
        left_early: whether the loop left its first epoch before the loader had no more batches;
            None if unknown.
        failed_batches: batches of the first epoch that raised an error which the loop caught.
    """

    claimed_batches: int | None = None
    dataset: str = ""
    dataset_rows: int | None = None
    iterable: bool = False
    batch_size: int | None = None
    drop_last: bool = False
    workers: int | None = None
    length_is_exact: bool = False
    left_early: bool | None = None
    failed_batches: int = 0


@dataclass(frozen=True, kw_only=True)
class FileUse:
    """The data files that a trial had open at the end of its window, and its workers' threads.

    Args:
        files: number of files; 0 if none was seen, or nothing looked.
        median_bytes: their median size.
        file_system: the kind that most of them lie on, such as `ext4`; empty if unknown.
        worker_threads: the most threads that a worker had; None if nothing looked.
        libraries: libraries loaded in a worker that are known to start threads.
    """

    files: int = 0
    median_bytes: int | None = None
    file_system: str = ""
    worker_threads: int | None = None
    libraries: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The raw measurement of a trial. The child rewrites it each time a part is done.

    `startup_s` is from the launch until the loader and the model are there, `import_s` the part of
    it until torch was imported; of a trial that was forked, `startup_s` has that part as a real run
    will have it.
    `throughput_s` is the wall time of the throughput window, synchronised at its ends, over
    `throughput_rows` rows in `throughput_steps` steps. `losses` are the training losses of the
    steps from the first one to the end of that window, the same whatever the loader; None where
    one is no finite number, of which `bad_loss` is the first. `notes` say
    what is not as it was asked for. `stages` has seconds per step of the
    attribution window. `restart_s` is from asking for a new epoch's iterator to its first batch,
    `teardown_s` from the last batch of an epoch to the end of its iterator. `cpu_s` is CPU time of
    the child and its workers over the throughput window. A list is empty and a number None where
    it was not measured. `epoch_batches` and `epoch_rows` were taken of the first epoch, and
    `epoch_complete`: the loader ended by itself after them, in `epoch_s` from asking for its
    iterator to its end, without the validations and checkpoints in between. `batch_hashes` are of
    the first batches of the first epoch, in order, and `second_hashes` of the second;
    `second_batches` is known where that ended, too. `warnings` are torch's own. `reads` are
    counters over the throughput window, as `child/recording/family_reads.py` names them, and
    `in_use` the files in use at its end.
    `validation_from` is the first validation batch that was timed, counted from 0;
    `validation_again_s` a further start of a validation loader whose workers are kept, and
    `validation_teardown_s` the end of its iterator. `metrics_s` is what the task takes to tell its
    metrics, of a script all that comes between two epochs beside validation and checkpoint.
    The parent adds `warm_up_steps`, the number of slow steps at the beginning; `warm_up_s`, how
    much longer they took; and `other_cores`, the cores that other processes used in the first and
    in the second epoch, empty if unknown.
    """

    kind: str
    startup_s: float | None = None
    import_s: float | None = None
    first_batch_s: float | None = None
    restart_s: float | None = None
    teardown_s: float | None = None
    throughput_s: float | None = None
    throughput_steps: int = 0
    throughput_rows: int = 0
    losses: list[float | None] = field(default_factory=list)
    bad_loss: BadLoss | None = None
    notes: list[str] = field(default_factory=list)
    cpu_s: float | None = None
    stages: dict[str, list[float]] = field(default_factory=dict)
    validation_batch_s: list[float] = field(default_factory=list)
    validation_restart_s: float | None = None
    validation_again_s: float | None = None
    validation_teardown_s: float | None = None
    validation_from: int | None = None
    metrics_s: list[float] = field(default_factory=list)
    checkpoint_s: list[float] = field(default_factory=list)
    peak_device_bytes: int | None = None
    first_batch: int = 0
    epoch_complete: bool = False
    epoch_batches: int = 0
    epoch_rows: int = 0
    epoch_s: float | None = None
    loader: LoaderFacts | None = None
    batch_hashes: list[str] = field(default_factory=list)
    second_hashes: list[str] = field(default_factory=list)
    second_batches: int | None = None
    warnings: list[str] = field(default_factory=list)
    reads: dict[str, float] = field(default_factory=dict)
    in_use: FileUse = field(default_factory=FileUse)
    sizes: RunSizes | None = None
    warm_up_steps: int = 0
    warm_up_s: float = 0.0
    other_cores: list[float] = field(default_factory=list)
    stamps: Stamps = field(default_factory=Stamps)
    complete: bool = False
    error: ChildError | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderNeeds:
    """What workers and batches need of the machine; None if unknown before a batch exists.

    Attributes:
        worker_bytes: private memory of a spawned worker: interpreter, imports and its copy of the
            data set.
        row_bytes: bytes of one row of a batch on the host.
        tensors_per_batch: number of tensors in a batch.
    """

    worker_bytes: int | None = None
    row_bytes: int | None = None
    tensors_per_batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderPart:
    """A part that a DataLoader sends to its workers (`dataset`, `collate_fn`, `worker_init_fn`).

    Attributes:
        pickled_bytes: bytes that go through the pipe to each worker.
        shared_bytes: bytes of CPU tensors that go into shared memory once.
        place: the innermost attribute that cannot be pickled; empty if all can.
        error: why it cannot.
    """

    name: str
    kind: str
    pickled_bytes: int = 0
    shared_bytes: int = 0
    memmap_bytes: int = 0
    device_tensors: list[str] = field(default_factory=list)
    place: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found out about a workload without taking a batch or starting a worker.

    Attributes:
        problem: why there was no loader to examine; empty if there was one.
        parts: what its DataLoader sends to workers; empty without a DataLoader.
        start_method: the start method of a DataLoader that names none.
        default_device: where torch makes tensors by default.
        generator_device: where the loader draws its random numbers.
        threaded_libraries: loaded libraries that start threads of their own.
        threads: names of the threads other than the main one.
        is_no_loader: `problem` is about what `make_loader` returned; a DataLoader inside that was
            examined.
        needs_workers: why the loader cannot be made without workers; empty if it can.
        batches: the loader's `len()` at this `batch_size`; None if it has none.
        told_data_set: type name of a data set with `set_epoch`.
        persistent: whether its workers are kept between epochs.
    """

    problem: str = ""
    loader: str = ""
    parts: list[LoaderPart] = field(default_factory=list)
    needs: LoaderNeeds = field(default_factory=LoaderNeeds)
    start_method: str = ""
    sharing_strategy: str = ""
    default_device: str = "cpu"
    generator_device: str = "cpu"
    shuffles: bool = False
    pins: bool = False
    is_no_loader: bool = False
    needs_workers: str = ""
    batches: int | None = None
    batch_size: int = 1
    told_data_set: str = ""
    persistent: bool = False
    threaded_libraries: list[str] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)


def untold_words(data_set: str) -> str:
    """A message: what follows if a data set gets `set_epoch` only in the training process."""
    return (
        f"set_epoch of the data set ({data_set}) does not reach workers that are kept between "
        "epochs, unless it keeps the epoch in shared memory: they have copies of their own, which "
        "stay in the first epoch; leave persistent workers off"
    )


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a child found out about torch, the devices and the workload before the first trial.

    Attributes:
        watch: the metric that decides on best.pt and patience, and its direction; None for none.
        own_defaults: values that a user's function uses for axes that the user does not name.
        device_memory_bytes: free bytes of each device that tells it.
        threads: names of the threads that run after the workload was imported.
        threaded_libraries: libraries loaded by then that start threads.
        launch_spread: how much launches differ, from earlier runs on this machine; added by the
            parent, None if it did not look.
    """

    devices: list[str]
    device_names: dict[str, str]
    torch_version: str
    workload_name: str
    workload_fingerprint: str
    data_fingerprint: str
    axes: list[str]
    loaders: list[str]
    default_batch_size: int
    has_task: bool
    sizes: RunSizes | None
    watch: Watch | None = None
    own_defaults: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    device_memory_bytes: dict[str, int] = field(default_factory=dict)
    threads: list[str] = field(default_factory=list)
    threaded_libraries: list[str] = field(default_factory=list)
    needs: LoaderNeeds = field(default_factory=LoaderNeeds)
    launch_spread: LaunchSpread | None = None

    @property
    def unheeded(self) -> list[str]:
        """Axes that a user's `make_loader` does not take."""
        if self.loaders != ["custom"]:
            return []
        heeded = {*self.axes, "device", "loader", "threads"}  # ctrkit itself applies these
        return [axis for axis in CELL_AXES if axis not in heeded]
