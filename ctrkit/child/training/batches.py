"""Counts the rows of a batch of any type, or says that they cannot be counted.

A batch may be tensors in dicts, lists and objects: time-major ones, histories of different lengths
in a list, flat values with offsets. So the DataLoader is asked first what it samples, then the
sizes in the batch are looked through for the batch size that was asked for, then the commonest
first dimension counts.

Needs torch and the standard library only, and Python 3.9, since it also runs in a script's own
interpreter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

if TYPE_CHECKING:
    from ctrkit.child.workloads.protocol import Workload
    from ctrkit.core.config import Cell

_DEEPEST, _MOST_PARTS = 5, 64
#: tensors of so many dimensions in a list may be images
_IMAGE_DIMENSIONS = 3
#: more tuples, dicts or images than this in a list are rows and not fields
_MOST_FIELDS = 8
_TEXT = (str, bytes)
_OWN_COUNTS = ("num_graphs", "num_rows")
#: names of what has one entry more than there are rows
_BOUNDARIES = ("offset", "offsets", "ptr", "indptr", "row_splits", "cu_seqlens", "splits")

ROWS_UNKNOWN = (
    "how many rows a batch has is not known: its parts differ in length, and nothing says its "
    "batch size; return a DataLoader with a batch size, or have make_loader take batch_size"
)

Axis = tuple[str, int]
"""Where a size stands: path in the batch, and dimension; -1 is the length of a list."""


@dataclass(frozen=True)
class _Size:
    """`is_sure`: a first dimension, or the length of a list that has a row in each place."""

    path: str
    axis: int
    size: int
    is_sure: bool = False
    is_text: bool = False

    @property
    def key(self) -> Axis:
        return self.path, self.axis


class RowCounter:
    """Counts the rows of one loader's batches, in order.

    Args:
        loader: what gives the batches; None where they come from elsewhere.
        batch_size: that the loader was asked for, None where it does not take one.
    """

    def __init__(self, loader: Any = None, batch_size: int | None = None) -> None:
        made = getattr(loader, "iterable", loader)
        self._stock = made if isinstance(made, DataLoader) else None
        stock = self._stock if self._stock is not None else _dataloader_in(made)
        self._asked = _batch_size(stock) or batch_size
        self._axes: set[Axis] = set()
        self._taken = 0
        #: whether those of a batch were not known: then those of the epoch are not either
        self.is_unknown = False

    def begin_epoch(self, first_batch: int = 0) -> None:
        """The next batch is the first of an epoch, but for those that were left out."""
        self._taken = first_batch

    def count(self, batch: Any) -> int | None:
        """Rows of the next batch; None: not known."""
        rows = self._count(batch)
        self._taken += 1
        self.is_unknown = self.is_unknown or rows is None
        return rows

    def _count(self, batch: Any) -> int | None:
        sampled = self._sampled(self._taken)
        sizes = list(_sizes(batch, "", 0))
        if sampled is not None:
            return _unless_filtered(sampled, sizes)
        for name in _OWN_COUNTS:  # of graphs, and of tables
            if isinstance(told := getattr(batch, name, None), int):
                return told
        if self._asked is not None and (found := self._by_axes(sizes, self._asked)) is not None:
            return found
        return _commonest(sizes, batch)

    def _sampled(self, index: int) -> int | None:
        """How many rows the DataLoader samples for its batch of this number."""
        stock = self._stock
        if stock is None or isinstance(stock.dataset, IterableDataset):
            return None
        size = _batch_size(stock)
        batches: Any = stock.batch_sampler
        while isinstance(getattr(batches, "sampler", None), BatchSampler):
            batches = batches.sampler  # one that goes round for ever holds the real one like this
        sampler = getattr(batches, "sampler", None)
        if size is None or not isinstance(sampler, Sized):
            return None
        try:
            left = len(sampler) - index * size
        except (TypeError, NotImplementedError):
            return None
        return min(size, left) if left > 0 else size

    def _by_axes(self, sizes: list[_Size], asked: int) -> int | None:
        """By the places at which the batch size was found in this batch and those before it."""
        here = {one.key: one.size for one in sizes}
        if self._axes & set(here):
            self._axes &= set(here)
            counts = Counter(here[key] for key in self._axes)
            rows, votes = counts.most_common(1)[0]
            if 0 < votes < len(self._axes) and asked in counts:
                rows = asked
            self._axes = {key for key in self._axes if here[key] == rows}
            return rows
        self._axes = {one.key for one in sizes if one.size == asked and one.axis <= 0}
        if self._axes or _between(sizes, asked):
            return asked
        second = {one.path: one.size for one in sizes if one.axis == 1}
        is_time_major = any(one.axis == 2 for one in sizes) or len(second) > 1
        if second and set(second.values()) == {asked} and is_time_major:
            self._axes = {(path, 1) for path in second}
            return asked
        return None


def _dataloader_in(loader: Any) -> DataLoader[Any] | None:
    """The DataLoader inside a loader of any make."""
    if loader is None:
        return None
    from ctrkit.child.workloads.loader_parts import find_dataloader

    return find_dataloader(loader)


def row_counter(workload: Workload, cell: Cell, loader: Any) -> RowCounter:
    """The counter of a workload's loader in a cell."""
    # of several processes each has a part of the batch
    takes_it = "batch_size" in workload.axes and cell.nproc == 1
    return RowCounter(loader, cell.batch_size if takes_it else None)


def known_rows(rows: int | None) -> int:
    """The rows as a number to add up: 0 where they are not known."""
    return 0 if rows is None else rows


def _batch_size(stock: DataLoader[Any] | None) -> int | None:
    """Also of one that was made anew around a batch sampler."""
    if stock is None:
        return None
    size = stock.batch_size or getattr(stock.batch_sampler, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _unless_filtered(sampled: int, sizes: list[_Size]) -> int:
    """The rows sampled, unless all parts agree on fewer: `collate_fn` has left some out."""
    firsts = {one.size for one in sizes if one.is_sure}
    everywhere = {one.size for one in sizes}
    if len(firsts) == 1 and sampled not in everywhere and 0 < min(firsts) < sampled:
        return min(firsts)
    return sampled


def _between(sizes: list[_Size], rows: int) -> bool:
    """Whether boundaries (offsets) tell of so many rows."""
    return any(one.size == rows + 1 and one.path.rpartition(".")[2] in _BOUNDARIES for one in sizes)


def _commonest(sizes: list[_Size], batch: Any) -> int | None:
    firsts = [one for one in sizes if one.is_sure]
    firsts = [one for one in firsts if not one.is_text] or firsts
    if not firsts:
        return _rows_of_one(batch)
    votes = Counter(one.size for one in firsts).most_common()
    best = [rows for rows, count in votes if count == votes[0][1]]
    if len(best) == 1:
        return best[0]
    told = [rows for rows in best if _between(sizes, rows)]
    everywhere = Counter(one.size for one in sizes)
    most = max(everywhere[rows] for rows in best)
    told = told or [rows for rows in best if everywhere[rows] == most]
    return told[0] if len(told) == 1 else None


def _rows_of_one(batch: Any) -> int | None:
    """A number or a text is one row; an object that shows no sizes is anything."""
    if isinstance(batch, (*_TEXT, bool, int, float, complex)) or hasattr(batch, "shape"):
        return 1
    return len(batch) if isinstance(batch, (list, tuple)) else None


# ---- the sizes in a batch ------------------------------------------------------------------------


def _sizes(value: Any, path: str, depth: int) -> Iterator[_Size]:
    """Every dimension of every tensor, and the length of every list of rows."""
    shape = _shape(value)
    if shape is not None:
        yield from (_Size(path, axis, size, axis == 0) for axis, size in enumerate(shape))
        return
    if depth == _DEEPEST or value is None or isinstance(value, _TEXT):
        return
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        yield from _sizes_of_list(value, path, depth)
        return
    if hasattr(value, "_fields") and hasattr(value, "batch_sizes"):  # a PackedSequence
        yield _Size(f"{path}.batch_sizes", 0, int(value.batch_sizes[0]), True)
        return
    for name, held in islice(_members(value), _MOST_PARTS):
        yield from _sizes(held, f"{path}.{name}", depth + 1)


def _sizes_of_list(value: list[Any] | tuple[Any, ...], path: str, depth: int) -> Iterator[_Size]:
    """Of a list of fields those of each; of a list of rows its length; of what may be both, both.

    A long list of things alike has a row in each; a short one may be two views of each image.
    """
    held = value[:_MOST_PARTS]
    shapes = [_shape(one) or () for one in held]
    firsts = {shape[0] for shape in shapes if shape}
    alike = len({(type(one), len(shape)) for one, shape in zip(held, shapes)}) == 1
    if alike and not firsts and not isinstance(held[0], (Mapping, list, tuple)):
        is_text = isinstance(held[0], _TEXT)
        yield _Size(path, -1, len(value), isinstance(value, list), is_text)  # a number each, ...
        return
    if alike:
        many = len(value) > _MOST_FIELDS
        ragged = len(firsts) > 1 and (many or isinstance(value, list))
        is_rows = ragged or (many and (not firsts or len(shapes[0]) >= _IMAGE_DIMENSIONS))
        yield _Size(path, -1, len(value), is_rows)
        if is_rows:
            return
    for index, one in enumerate(held):
        yield from _sizes(one, f"{path}[{index}]", depth + 1)


def _shape(value: Any) -> tuple[int, ...] | None:
    if getattr(value, "is_nested", False):  # only its first dimension has one size
        return (int(value.size(0)),)
    shape = getattr(value, "shape", None)
    return tuple(map(int, shape)) if isinstance(shape, tuple) else None


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((str(key), held) for key, held in value.items())
    elif hasattr(value, "_fields"):
        yield from zip(value._fields, value)
    elif is_dataclass(value):
        yield from ((field.name, getattr(value, field.name, None)) for field in fields(value))
    else:
        yield from dict(getattr(value, "__dict__", None) or {}).items()
