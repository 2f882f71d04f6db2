"""A user's plain `make_loader` function as a workload: a step is only taking a batch."""

from __future__ import annotations

import gc
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator

from ctrkit.child.workloads.loader_parts import tell_epoch
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Workload
from ctrkit.child.workloads.returned import NotBatchesError, checked_batches, is_iterator
from ctrkit.core.config import CELL_AXES, Cell, RunSizes

MakeLoader = Callable[..., Iterable[Batch]]


def axes_of_signature(make_loader: MakeLoader) -> tuple[str, ...]:
    """The axes of a cell that the function's signature names; `**kwargs` takes all of them."""
    parameters = inspect.signature(make_loader).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return CELL_AXES
    return tuple(axis for axis in CELL_AXES if axis in {p.name for p in parameters})


class CustomWorkload(Workload):
    """Loaders by `make_loader(**axes)`, called once per trial, `iter()` once per epoch.

    What can be iterated once only (a generator) is made anew for each further epoch.
    """

    loaders = ("custom",)

    def __init__(
        self, make_loader: MakeLoader, name: str, *, epochs: int = 15, batch_size: int = 2048
    ) -> None:
        self.make_loader, self.name = make_loader, name
        self.axes = axes_of_signature(make_loader)
        self._epochs, self._batch_size = epochs, batch_size

    def default_batch_size(self) -> int:
        return self._batch_size

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=self._epochs)

    def train_loader(self, cell: Cell) -> EpochLoader:
        arguments = {axis: getattr(cell, axis) for axis in self.axes}

        def make() -> Iterable[Batch]:
            return checked_batches(self.make_loader(**arguments), self.name)

        return IterableLoader(make(), make_again=make)


class IterableLoader:
    """Any iterable as an `EpochLoader`; it, its samplers and its data set are told the epoch.

    It can only be brought forward by taking batches: `iter` takes those before `first_batch`, and
    calls `on_skip` for each.

    Args:
        iterable: gives batches; what gives something else is a `NotBatchesError`.
        make_again: makes it anew for a further epoch where it can be iterated once only.
    """

    def __init__(
        self, iterable: Iterable[Batch], make_again: Callable[[], Iterable[Batch]] | None = None
    ) -> None:
        self.iterable: Iterable[Batch] | None = checked_batches(iterable)
        self.first_batch = 0
        self.on_skip: Callable[[], None] | None = None
        self._make_again, self._is_used = make_again, False

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.first_batch = first_batch
        if self._is_used and is_iterator(self.iterable):
            self._begin_anew()
        tell_epoch(self.iterable, epoch)

    def _begin_anew(self) -> None:
        used, self.iterable = self.iterable, None
        kind = type(used).__name__
        made = None if self._make_again is None else self._make_again()
        if made is None or made is used:
            raise NotBatchesError(
                f"make_loader returned a {kind} that was made before, which can be iterated once "
                "only: there is no further epoch; make it inside make_loader, or return a "
                "DataLoader, a list or an object with `__iter__`",
                used,
            )
        self.iterable = made

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        assert self.iterable is not None, "the loader is closed"
        self._is_used = True
        batches = iter(self.iterable)
        for _ in itertools.islice(batches, self.first_batch):
            if self.on_skip is not None:
                self.on_skip()
        return batches

    def close(self) -> None:
        self.iterable = None
        gc.collect()  # a DataLoader ends its workers when nothing refers to them any more
