"""Examines a workload: makes its loader, and pickles what workers would get.

It makes the loader without workers; if that fails, with as many as asked for, since workers start
only on iteration. It takes no batch, starts no worker and makes no model. An exception in the
user's `make_loader` becomes a finding; the supervisor detects a hang.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.multiprocessing
from torch.utils.data import RandomSampler, TensorDataset

from ctrkit.child.training.devices import available_devices
from ctrkit.child.workloads.iterable_loader import as_epoch_loader
from ctrkit.child.workloads.loader_parts import find_dataloader, told_data_set
from ctrkit.child.workloads.pickling import pickled_part
from ctrkit.child.workloads.protocol import Workload
from ctrkit.child.workloads.returned import NotBatchesError
from ctrkit.core.cell import WITHOUT_WORKERS
from ctrkit.core.child_records import Examination, LoaderNeeds
from ctrkit.core.config import Cell, ChildSpec, make_cell

#: import names of libraries whose threads or locks are known not to survive a fork
THREADED_LIBRARIES = ("cv2", "h5py", "tokenizers")
_PARTS = ("dataset", "collate_fn", "worker_init_fn")


def examine_workload(spec: ChildSpec, workload: Workload) -> Examination:
    """What can be known about the workload's loader before a batch is taken.

    A loader that cannot be made is reported as `problem`, not raised.

    Args:
        spec: its cell has the device asked for; `cpu` stands for the best device there is.
        workload: the loaded workload.
    """
    needs = known_needs(workload)
    cell = _cell(spec, workload)
    loader, problem = _made(workload, cell.without_workers)
    needs_workers = ""
    if loader is None and cell.workers:
        loader, with_workers = _made(workload, cell)
        problem, needs_workers = with_workers, problem if loader is not None else ""
    if loader is None:
        return replace(_surroundings(), needs=needs, problem=problem)
    try:
        found = _look(loader, needs)
    finally:
        if not problem:
            loader.close()
    return replace(
        found, problem=problem, is_no_loader=bool(problem), needs_workers=needs_workers,
        batch_size=cell.batch_size,
    )  # fmt: skip


def _made(workload: Workload, cell: Cell) -> tuple[Any, str]:
    """The loader and "", or what was made instead (or None) and the reason."""
    try:
        return as_epoch_loader(workload.train_loader(cell)), ""
    except NotBatchesError as error:
        return error.value, str(error)
    except (Exception, SystemExit) as error:
        return None, _problem(error, cell.workers)


def known_needs(workload: Workload) -> LoaderNeeds:
    """What is known about the workload's needs without making its loader.

    A spawned worker imports what this process has imported, so this process's private memory is the
    estimate. Call it before anything large is made.
    """
    return replace(workload.loader_needs(), worker_bytes=_private_bytes())


def _private_bytes() -> int | None:
    """Anonymous memory in bytes, including pages shared with forked processes; None if unknown."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    try:
        return int(psutil.Process().memory_full_info().uss)
    except (psutil.Error, AttributeError):
        return None


def _cell(spec: ChildSpec, workload: Workload) -> Cell:
    """The requested cell, with the loader that is most like one with workers."""
    kinds = [kind for kind in workload.loaders if kind not in WITHOUT_WORKERS]
    device = spec.cell.device if spec.cell.device != "cpu" else available_devices()[-1]
    return make_cell(
        "examination",
        device=device if "device" in workload.axes else "cpu",
        loader=(kinds or workload.loaders)[0],
        batch_size=spec.cell.batch_size
        if spec.cell.batch_size != Cell.batch_size
        else workload.default_batch_size(),
        workers=spec.cell.workers,
        start_method=spec.cell.start_method,
        prefetch=spec.cell.prefetch,
        persistent=spec.cell.persistent,
        pin=spec.cell.pin,
    )


def _look(loader: Any, needs: LoaderNeeds) -> Examination:
    found = _surroundings()
    stock = find_dataloader(getattr(loader, "iterable", loader))
    found = replace(found, batches=_length(loader))
    if stock is None:
        made = getattr(loader, "iterable", loader)
        return replace(found, needs=needs, loader=type(made).__qualname__)
    values = [(name, getattr(stock, name, None)) for name in _PARTS]
    parts = [pickled_part(name, value) for name, value in values if value is not None]
    if needs.worker_bytes is not None:
        copies_bytes = sum(part.pickled_bytes for part in parts)
        needs = replace(needs, worker_bytes=needs.worker_bytes + copies_bytes)
    if isinstance(stock.dataset, TensorDataset):
        needs = _tensor_needs(stock.dataset, needs)
    generator = stock.generator
    return replace(
        found,
        loader=type(stock).__qualname__,
        parts=parts,
        needs=needs,
        generator_device="cpu" if generator is None else str(generator.device.type),
        shuffles=isinstance(stock.sampler, RandomSampler),
        pins=bool(stock.pin_memory),
        told_data_set=told_data_set(stock),
        persistent=bool(stock.persistent_workers),
    )


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except Exception:  # a user's `__len__` may raise, for example if it needs what is made later
        return None


def _surroundings() -> Examination:
    """What making the loader left behind in this process, apart from the loader."""
    return Examination(
        start_method=multiprocessing.get_start_method(),
        sharing_strategy=_sharing_strategy(),
        default_device=str(torch.get_default_device().type),
        threaded_libraries=threaded_libraries(),
        threads=running_threads(),
    )


def threaded_libraries() -> list[str]:
    """Loaded libraries that start threads of their own."""
    return [name for name in THREADED_LIBRARIES if name in sys.modules]


def running_threads() -> list[str]:
    """Names of this process's Python threads, without the main one."""
    main = threading.main_thread()
    return [thread.name for thread in threading.enumerate() if thread is not main]


def _sharing_strategy() -> str:
    return str(torch.multiprocessing.get_sharing_strategy())  # type: ignore[no-untyped-call]


def _tensor_needs(dataset: TensorDataset, needs: LoaderNeeds) -> LoaderNeeds:
    """Needs of a TensorDataset: its rows are slices of its tensors, so no batch is needed."""
    row_bytes = sum(tensor[:1].numel() * tensor.element_size() for tensor in dataset.tensors)
    return replace(needs, row_bytes=row_bytes, tensors_per_batch=len(dataset.tensors))


def _problem(error: BaseException, workers: int) -> str:
    """The error, and the last line of the user's own code that it passed through."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and "ctrkit/child/workloads" not in frame.filename
    ]  # fmt: skip
    place = f" ({own[-1].filename.rpartition('/')[2]}, line {own[-1].lineno})" if own else ""
    how = f"with {workers} worker{'s' * (workers > 1)}" if workers else "without workers"
    return f"making the loader {how} raised {text}{place}"[:500]
