"""Checks what a user's `make_loader` returned, and says in one line what it should return.

Python can iterate almost anything: a data set yields single rows, a dict its keys, a tuple of
loaders the loaders. Without this check, their number and speed would look like those of batches.
"""

from __future__ import annotations

import inspect
import io
from collections import deque
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ctrkit.child.workloads.loader_parts import find_dataloader
from ctrkit.child.workloads.protocol import Batch
from ctrkit.core.errors import UsageError

_WRAP = "DataLoader({}, batch_size=batch_size, num_workers=workers)"
_COLLECTIONS = (tuple, list, set, frozenset, deque, KeysView, ValuesView, ItemsView)
_TRAIN_WORDS = ("train", "fit")
_MOST_NAMED = 6


class NotBatchesError(UsageError):
    """`make_loader` returned something that yields no batches; `value` is what it returned."""

    def __init__(self, message: str, value: Any) -> None:
        super().__init__(message)
        self.value = value


def checked_batches(value: Any, name: str = "make_loader") -> Iterable[Batch]:
    """The value, if it looks like an iterable of batches without taking one.

    Raises:
        NotBatchesError: one line on what came and what to return instead.
    """
    problem = _problem(value)
    if problem:
        raise NotBatchesError(f"{name} returned {problem}", value)
    found: Iterable[Batch] = value
    return found


class UsedUpError(NotBatchesError):
    """There is no further epoch, because the loader can be iterated only once."""


def check_batch(batch: Any) -> None:
    """Check the first batch: what an iterator yields is known only then.

    Raises:
        NotBatchesError: it is a loader or a data set.
    """
    if isinstance(batch, (DataLoader, Dataset)):
        raise NotBatchesError(
            f"the loader's first batch is a {type(batch).__name__}: return one loader, "
            "not an iterable of them",
            batch,
        )


def is_iterator(value: Any) -> bool:
    """Whether it can be iterated only once: a generator, a zip, what `iter()` returns.

    A loader whose `__iter__` resets itself and returns itself begins anew each time.
    """
    if not isinstance(value, Iterator) or iter(value) is not value:
        return False
    code = getattr(type(value).__iter__, "__code__", None)
    return code is None or not code.co_names  # code that uses no name can only return itself


def _problem(value: Any) -> str:
    """What the value is and what to return instead; empty for batches."""
    for look in (_plain, _of_torch, _of_several, _data_set, _table, _by_index, _other):
        if problem := look(value):
            return problem
    return ""


def _plain(value: Any) -> str:
    if value is None:
        return "None: end it with `return` and the loader"
    if isinstance(value, (str, bytes)):
        return f"the text {str(value)[:60]!r}: return a loader that reads what it names"
    if isinstance(value, type):
        return f"the class {value.__name__} itself: make one, `{value.__name__}(...)`"
    if inspect.iscoroutine(value) or hasattr(value, "__aiter__"):
        if hasattr(value, "close") and inspect.iscoroutine(value):
            value.close()
        return f"{_a(type(value).__name__)}: it must be a plain function, without `async`"
    if inspect.isroutine(value) or (callable(value) and not hasattr(value, "__iter__")):
        called = getattr(value, "__name__", type(value).__name__)
        return f"the function {called} itself: call it, `return {called}()`"
    return ""


def _of_torch(value: Any) -> str:
    """The problem with a sampler, a model or an open file: their items are no batches."""
    name = type(value).__name__
    if isinstance(value, Sampler) and not _holds_loader(value):
        return (f"a Sampler ('{name}'), which gives indices: hand it to a DataLoader, "
                "`return DataLoader(dataset, sampler=...)` or `batch_sampler=...`")  # fmt: skip
    if isinstance(value, torch.nn.Module):
        return f"a model ('{name}'): return the loader that it is trained with"
    if isinstance(value, io.IOBase):
        return f"an open file ('{name}'), which gives lines: return a loader that reads it"
    return ""


def _of_several(value: Any) -> str:
    """The problem with a tuple, list or dict of loaders, data sets or tensors."""
    if isinstance(value, Mapping):
        names = [f"[{key!r}]" for key in value]
        held = list(value.values())
    elif isinstance(value, _COLLECTIONS):
        held = list(value)
        fields = getattr(value, "_fields", ())
        names = [f".{field}" for field in fields] or [f"[{index}]" for index in range(len(held))]
    else:
        return ""
    kinds = [_kind(one) for one in held]
    what = f"{_a(type(value).__name__)} of {_counted(kinds)}" if held else "nothing in it"
    loaders = [n for n, kind in zip(names, kinds, strict=True) if kind.endswith("DataLoader")]
    if loaders:
        return f"{what}: return one alone, the loader to train with ({_to_train_with(loaders)})"
    if any(kind.startswith("Dataset") for kind in kinds):
        sets = [n for n, kind in zip(names, kinds, strict=True) if kind.startswith("Dataset")]
        place = _to_train_with(sets)
        return (f"{what}: wrap the one to train with ({place}) and return that, "
                f"`return {_WRAP.format('dataset')}`")  # fmt: skip
    if isinstance(value, Mapping):
        return (f"{what}: a dict is one batch at most, and iterating it gives its keys; return "
                "an iterable of batches")  # fmt: skip
    arrays = [one for one in held if isinstance(one, (torch.Tensor, np.ndarray))]
    if isinstance(value, tuple) and len(arrays) == len(held) and not _are_splits(arrays):
        return (f"{what}: these are whole columns and not batches; `return "
                f"{_WRAP.format('TensorDataset(...)')}`")  # fmt: skip
    return ""


def _kind(value: Any) -> str:
    """What one of several values is, in a word or two."""
    if isinstance(value, DataLoader):
        return "DataLoader"
    if _is_data_set(value):
        return f"Dataset ({type(value).__name__})"
    name = type(value).__name__
    return f"{name} with a DataLoader" if _holds_loader(value) else name


def _counted(kinds: list[str]) -> str:
    if len(set(kinds)) == 1:
        if " " in kinds[0]:
            return f"{len(kinds)} parts, each {_a(kinds[0])}"
        return f"{len(kinds)} {kinds[0]}{'s' * (len(kinds) > 1)}"
    more = f" and {len(kinds) - _MOST_NAMED} more" if len(kinds) > _MOST_NAMED else ""
    return ", ".join(kinds[:_MOST_NAMED]) + more


def _to_train_with(places: list[str]) -> str:
    named = (place for place in places if any(word in place.lower() for word in _TRAIN_WORDS))
    return f"its {next(named, places[0])}"


def _are_splits(arrays: list[Any]) -> bool:
    """Whether they look like batches of one table: alike except for a shorter last one."""
    alike = len({(str(one.dtype), tuple(one.shape[1:])) for one in arrays}) == 1
    lengths = [one.shape[0] if one.ndim else 0 for one in arrays]
    steady = all(a == b for a, b in pairwise(lengths[:-1])) and lengths[-1] <= lengths[0]
    return len(arrays) > 2 and alike and steady


def _is_data_set(value: Any) -> bool:
    if isinstance(value, Dataset):
        return not _holds_loader(value)
    # Hugging Face's data sets are no subclass of torch's
    return type(value).__module__.partition(".")[0] == "datasets" and hasattr(value, "__iter__")


def _data_set(value: Any) -> str:
    if not _is_data_set(value):
        return ""
    name = type(value).__name__
    if isinstance(value, IterableDataset):
        return (f"a Dataset ('{name}'), which gives rows and not batches: wrap it in a DataLoader, "
                f"`return {_WRAP.format('dataset')}`; one that makes its batches itself: "
                "`DataLoader(dataset, batch_size=None)`")  # fmt: skip
    return (f"a Dataset ('{name}'), not batches: wrap it in a DataLoader, "
            f"`return {_WRAP.format('dataset')}`")  # fmt: skip


def _table(value: Any) -> str:
    """The problem with a tensor, array or table: iterating it yields rows or column names."""
    shape = getattr(value, "shape", None)
    if not isinstance(shape, (tuple, torch.Size)):
        return ""
    size = " x ".join(str(one) for one in shape)
    return (f"{_a(type(value).__name__)} of {size or 'one value'}, not batches of it: "
            f"`return {_WRAP.format('TensorDataset(...)')}`")  # fmt: skip


def _by_index(value: Any) -> str:
    if hasattr(value, "__iter__") or not hasattr(value, "__getitem__"):
        return ""
    name = type(value).__name__
    return (f"{_a(name)}, which gives single items by index and has no `__iter__`: wrap it in a "
            f"DataLoader, `return {_WRAP.format('dataset')}`; where each item is a batch: "
            "`DataLoader(dataset, batch_size=None)`")  # fmt: skip


def _other(value: Any) -> str:
    if hasattr(value, "__iter__"):
        return ""
    name = _a(type(value).__name__)
    if callable(getattr(value, "train_dataloader", None)):
        return f"{name}, which is not iterable: return its `train_dataloader()`"
    held = [key for key, one in vars(value).items() if _holds_loader(one)] if hasattr(
        value, "__dict__") else []  # fmt: skip
    if held:
        trained = next((key for key in held if any(w in key.lower() for w in _TRAIN_WORDS)),
                       held[0])  # fmt: skip
        return (f"{name}, which is not iterable but holds {', '.join(held)}: "
                f"return the loader to train with, its `.{trained}`")  # fmt: skip
    return f"{name}, which is not iterable: return a DataLoader or another iterable of batches"


def _holds_loader(value: Any) -> bool:
    # compare with None: a loader of a stream has no length, so no truth value
    return find_dataloader(value) is not None


def _a(name: str) -> str:
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return f"{article} {name}"
