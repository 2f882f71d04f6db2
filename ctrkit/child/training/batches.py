"""Counts the rows of a batch of any type, or says that they cannot be counted.

A batch may hold tensors in dicts, lists and objects: also time-major tensors, a list of histories
of different lengths, or flat values with offsets. So the row count comes from the first of these
that gives one: what the DataLoader's sampler says, a dimension in the batch equal to the requested
batch size, the commonest first dimension.

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
#: a list of tensors with at least so many dimensions may be a list of images
_IMAGE_DIMENSIONS = 3
#: a list of more tuples, dicts or images than this is a list of rows, not of fields
_MOST_FIELDS = 8
_TEXT = (str, bytes)
_OWN_COUNTS = ("num_graphs", "num_rows")
#: names of members that have one entry more than there are rows
_BOUNDARIES = ("offset", "offsets", "ptr", "indptr", "row_splits", "cu_seqlens", "splits")

ROWS_UNKNOWN = (
    "ctrkit cannot tell how many rows a batch has, because its parts differ in length and "
    "nothing says its batch size; return a DataLoader with a batch size, or have make_loader "
    "take batch_size"
)

Axis = tuple[str, int]
"""Where a size was found: path in the batch, and dimension (-1: the length of a list)."""


@dataclass(frozen=True)
class _Size:
    """A size in a batch.

    Attributes:
        path: where in the batch, such as `.x[0]`.
        axis: the dimension; -1 is the length of a list.
        size: the number of entries.
        is_sure: it is a first dimension, or the length of a list with a row in each place.
        is_text: it is the length of a list of texts.
    """

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
        loader: gives the batches; None if they come from elsewhere.
        batch_size: the batch size that the loader was asked for; None if it takes none.
    """

    def __init__(self, loader: Any = None, batch_size: int | None = None) -> None:
        made = getattr(loader, "iterable", loader)
        self._stock = made if isinstance(made, DataLoader) else None
        stock = self._stock if self._stock is not None else _dataloader_in(made)
        self._asked = _batch_size(stock) or batch_size
        self._axes: set[Axis] = set()
        self._taken = 0
        #: whether the rows of some batch were unknown, and so those of the epoch
        self.is_unknown = False

    def begin_epoch(self, first_batch: int = 0) -> None:
        """The next batch is the first of an epoch, after `first_batch` skipped ones."""
        self._taken = first_batch

    def count(self, batch: Any) -> int | None:
        """Rows of the next batch; None if unknown."""
        rows = self._count(batch)
        self._taken += 1
        self.is_unknown = self.is_unknown or rows is None
        return rows

    def _count(self, batch: Any) -> int | None:
        sampled = self._sampled(self._taken)
        sizes = list(_sizes(batch, "", 0))
        if sampled is not None:
            return _unless_filtered(sampled, sizes)
        for name in _OWN_COUNTS:  # batches of graphs and of tables say it themselves
            if isinstance(told := getattr(batch, name, None), int):
                return told
        if self._asked is not None and (found := self._by_axes(sizes, self._asked)) is not None:
            return found
        return _commonest(sizes, batch)

    def _sampled(self, index: int) -> int | None:
        """How many rows the DataLoader samples for the batch at this index; None if unknown."""
        stock = self._stock
        if stock is None or isinstance(stock.dataset, IterableDataset):
            return None
        size = _batch_size(stock)
        batches: Any = stock.batch_sampler
        while isinstance(getattr(batches, "sampler", None), BatchSampler):
            batches = batches.sampler  # an endless batch sampler wraps the real one
        sampler = getattr(batches, "sampler", None)
        if size is None or not isinstance(sampler, Sized):
            return None
        try:
            left = len(sampler) - index * size
        except (TypeError, NotImplementedError):
            return None
        return min(size, left) if left > 0 else size

    def _by_axes(self, sizes: list[_Size], asked: int) -> int | None:
        """The rows, from the places where earlier batches had the batch size that was asked for."""
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
    """The DataLoader inside any loader; None if there is none."""
    if loader is None:
        return None
    from ctrkit.child.workloads.loader_parts import find_dataloader

    return find_dataloader(loader)


def row_counter(workload: Workload, cell: Cell, loader: Any) -> RowCounter:
    """A counter for a workload's loader in this cell."""
    # with several ranks, each one's batch is only a part of it
    takes_it = "batch_size" in workload.axes and cell.nproc == 1
    return RowCounter(loader, cell.batch_size if takes_it else None)


def known_rows(rows: int | None) -> int:
    """The rows as a number to add up: 0 if unknown."""
    return 0 if rows is None else rows


def _batch_size(stock: DataLoader[Any] | None) -> int | None:
    """The batch size, also of a DataLoader with a batch sampler; None if it has none."""
    if stock is None:
        return None
    size = stock.batch_size or getattr(stock.batch_sampler, "batch_size", None)
    return size if isinstance(size, int) and size > 0 else None


def _unless_filtered(sampled: int, sizes: list[_Size]) -> int:
    """The rows sampled, unless all parts agree on fewer: then `collate_fn` has dropped some."""
    firsts = {one.size for one in sizes if one.is_sure}
    everywhere = {one.size for one in sizes}
    if len(firsts) == 1 and sampled not in everywhere and 0 < min(firsts) < sampled:
        return min(firsts)
    return sampled


def _between(sizes: list[_Size], rows: int) -> bool:
    """Whether a member with offsets or boundaries has one entry more than so many rows."""
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
    """The rows of a batch without any size: 1 for a number or text, a list's length, else None."""
    if isinstance(batch, (*_TEXT, bool, int, float, complex)) or hasattr(batch, "shape"):
        return 1
    return len(batch) if isinstance(batch, (list, tuple)) else None


# ---- the sizes in a batch ------------------------------------------------------------------------


def _sizes(value: Any, path: str, depth: int) -> Iterator[_Size]:
    """Every dimension of every tensor in the batch, and the length of every list of rows."""
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
    """For a list of fields, the sizes of each field; for a list of rows, its length; or both.

    A long list of similar things has a row in each place. A short one may hold two views of each
    image. If a list may be either, both are yielded.
    """
    held = value[:_MOST_PARTS]
    shapes = [_shape(one) or () for one in held]
    firsts = {shape[0] for shape in shapes if shape}
    alike = len({(type(one), len(shape)) for one, shape in zip(held, shapes)}) == 1
    if alike and not firsts and not isinstance(held[0], (Mapping, list, tuple)):
        is_text = isinstance(held[0], _TEXT)
        yield _Size(path, -1, len(value), isinstance(value, list), is_text)  # numbers or texts
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
