"""The registry of workloads: finds entry points of the group `ctrkit.workloads` by name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ctrkit.core.config import DEFAULT_WORKLOAD, WorkloadSpec
from ctrkit.core.epochs import FIXED_COLUMNS
from ctrkit.core.errors import UsageError
from ctrkit.core.imported_files import source_fingerprint
from ctrkit.core.plugins import NoSettings, Plugin

GROUP = "ctrkit.workloads"


def is_file_target(target: str) -> bool:
    """Whether a target is a user's `FILE.py:NAME`, not the name of a plug-in."""
    return ".py:" in target


def plugin_names() -> list[str]:
    """The names of the registered workloads, sorted."""
    return sorted(_entry_points())


@cache
def find_plugin(name: str) -> Plugin:
    """The plug-in with this name.

    Raises:
        UsageError: there is none, two packages register it, or it cannot be imported.
    """
    found = _entry_points().get(name, [])
    if not found:
        raise UsageError(_unknown(name))
    if len({point.value for point in found}) > 1:
        packages = ", ".join(sorted(_package(point) for point in found))
        raise UsageError(f"--workload {name}: several packages have it ({packages}); remove one")
    point, had_torch = found[0], "torch" in sys.modules
    try:
        loaded = point.load()
        plugin = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # another package's module may raise anything
        raise UsageError(
            f"--workload {name}: {point.value} of {_package(point)} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(plugin, Plugin):
        raise UsageError(
            f"--workload {name}: {point.value} of {_package(point)} is a "
            f"{type(plugin).__name__}; it must be a ctrkit.workloads.Plugin"
        )
    plugin.name = name
    plugin.imports_torch = "torch" in sys.modules and not had_torch
    return plugin


def source_of(target: str) -> Path | None:
    """The main source file of a user's file or a plug-in; None for ctrkit's own workload."""
    if is_file_target(target):
        return Path(target.rpartition(":")[0])
    module = type(plugin_of(target)).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    is_own = module.partition(".")[0] == __name__.partition(".")[0]
    return None if is_own or file is None else Path(file)


def source_version(target: str) -> str | None:
    """Fingerprint of a workload's own source; None if there is none to read."""
    source = source_of(target)
    return None if source is None or not source.is_file() else source_fingerprint(source)


def plugin_of(target: str) -> Plugin:
    """The plug-in of a target; a default `Plugin` for a user's file or an unknown name."""
    if target in _entry_points():
        try:
            return find_plugin(target)
        except UsageError:
            pass
    bare = Plugin()
    bare.name = target
    return bare


def plugin_of_columns(columns: Iterable[str]) -> Plugin:
    """The plug-in whose metrics match these columns, for a run whose workload is unknown."""
    own = {name for name in columns if name not in FIXED_COLUMNS}
    bare = Plugin()
    for name in plugin_names():
        plugin = plugin_of(name)
        if own and own <= {metric.name for metric in plugin.metrics}:
            bare.metrics, bare.watch = plugin.metrics, plugin.watch
            break
    return bare


def plugin_and_settings(spec: WorkloadSpec) -> tuple[Plugin, Any]:
    """The plug-in of a run and its typed settings; a default `Plugin` if it is not installed."""
    plugin = plugin_of(spec.target)
    try:
        return plugin, plugin.typed(spec.settings)
    except UsageError:
        return Plugin(), NoSettings()


def title_of(spec: WorkloadSpec) -> str:
    """What distinguishes a run from others of its workload, such as its phase; may be empty."""
    plugin, settings = plugin_and_settings(spec)
    try:
        return plugin.title(settings)
    except Exception:  # a report is worth more than this name
        return ""


def settings_of(target: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, with defaults for those that an older ctrkit did not store.

    A user's file has no settings; an older ctrkit stored some of its default workload there.

    Raises:
        UsageError: the plug-in does not know some of them.
    """
    if is_file_target(target) or not values:
        return {}
    if target not in _entry_points():
        return dict(values)
    plugin = find_plugin(target)
    return plugin.plain(plugin.typed(values, f"workload {target}: settings"))


@cache
def _entry_points() -> dict[str, list[metadata.EntryPoint]]:
    found: dict[str, list[metadata.EntryPoint]] = {}
    for point in metadata.entry_points(group=GROUP):
        found.setdefault(point.name, []).append(point)
    return found


def _package(point: metadata.EntryPoint) -> str:
    return "an unknown package" if point.dist is None else str(point.dist.name)


def _unknown(name: str) -> str:
    known = plugin_names()
    if DEFAULT_WORKLOAD not in known:
        return (
            f"--workload {name}: not found, nor is ctrkit's own {DEFAULT_WORKLOAD}: install "
            "ctrkit again, with pip install (-e) and its folder, so that its workloads are known"
        )
    return (
        f"--workload {name}: there is no such workload; known are {', '.join(known)}, or write "
        "FILE.py:NAME, for example my.py:make_loader"
    )
