"""Converts state to values that `torch.load(weights_only=True)` can read, and back.

NumPy values and the standard library's plain containers come back with their types and values. So
do enums, named tuples and data classes, if their class is loaded. A subclass of a plain type comes
back as that type. A value that cannot be converted is refused, with its place in the state, before
anything is saved. Reading a state imports nothing and runs no code of the workload.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import sys
import types
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ctrkit.core.errors import UsageError

#: The key that marks a mapping as the stand-in of another value.
TAG = "__ctrkit__"
_ATOMS = (type(None), bool, int, float, complex, str, bytes, bytearray)
_TORCH = (torch.Tensor, torch.Size, torch.dtype, torch.device, torch.layout)
_BASES: tuple[Any, ...] = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    bytearray,
    dict,
    list,
    tuple,
    set,
    frozenset,
)
_FACTORIES = {kind.__name__: kind for kind in (int, float, str, list, dict, set, tuple, bool)}
_SAMPLE = 60

Walk = Callable[[Any, str], Any]


def to_plain(state: Any, name: str = "state") -> Any:
    """The state, with a stand-in for each value that `torch.load` would refuse.

    Values that are plain already are not copied.

    Args:
        state: a `state_dict()`.
        name: what to call it in the message.

    Raises:
        UsageError: a value cannot be converted; the message says where, of what type, and what to
            do.
    """
    return _Plain().walk(state, name)


def from_plain(state: Any) -> Any:
    """The state that `to_plain` was given.

    Raises:
        UsageError: the class of an enum or data class in it is not loaded.
    """
    kind = type(state)
    if kind is dict:
        if TAG in state:
            return _DECODE[state[TAG]](state)
        return _same_or(state, {key: from_plain(value) for key, value in state.items()})
    if kind in (list, tuple):
        return _same_or(state, kind([from_plain(value) for value in state]))
    if kind is collections.OrderedDict:
        return _ordered(state, {key: from_plain(value) for key, value in state.items()})
    return state


class _Plain:
    """One walk through a state. It remembers its path, to find circular references."""

    def __init__(self) -> None:
        self._above: set[int] = set()

    def walk(self, value: Any, place: str) -> Any:
        kind = type(value)
        if kind in _ATOMS or isinstance(value, _TORCH):
            return value
        if id(value) in self._above:
            raise UsageError(f"{place}: contains itself, so it cannot be saved; leave that out")
        self._above.add(id(value))
        try:
            return self._of(value, kind, place)
        finally:
            self._above.discard(id(value))

    def _of(self, value: Any, kind: type, place: str) -> Any:
        if kind in (dict, collections.OrderedDict, collections.Counter):
            return self._mapping(value, kind, place)
        if kind in (list, tuple):
            if all(type(item) in _ATOMS for item in value):  # a fast path for long lists of numbers
                return value
            return _same_or(value, kind(self._items(value, place)))
        if kind in (set, frozenset):
            return {TAG: kind.__name__, "items": self._items(value, place)}
        for known, encode in _ENCODE:
            if isinstance(value, known):
                return encode(value, self.walk, place)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._named("named tuple", value, self._items(value, place))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            return self._named("data class", value, self.walk(fields, place))
        for base in _BASES:  # of an unknown subclass, the values at least
            if isinstance(value, base):
                return self.walk(base(value), place)
        raise _refusal(value, place)

    def _items(self, values: Any, place: str) -> list[Any]:
        return [self.walk(value, f"{place}[{number}]") for number, value in enumerate(values)]

    def _mapping(self, values: Mapping[Any, Any], kind: type, place: str) -> Any:
        items = [
            (self.walk(key, f"a key of {place}"), self.walk(value, f"{place}[{key!r}]"))
            for key, value in values.items()
        ]
        has_plain_keys = all(a is b for (a, _), b in zip(items, values, strict=True))
        if TAG in values or not has_plain_keys or kind is collections.Counter:
            return {TAG: kind.__name__, "items": [list(pair) for pair in items]}
        if kind is collections.OrderedDict:
            return _ordered(values, dict(items))
        return _same_or(values, dict(items))

    def _named(self, tag: str, value: Any, fields: Any) -> dict[str, Any]:
        kind = type(value)
        return {TAG: tag, "module": kind.__module__, "name": kind.__qualname__, "fields": fields}


def _same_or(before: Any, after: Any) -> Any:
    """`before` if nothing of it changed, else `after`; so shared objects stay shared."""
    old = before.values() if isinstance(before, dict) else before
    new = after.values() if isinstance(after, dict) else after
    return before if all(a is b for a, b in zip(old, new, strict=True)) else after


def _ordered(before: Any, after: Mapping[Any, Any]) -> Any:
    """An OrderedDict with the attributes that torch adds to a module's `state_dict`."""
    if all(a is b for a, b in zip(before.values(), after.values(), strict=True)):
        return before
    made = collections.OrderedDict(after)
    made.__dict__.update(before.__dict__)
    return made


def _refusal(value: Any, place: str) -> UsageError:
    kind = type(value)
    try:
        sample = " ".join(repr(value).split())[:_SAMPLE]
    except Exception:  # a user's own repr may raise anything
        sample = "..."
    if isinstance(value, torch.nn.Module | torch.optim.Optimizer) or hasattr(value, "state_dict"):
        advice = "save its state_dict() instead"
    elif isinstance(value, torch.Generator):
        advice = "save its get_state() instead"
    elif isinstance(value, np.random.Generator):
        advice = "save its bit_generator.state instead"
    elif callable(value):
        advice = "leave it out, or save its name"
    else:
        advice = "leave it out, or save its numbers: a tensor, an array, a dict, a list"
    return UsageError(
        f"{place}: is a {kind.__module__}.{kind.__qualname__} ({sample}), which a checkpoint "
        f"cannot hold so that it can be loaded again without running code; {advice}"
    )


# ---- values that are not containers --------------------------------------------------------------


def _array(value: Any, walk: Walk, place: str) -> dict[str, Any]:
    """A stand-in for an array of any dtype but object, by its bytes; a scalar is a 0-d array."""
    is_array = isinstance(value, np.ndarray)
    if is_array and type(value) not in (np.ndarray, np.memmap, np.recarray):
        # a subclass may hold more than its numbers, as a masked array does
        raise _refusal(value, place)
    tag, array = "array" if is_array else "scalar", np.asarray(value)
    if array.dtype.hasobject:
        items = [walk(item, f"{place}[{number}]") for number, item in enumerate(array.ravel())]
        return {TAG: "object array", "shape": list(array.shape), "items": items}
    kind = array.dtype.str if array.dtype.names is None else array.dtype.descr
    data = (
        torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8)
        if array.nbytes
        else (torch.empty(0, dtype=torch.uint8))
    )
    return {TAG: tag, "dtype": kind, "shape": list(array.shape), "bytes": data}


def _array_again(plain: Mapping[str, Any]) -> Any:
    kind = plain["dtype"]
    dtype = np.dtype(kind if isinstance(kind, str) else [_field(one) for one in kind])
    array = np.ndarray(tuple(plain["shape"]), dtype, bytearray(plain["bytes"].numpy().tobytes()))
    return array if plain[TAG] == "array" else array[()]


def _field(described: Any) -> tuple[Any, ...]:
    """A field of a structured dtype, and the fields nested in it."""
    name, kind, *shape = described
    kind = kind if isinstance(kind, str) else [_field(one) for one in kind]
    return (name, kind, *map(tuple, shape))


def _objects_again(plain: Mapping[str, Any]) -> Any:
    array = np.empty(len(plain["items"]), dtype=object)
    for number, item in enumerate(plain["items"]):
        array[number] = from_plain(item)
    return array.reshape(tuple(plain["shape"]))


def _deque(value: Any, walk: Walk, place: str) -> dict[str, Any]:
    items = [walk(item, f"{place}[{number}]") for number, item in enumerate(value)]
    return {TAG: "deque", "items": items, "maxlen": value.maxlen}


def _defaultdict(value: Any, walk: Walk, place: str) -> dict[str, Any]:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and _FACTORIES.get(name) is not factory:
        # a factory is code, which no checkpoint holds; the values come back all the same
        name = None
    items = [
        [walk(key, f"a key of {place}"), walk(item, f"{place}[{key!r}]")]
        for key, item in value.items()
    ]
    return {TAG: "defaultdict", "items": items, "factory": name}


def _as_text(tag: str) -> Callable[[Any, Walk, str], dict[str, Any]]:
    return lambda value, walk, place: {TAG: tag, "text": _TEXT[tag](value)}


_TEXT: dict[str, Callable[[Any], str]] = {
    "datetime": lambda value: value.isoformat(),
    "date": lambda value: value.isoformat(),
    "time": lambda value: value.isoformat(),
    "decimal": str,
    "fraction": str,
    "uuid": str,
}

# The first match counts: a datetime is also a date, and a NumPy float is a float.
_ENCODE: tuple[tuple[Any, Callable[[Any, Walk, str], Any]], ...] = (
    ((np.ndarray, np.generic), _array),
    (enum.Enum, lambda value, walk, place: {
        TAG: "enum", "module": type(value).__module__, "name": type(value).__qualname__,
        "member": value.name, "value": walk(value.value, place),
    }),
    (collections.deque, _deque),
    (collections.defaultdict, _defaultdict),
    (pathlib.PurePath, lambda value, walk, place: {
        TAG: "path", "text": str(value),
        "name": "Path" if isinstance(value, pathlib.Path) else type(value).__name__,
    }),
    (datetime.datetime, _as_text("datetime")),
    (datetime.date, _as_text("date")),
    (datetime.time, _as_text("time")),
    (datetime.timedelta, lambda value, walk, place: {
        TAG: "timedelta", "parts": [value.days, value.seconds, value.microseconds]
    }),
    (decimal.Decimal, _as_text("decimal")),
    (fractions.Fraction, _as_text("fraction")),
    (uuid.UUID, _as_text("uuid")),
    ((range, slice), lambda value, walk, place: {
        TAG: type(value).__name__, "parts": [value.start, value.stop, value.step]
    }),
    (types.SimpleNamespace, lambda value, walk, place: {
        TAG: "namespace", "fields": walk(vars(value), place)
    }),
    (argparse.Namespace, lambda value, walk, place: {
        TAG: "arguments", "fields": walk(vars(value), place)
    }),
    (types.MappingProxyType, lambda value, walk, place: walk(dict(value), place)),
    (collections.UserDict, lambda value, walk, place: walk(dict(value), place)),
)  # fmt: skip


# ---- and back ------------------------------------------------------------------------------------


def _items_again(plain: Mapping[str, Any]) -> list[Any]:
    return [from_plain(item) for item in plain["items"]]


def _pairs_again(plain: Mapping[str, Any]) -> dict[Any, Any]:
    return {from_plain(key): from_plain(value) for key, value in plain["items"]}


def _class_of(plain: Mapping[str, Any]) -> type[Any] | None:
    """The class of this name; None if its module is not loaded, since nothing is imported."""
    found: Any = sys.modules.get(plain["module"])
    for part in plain["name"].split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) else None


def _enum_again(plain: Mapping[str, Any]) -> Any:
    kind = _class_of(plain)
    if kind is not None and issubclass(kind, enum.Enum) and plain["member"] in kind.__members__:
        return kind[plain["member"]]
    raise _missing(plain, f"has no member {plain['member']} here")


def _tuple_again(plain: Mapping[str, Any]) -> Any:
    """The named tuple, or an equal plain tuple if its class is not loaded."""
    fields, kind = [from_plain(value) for value in plain["fields"]], _class_of(plain)
    if (
        kind is None
        or not issubclass(kind, tuple)
        or len(getattr(kind, "_fields", ())) != len(fields)
    ):
        return tuple(fields)
    return tuple.__new__(kind, fields)


def _dataclass_again(plain: Mapping[str, Any]) -> Any:
    fields, kind = from_plain(plain["fields"]), _class_of(plain)
    if kind is None or not dataclasses.is_dataclass(kind):
        raise _missing(plain, "is not there any more")
    made: Any = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


def _missing(plain: Mapping[str, Any], problem: str) -> UsageError:
    return UsageError(
        f"the checkpoint holds a {plain['module']}.{plain['name']}, which {problem}; go on with "
        "the workload's file as it was when the run was started"
    )


_DECODE: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "array": _array_again,
    "scalar": _array_again,
    "object array": _objects_again,
    "dict": _pairs_again,
    "OrderedDict": lambda plain: collections.OrderedDict(_pairs_again(plain)),
    "Counter": lambda plain: collections.Counter(_pairs_again(plain)),
    "defaultdict": lambda plain: collections.defaultdict(
        _FACTORIES.get(plain["factory"] or ""), _pairs_again(plain)
    ),
    "set": lambda plain: set(_items_again(plain)),
    "frozenset": lambda plain: frozenset(_items_again(plain)),
    "deque": lambda plain: collections.deque(_items_again(plain), plain["maxlen"]),
    "named tuple": _tuple_again,
    "data class": _dataclass_again,
    "enum": _enum_again,
    "path": lambda plain: getattr(pathlib, plain["name"])(plain["text"]),
    "datetime": lambda plain: datetime.datetime.fromisoformat(plain["text"]),
    "date": lambda plain: datetime.date.fromisoformat(plain["text"]),
    "time": lambda plain: datetime.time.fromisoformat(plain["text"]),
    "timedelta": lambda plain: datetime.timedelta(*plain["parts"]),
    "decimal": lambda plain: decimal.Decimal(plain["text"]),
    "fraction": lambda plain: fractions.Fraction(plain["text"]),
    "uuid": lambda plain: uuid.UUID(plain["text"]),
    "range": lambda plain: range(*plain["parts"]),
    "slice": lambda plain: slice(*plain["parts"]),
    "namespace": lambda plain: types.SimpleNamespace(**from_plain(plain["fields"])),
    "arguments": lambda plain: argparse.Namespace(**from_plain(plain["fields"])),
}
