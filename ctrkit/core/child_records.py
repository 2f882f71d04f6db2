"""The records that a child writes for its parent, as frozen dataclasses.

A trial writes a `Measurement`, a look at the workload an `Inspection` and an `Examination`. Nothing
here does any I/O.
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
    """Times of each step of a trial, in launch order; one entry per step in every list.

    Seconds are `time.monotonic()` minus the launch of the process. `asked_s`: the loop asks the
    loader for a batch; `delivered_s`: it has it; `done_s`: the step is over (where the window is
    not synchronised, the moment its last call returned). `window` is `warmup`, `throughput`,
    `attribution`, `boundary` (the first steps of the second epoch) or `second` (later ones of it).

    How the batch was made is None where nobody saw it, and these lists are empty in older files:
    `worker`: number of the process that made it, None without workers; `fetch_start_s`,
    `fetch_end_s`, `collate_end_s`: its samples were asked for, there, and put together; `sent_s`:
    it was pickled for the way to the loop.

    `device_done_s`: the device was done with the step, by an event in its queue; None where it has
    no events, empty in older files. The host's stamps run ahead of it.
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
    """A process that has ended: its exit code, negative for a signal.

    `worker` is its number; None where it died before it could tell. `kind`: a DataLoader `worker`,
    or a `rank` of those that train together.
    """

    pid: int
    worker: int | None
    exit_code: int
    kind: str = "worker"


@dataclass(frozen=True, kw_only=True)
class ChildError:
    """An exception that ended a child, as its verdict: `setup-failed`, `out-of-memory`, ...

    `stage` is the progress stage's label; `message` one line; `traceback` the whole text.
    `dead_workers` had ended by then, whether or not they are to blame. `rank`: which of several
    processes raised it.
    """

    verdict: str
    stage: str
    message: str
    traceback: str
    dead_workers: list[WorkerExit] = field(default_factory=list)
    rank: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderFacts:
    """What the training loader says of itself; None or empty where there is no DataLoader in it.

    Args:
        claimed_batches: `len()` of the loader before its first epoch; None where it has none.
        dataset: name of the data set's class.
        dataset_rows: `len()` of the data set: rows, or batches where it makes its own.
        iterable: whether it is an iterable data set, of which nobody asks for a row by its number.
        batch_size: rows that the DataLoader puts into a batch; None where it does not make them.
        drop_last: whether an incomplete last batch is left out.
        workers: processes that it really has.
        length_is_exact: `len()` follows from the very indices that will be asked for.
    """

    claimed_batches: int | None = None
    dataset: str = ""
    dataset_rows: int | None = None
    iterable: bool = False
    batch_size: int | None = None
    drop_last: bool = False
    workers: int | None = None
    length_is_exact: bool = False


@dataclass(frozen=True, kw_only=True)
class FileUse:
    """The data files that a trial had open at the end of its window, and its workers' threads.

    Args:
        files: how many; 0 where none was seen, or where nobody looked.
        median_bytes: their size.
        file_system: what most of them lie on, such as `ext4`; empty where that is not known.
        worker_threads: the most that a worker had; None where nobody looked.
        libraries: loaded in a worker, that are known to start threads.
    """

    files: int = 0
    median_bytes: int | None = None
    file_system: str = ""
    worker_threads: int | None = None
    libraries: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What a trial measured, raw; rewritten by the child whenever a part is done.

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
    The parent adds `warm_up_steps`, slow steps at the beginning, and what they took longer.
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
    stamps: Stamps = field(default_factory=Stamps)
    complete: bool = False
    error: ChildError | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderNeeds:
    """What workers and batches take of the machine; None where it is not known before a batch.

    `worker_bytes` is the private memory of a worker that is started anew: interpreter, imports and
    its own copy of the data set. `row_bytes` is of a row of a batch on the host, in
    `tensors_per_batch` tensors.
    """

    worker_bytes: int | None = None
    row_bytes: int | None = None
    tensors_per_batch: int | None = None


@dataclass(frozen=True, kw_only=True)
class LoaderPart:
    """What a DataLoader hands to its workers (`dataset`, `collate_fn`, `worker_init_fn`), pickled.

    `pickled_bytes` go through the pipe to each worker, `shared_bytes` of CPU tensors into shared
    memory once. `place` names the innermost attribute that cannot be pickled, `error` why; both
    are empty where it can.
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
    """What a look at a workload found out without taking a batch or starting a worker.

    `problem` is why there was nothing to look at, empty where there was. `parts` is empty for a
    loader without a DataLoader. `start_method` is what a DataLoader that names none would use;
    `default_device` and `generator_device` are where torch makes tensors and where the loader draws
    its random numbers. `threaded_libraries` are loaded ones that bring threads of their own,
    `threads` the names of those that run beside the main one.
    `is_no_loader`: the problem is what `make_loader` returned, and a DataLoader in that was looked
    at. `needs_workers` is why the loader cannot be made without them, empty where it can. `batches`
    is the loader's `len()` at this `batch_size`, None where it has none. `told_data_set` is a data
    set with `set_epoch`, `persistent` whether its workers are kept between epochs.
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
    """What it means that a data set is told the epoch in the training process only."""
    return (
        f"set_epoch of the data set ({data_set}) does not reach workers that are kept between "
        "epochs, unless it keeps the epoch in shared memory: they have copies of their own, which "
        "stay in the first epoch; leave persistent workers off"
    )


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a child found out about torch, the devices and the workload before the first trial.

    `watch`: the metric that decides on best.pt and patience, and its direction; None for none.
    `own_defaults`: the values of axes that a user's function takes where nobody names another.
    `device_memory_bytes` is what is free on a device, for those that tell it. `threads` run, and
    `threaded_libraries` are loaded, once the workload is imported. `launch_spread` is added by the
    parent: what earlier runs of this machine tell of how launches differ; None: not looked up.
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
        heeded = {*self.axes, "device", "loader", "threads"}  # these mean something in any case
        return [axis for axis in CELL_AXES if axis not in heeded]
