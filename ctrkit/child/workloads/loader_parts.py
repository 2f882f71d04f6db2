"""Finds the DataLoader inside any loader, and tells the parts of a loader the epoch.

A user's loader may be any object that holds a DataLoader somewhere. The search looks into
attributes, lists, tuples and mappings, a few levels deep. It calls nothing but `set_epoch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader

_DEEPEST = 8
_MOST_ITEMS, _MOST_OBJECTS = 16, 500
_DATALOADER_PARTS = ("sampler", "batch_sampler", "dataset")
_OPAQUE = (
    type, ModuleType, FunctionType, MethodType, torch.Tensor, torch.nn.Module, str, bytes, int,
    float, complex, range, type(None),
)  # fmt: skip
#: packages whose objects are data, and are not searched
_DATA_PACKAGES = ("numpy", "pandas", "pyarrow", "polars")


def find_dataloader(value: Any) -> DataLoader[Any] | None:
    """The value, if it is a DataLoader, else the nearest one that it holds; None without any."""
    return next((one for one in _walk(value) if isinstance(one, DataLoader)), None)


def tell_epoch(loader: Any, epoch: int) -> None:
    """Call `set_epoch` once on each part that has it: the loader, its samplers, its data set.

    The outermost comes first. If it passes the epoch on to another part, that part is not told
    again.
    """
    owners = [one for one in _walk(loader) if _takes_epoch(one)]
    told: set[int] = set()
    for index, owner in enumerate(owners):
        if id(owner) in told:
            continue
        with _noted(owners[index + 1 :], told):
            owner.set_epoch(epoch)


def untold_data_set(loader: Any) -> str | None:
    """The type name of a data set whose copies in persistent workers no `set_epoch` reaches."""
    stock = find_dataloader(loader)
    if stock is None or not stock.num_workers or not stock.persistent_workers:
        return None
    return told_data_set(stock) or None


def told_data_set(stock: DataLoader[Any]) -> str:
    """The type name of the data set, or of one inside it, with a `set_epoch`; empty if none has."""
    return next((type(one).__name__ for one in _walk(stock.dataset) if _takes_epoch(one)), "")


def _takes_epoch(value: Any) -> bool:
    # Not by getattr: an object whose `__getattr__` passes on to the wrapped one would be told
    # twice.
    own = getattr(value, "__dict__", None) or {}
    return callable(own.get("set_epoch", getattr(type(value), "set_epoch", None)))


@contextmanager
def _noted(owners: list[Any], told: set[int]) -> Iterator[None]:
    """Within this context, `told` gets the ids of owners whose `set_epoch` is called."""
    watched = [one for one in owners if "set_epoch" not in (getattr(one, "__dict__", None) or ())]
    watched = [one for one in watched if hasattr(one, "__dict__")]

    def noting(owner: Any, own: Callable[..., Any]) -> Callable[..., Any]:
        def set_epoch(*arguments: Any, **named: Any) -> Any:
            told.add(id(owner))
            return own(*arguments, **named)

        return set_epoch

    for one in watched:
        vars(one)["set_epoch"] = noting(one, one.set_epoch)
    try:
        yield
    finally:
        for one in watched:
            vars(one).pop("set_epoch", None)


def _walk(value: Any) -> Iterator[Any]:
    """The value and everything that it holds, level by level, each object once."""
    waiting, seen = deque([(value, 0)]), {id(value)}
    while waiting and len(seen) < _MOST_OBJECTS:
        one, depth = waiting.popleft()
        yield one
        if depth < _DEEPEST:
            for held in _held(one):
                if id(held) not in seen and not _is_opaque(held):
                    seen.add(id(held))
                    waiting.append((held, depth + 1))


def _is_opaque(value: Any) -> bool:
    package = type(value).__module__.partition(".")[0]
    return isinstance(value, _OPAQUE) or package in _DATA_PACKAGES


def _held(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())[:_MOST_ITEMS]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)[:_MOST_ITEMS]
    attributes = dict(getattr(value, "__dict__", None) or {})
    if isinstance(value, DataLoader):
        # Attributes with an underscore are torch's; one of them is the iterator with its copies.
        own = [held for name, held in attributes.items() if name[0] != "_"]
        return [*(getattr(value, name, None) for name in _DATALOADER_PARTS), *own]
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*attributes.values(), *(getattr(value, name, None) for name in slots)]
