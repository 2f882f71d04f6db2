"""Makes a workload of a user's plain `make_loader` function: a step only takes a batch."""

from __future__ import annotations

import inspect
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Workload
from ctrkit.child.workloads.returned import checked_batches
from ctrkit.core.axes import Axis
from ctrkit.core.cell import AXES, CELL_AXES
from ctrkit.core.config import Cell, RunSizes

MakeLoader = Callable[..., Iterable[Batch]]


def axes_of_signature(make_loader: MakeLoader) -> tuple[str, ...]:
    """The axes of a cell that the function's signature names; `**kwargs` takes all axes."""
    parameters = inspect.signature(make_loader).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return CELL_AXES
    return tuple(axis for axis in CELL_AXES if axis in {p.name for p in parameters})


def own_defaults(make_loader: MakeLoader) -> tuple[dict[str, Any], set[str]]:
    """The function's defaults for axes of a cell, and the axes whose default no cell can have.

    A default of None means the value that a DataLoader uses for None.
    """
    known: dict[str, Any] = {}
    unknown = set()
    for parameter in inspect.signature(make_loader).parameters.values():
        if parameter.name not in AXES or parameter.default is parameter.empty:
            continue
        value = _value_in_cell(AXES[parameter.name], parameter.default)
        if value is None:
            unknown.add(parameter.name)
        else:
            known[parameter.name] = value
    return known, unknown


def _value_in_cell(row: Axis, default: Any) -> Any:
    """The default as a cell's value; None if no cell can have it."""
    if default is None:
        of_dataloader = {"start_method": multiprocessing.get_start_method(), "prefetch": 2}
        return of_dataloader.get(row.name, False if row.kind is bool else None)
    if row.name == "device":
        default = str(default).partition(":")[0]
    fits = type(default) is row.kind and not row.problem(default, row.name)
    return default if fits else None


class CustomWorkload(Workload):
    """A workload of `make_loader(**axes)`: called once per trial, `iter()` once per epoch.

    An axis that has a default in the function keeps it, unless the user names another value. A
    loader that can be iterated only once (a generator) is made anew for each further epoch.
    """

    loaders = ("custom",)

    def __init__(
        self,
        make_loader: MakeLoader,
        name: str,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.make_loader, self.name = make_loader, name
        known, unknown = own_defaults(make_loader)
        self.axes = tuple(axis for axis in axes_of_signature(make_loader) if axis not in unknown)
        self._own, self._epochs = known, epochs
        self._batch_size = batch_size or known.get("batch_size") or super().default_batch_size()

    @property
    def own_defaults(self) -> Mapping[str, Any]:
        own = dict(self._own)
        if "batch_size" in own:
            own["batch_size"] = self._batch_size
        return own

    def default_batch_size(self) -> int:
        return self._batch_size

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=self._epochs)

    def train_loader(self, cell: Cell) -> EpochLoader:
        values = {axis: getattr(cell, axis) for axis in self.axes}
        arguments = {
            axis: value
            for axis, value in values.items()
            if axis not in self._own or (value is not None and value != self._own[axis])
        }

        def make() -> Iterable[Batch]:
            return checked_batches(self.make_loader(**arguments), self.name)

        return IterableLoader(make(), make_again=make)
