"""What a user keeps in a `state_dict` comes back as it was, or is refused before it is saved."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import types
import uuid
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.child.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.child.training.plain_state import TAG, from_plain, to_plain
from ctrkit.core.errors import UsageError


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: float
    y: Any


@dataclasses.dataclass(frozen=True)
class Best:
    epoch: int
    scores: list[np.float32]


class Settings(dict):
    """A user's own kind of dict."""


VALUES = [
    np.float32(1.5), np.float64(0.1), np.int64(2**60), np.uint64(2**64 - 1), np.bool_(True),
    np.str_("ä"), np.datetime64("2017-05-06T01:02:03"), np.complex64(1 + 2j), np.float16(0.5),
    collections.deque([1, np.float32(2)], maxlen=5), {1, 2}, frozenset({"a"}),
    collections.OrderedDict(a=np.int32(1)), collections.Counter("aab"),
    collections.defaultdict(list, a=[1]), pathlib.Path("/data/x.csv"),
    pathlib.PureWindowsPath("c:/x"), Colour.RED, Level.HIGH, Point(1.0, np.int8(2)),
    Best(3, [np.float32(0.5)]), datetime.datetime(2026, 11, 26, 1, 2, 3, 4),
    datetime.datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")), datetime.date(2026, 1, 2),
    datetime.time(1, 2), datetime.timedelta(1, 2, 3), decimal.Decimal("0.10"),
    fractions.Fraction(1, 3), uuid.UUID(int=5), range(2, 9, 3), slice(1, None),
    types.SimpleNamespace(a=1), argparse.Namespace(lr=np.float32(0.1)), 1 + 2j, b"x", None,
    {1: 2, (1, "a"): 3, Colour.RED: 4}, {TAG: "a user's own key"}, 10**40, float("inf"),
    {"nested": [({"deep": collections.deque([np.float32(1)])},)]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_with_its_type(tmp_path: pathlib.Path, value: Any) -> None:
    save_checkpoint(tmp_path / "last.pt", {"task": {"value": value}})
    found = load_checkpoint(tmp_path / "last.pt")["task"]["value"]
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, collections.deque):
        assert found.maxlen == value.maxlen
    if isinstance(value, collections.defaultdict):
        assert found.default_factory is list


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3), np.zeros((0, 3)), np.array(5.0), np.arange(3)[::2],
        np.array(["a", "bc"]), np.array([b"x"]), np.array(["2017-05-06"], "M8[D]"),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8", (1,))]), np.zeros(3, np.uint16),
        np.asfortranarray(np.arange(4.0).reshape(2, 2)), np.array([True, False]),
        np.array("", "U0"),
    ],
    ids=lambda array: str(array.dtype),
)  # fmt: skip
def test_an_array_comes_back_bit_for_bit(tmp_path: pathlib.Path, array: np.ndarray) -> None:
    save_checkpoint(tmp_path / "last.pt", {"task": {"array": array}})
    found = load_checkpoint(tmp_path / "last.pt")["task"]["array"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()
    found.flags.writeable = True
    found[...] = found  # it may be written to


def test_an_array_of_objects_comes_back(tmp_path: pathlib.Path) -> None:
    array = np.array([[1, None], ["a", np.float32(2)]], dtype=object)
    save_checkpoint(tmp_path / "last.pt", {"task": array})
    assert load_checkpoint(tmp_path / "last.pt")["task"].tolist() == array.tolist()


SIMPLE = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.text(), st.none(), st.booleans(), st.binary(),
    st.dates(), st.decimals(allow_nan=False), st.timedeltas(), st.fractions(),
)  # fmt: skip
KEYS = st.one_of(st.text(), st.integers(), st.just(TAG), st.tuples(st.integers(), st.text()))
STATES = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(KEYS, inner),
        st.lists(inner).map(collections.deque),
    ),
    max_leaves=20,
)  # fmt: skip


@given(STATES)
def test_any_nesting_comes_back(state: Any) -> None:
    assert from_plain(to_plain(state)) == state


def test_what_is_plain_is_not_copied_and_what_is_shared_stays_shared() -> None:
    model = torch.nn.BatchNorm1d(3)
    state = {"model": model.state_dict(), "many": list(range(1000)), "extra": {"a": (1, [2])}}
    assert to_plain(state) is state
    assert from_plain(state) is state
    changed = to_plain({"model": state["model"], "best": np.float32(1)})
    assert changed["model"] is state["model"]
    ordered = collections.OrderedDict(a=np.float32(1))
    ordered._metadata = {"version": 2}
    assert from_plain(to_plain(ordered))._metadata == {"version": 2}


def test_a_subclass_of_a_plain_type_comes_back_as_that_type() -> None:
    found = from_plain(to_plain({"settings": Settings(a=np.int8(1))}))
    assert found == {"settings": {"a": 1}}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (lambda: 1, "function"),
        (functools.partial(print, 1), "functools.partial"),
        (torch.nn.Linear(1, 1), "save its state_dict() instead"),
        (torch.Generator(), "save its get_state() instead"),
        (np.random.default_rng(1), "save its bit_generator.state instead"),
        (object(), "builtins.object"),
        (np.ma.masked_array([1, 2], [True, False]), "MaskedArray"),
        (iter([1]), "list_iterator"),
    ],
)
def test_what_cannot_be_saved_is_refused_by_its_place(
    tmp_path: pathlib.Path, value: object, words: str
) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"task": {"epoch": 1}})
    with pytest.raises(UsageError) as caught:
        save_checkpoint(path, {"task": {"history": [1, {"best": value}]}})
    assert str(caught.value).startswith("task['history'][1]['best']: is a ")
    assert words in str(caught.value)
    assert load_checkpoint(path)["task"] == {"epoch": 1}


def test_a_circle_is_refused() -> None:
    state: dict[str, Any] = {}
    state["self"] = [state]
    with pytest.raises(UsageError, match="contains itself"):
        to_plain(state)


def test_a_class_that_has_gone_is_named_where_its_values_do_not_stand_for_it() -> None:
    plain = to_plain({"colour": Colour.RED, "point": Point(1.0, 2)})
    for one in plain.values():
        one["module"] = "a_module_that_is_gone"
    assert from_plain(plain["point"]) == (1.0, 2)
    with pytest.raises(UsageError, match=r"a_module_that_is_gone\.Colour"):
        from_plain(plain)
