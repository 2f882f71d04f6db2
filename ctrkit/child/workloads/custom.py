"""A user's plain `make_loader` function as a workload: a step is only taking a batch."""

from __future__ import annotations

import gc
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator

from ctrkit.child.workloads.protocol import Batch, EpochLoader, Workload
from ctrkit.core.config import CELL_AXES, Cell, RunSizes

MakeLoader = Callable[..., Iterable[Batch]]


def heeded_axes(make_loader: MakeLoader) -> tuple[str, ...]:
    """The axes of a cell that the function's signature names; `**kwargs` takes all of them."""
    parameters = inspect.signature(make_loader).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return CELL_AXES
    return tuple(axis for axis in CELL_AXES if axis in {p.name for p in parameters})


class CustomWorkload(Workload):
    """Loaders by `make_loader(**axes)`, called once per trial, `iter()` once per epoch."""

    loaders = ("custom",)

    def __init__(self, make_loader: MakeLoader, name: str) -> None:
        self.make_loader, self.name = make_loader, name
        self.axes = heeded_axes(make_loader)

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=15)

    def train_loader(self, cell: Cell) -> EpochLoader:
        arguments = {axis: getattr(cell, axis) for axis in self.axes}
        return IterableLoader(self.make_loader(**arguments))


class IterableLoader:
    """Any iterable as an `EpochLoader`; one with `set_epoch`, or whose sampler has it, is told.

    It can only be brought forward by taking batches: `iter` takes those before `first_batch`, and
    calls `on_skip` for each.
    """

    def __init__(self, iterable: Iterable[Batch]) -> None:
        iter_method = getattr(iterable, "__iter__", None)
        if iter_method is None and not hasattr(iterable, "__getitem__"):
            raise TypeError(
                f"make_loader returned a {type(iterable).__name__}, which is not iterable"
            )
        self.iterable: Iterable[Batch] | None = iterable
        self.first_batch = 0
        self.on_skip: Callable[[], None] | None = None

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.first_batch = first_batch
        for owner in (self.iterable, getattr(self.iterable, "sampler", None)):
            tell = getattr(owner, "set_epoch", None)
            if tell is not None:
                tell(epoch)
                return

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        assert self.iterable is not None, "the loader is closed"
        batches = iter(self.iterable)
        for _ in itertools.islice(batches, self.first_batch):
            if self.on_skip is not None:
                self.on_skip()
        return batches

    def close(self) -> None:
        self.iterable = None
        gc.collect()  # a DataLoader ends its workers when nothing refers to them any more
