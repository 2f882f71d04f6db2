"""Workloads found by name, and what is known about one that is not installed."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from ctrkit.core import registry
from ctrkit.core.config import WorkloadSpec
from ctrkit.core.errors import UsageError
from ctrkit.core.plugins import Metric, Plugin
from ctrkit.core.registry import (
    find_plugin,
    plugin_names,
    plugin_of,
    plugin_of_columns,
    settings_of,
    source_of,
    title_of,
)


def point(name: str, loaded: Any, package: str = "theirs") -> Any:
    """An entry point; what it loads is a value, or an exception that loading raises."""

    def load() -> Any:
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    dist = SimpleNamespace(name=package)
    return SimpleNamespace(name=name, value=f"{package}:{name}", dist=dist, load=load)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have these entry points, and no others, for a test."""

    def register(*points: Any) -> None:
        monkeypatch.setattr(metadata, "entry_points", lambda group: list(points))
        _forget()

    yield register
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    registry._entry_points.cache_clear()
    find_plugin.cache_clear()


class Other(Plugin):
    metrics = (Metric(name="f1"), Metric(name="loss"))
    watch = ("f1", "max")


def test_our_own_is_found_as_any_other_is() -> None:
    assert "mdaf" in plugin_names()
    assert type(find_plugin("mdaf")).__module__ == "ctrkit.ctr.plugin"
    assert find_plugin("mdaf").phase_names() == ["phase1", "phase3", "phase3-revised"]
    assert source_of("mdaf") is None  # its version says which source it has


def test_a_class_or_an_object_is_a_plugin_under_the_name_of_its_entry_point(
    registered: Any,
) -> None:
    registered(point("one", Other), point("two", Other()))
    assert plugin_names() == ["one", "two"]
    assert (find_plugin("one").name, find_plugin("two").name) == ("one", "two")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([], "not found, nor is ctrkit's own mdaf: install ctrkit again"),
        (
            [point("mdaf", Other)],
            "no such workload; known are mdaf, or write FILE.py:NAME",
        ),
        ([point("x", Other, "a"), point("x", Other, "b")], r"several packages have it \(a, b\)"),
        ([point("x", ImportError("no module named y"))], "of theirs cannot be loaded: ImportError"),
        ([point("x", int)], "is a int; it must be a ctrkit.workloads.Plugin"),
    ],
)
def test_what_cannot_be_used_is_a_line(registered: Any, points: list[Any], message: str) -> None:
    registered(*points)
    with pytest.raises(UsageError, match=message):
        find_plugin("x")
    assert plugin_of("x").metric("f1").label == "f1"


def test_a_run_of_a_plugin_that_is_gone_can_be_read() -> None:
    spec = WorkloadSpec(target="gone", settings={"depth": 3})
    assert title_of(spec) == ""
    assert settings_of("gone", {"depth": 3}) == {"depth": 3}
    assert settings_of("/x/loop.py:make", {"lr": 0.1}) == {}


def test_stored_settings_get_the_defaults_of_what_was_not_stored() -> None:
    assert settings_of("mdaf", {"name": "mine", "epochs": 3})["block_rows"] == 65_536
    with pytest.raises(UsageError, match="workload mdaf: settings: unknown key 'depth'"):
        settings_of("mdaf", {"depth": 3})


def test_a_run_without_its_run_json_is_known_by_its_metrics(registered: Any) -> None:
    registered(point("one", Other))
    assert plugin_of_columns(["epoch", "rows", "f1"]).watch == ("f1", "max")
    assert plugin_of_columns(["epoch", "rows", "f1", "auc"]).watch is None
    assert plugin_of_columns(["epoch", "rows"]).watch is None
