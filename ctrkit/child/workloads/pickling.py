"""Pickles what a DataLoader would send to a spawned worker; counts the bytes and keeps none.

It uses multiprocessing's own pickler, in the state in which a process is being spawned. So locks
and queues, which can only be inherited, pickle exactly if they would then. Arrays and CPU tensors
are counted without a copy, so that examining a data set does not double its memory.

Needs torch and the standard library only, since it also runs in a script's own interpreter.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
from collections.abc import Iterator
from multiprocessing import context, popen_spawn_posix
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

import torch
import torch.multiprocessing  # teaches the pickler torch's tensors

if TYPE_CHECKING:
    from ctrkit.core.child_records import LoaderPart

_DEEPEST = 6
_MOST_MESSAGE = 300


def pickled_part(name: str, value: Any) -> LoaderPart:
    """How many bytes this part of a DataLoader pickles to, or why it fails. Never raises."""
    from ctrkit.core.child_records import LoaderPart

    kind = _kind_of(value)
    sink = _CountingSink()
    pickler = _CountingPickler(sink)
    try:
        with _spawning():
            pickler.dump(value)
    except Exception as error:
        return LoaderPart(
            name=name,
            kind=kind,
            device_tensors=sorted(pickler.devices),
            place=_failing_place(name, value),
            error=_words(error),
        )
    return LoaderPart(
        name=name,
        kind=kind,
        pickled_bytes=sink.bytes + pickler.array_bytes,
        shared_bytes=sum(pickler.storages.values()),
        memmap_bytes=pickler.memmap_bytes,
        device_tensors=sorted(pickler.devices),
    )


def pickling_problem(name: str, value: Any) -> str:
    """A clause: which part of the value cannot be pickled, and why; empty if all of it can."""
    try:
        with _spawning():
            _CountingPickler(_CountingSink()).dump(value)
    except Exception as error:
        return f"{_failing_place(name, value)} ({_words(error)})"
    return ""


class _CountingSink(io.RawIOBase):
    """A file that only counts."""

    bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        self.bytes += length
        return length


class _CountingPickler(ForkingPickler):
    """Counts the bytes of large data without copying it; `storages` has tensor bytes by address."""

    def __init__(self, sink: io.RawIOBase) -> None:
        super().__init__(sink)
        self.array_bytes = 0
        self.memmap_bytes = 0
        self.storages: dict[int, int] = {}
        self.devices: set[str] = set()

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        numpy = sys.modules.get("numpy")
        if numpy is None:
            return NotImplemented
        if isinstance(value, numpy.ndarray) and value.dtype.hasobject is False:
            self.array_bytes += value.nbytes
            if isinstance(value, numpy.memmap):
                self.memmap_bytes += value.nbytes
            return type(None), ()
        return NotImplemented

    def _tensor(self, tensor: torch.Tensor) -> Any:
        if tensor.device.type != "cpu":
            self.devices.add(str(tensor.device))
        plain = tensor.layout is torch.strided and (tensor.is_leaf or not tensor.requires_grad)
        if not plain or tensor.device.type == "mps":
            return NotImplemented  # torch's own reducer pickles or refuses it
        if tensor.device.type == "cpu":
            storage = tensor.untyped_storage()
            self.storages[storage.data_ptr()] = storage.nbytes()
        return type(None), ()


class _Spawning:
    """The part of a spawning process that picklers use."""

    method = "spawn"
    DupFd = popen_spawn_posix._DupFd

    def duplicate_for_child(self, fd: int) -> int:
        return fd


@contextlib.contextmanager
def _spawning() -> Iterator[None]:
    context.set_spawning_popen(_Spawning())  # type: ignore[arg-type]
    try:
        yield
    finally:
        context.set_spawning_popen(None)


def _failing_place(name: str, value: Any) -> str:
    """The innermost attribute that cannot be pickled, such as `dataset.transform`, else `name`."""
    place = name
    for _ in range(_DEEPEST):
        found = next(((key, item) for key, item in _members(value) if not _can_pickle(item)), None)
        if found is None:
            return place
        place, value = place + found[0], found[1]
    return place


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((f"[{key!r:.40}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        yield from ((f".{key}", item) for key, item in vars(value).items())


def _can_pickle(value: Any) -> bool:
    try:
        with _spawning():
            _CountingPickler(_CountingSink()).dump(value)
    except Exception:
        return False
    return True


def _kind_of(value: Any) -> str:
    named = value if isinstance(value, type) or hasattr(value, "__qualname__") else type(value)
    return str(named.__qualname__)


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no reason given"
    plain = isinstance(error, (pickle.PicklingError, AttributeError, TypeError))
    return (text if plain else f"{type(error).__name__}: {text}")[:_MOST_MESSAGE]
