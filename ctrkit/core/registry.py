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
    """Whether a target is a user's `FILE.py:NAME`, and no name of a plug-in."""
    return ".py:" in target


def plugin_names() -> list[str]:
    """The registered workloads, sorted."""
    return sorted(_entry_points())


@cache
def find_plugin(name: str) -> Plugin:
    """The plug-in that is registered under a name.

    Raises:
        UsageError: there is none, two packages have it, or it cannot be imported.
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
    except Exception as error:  # whatever a stranger's module raises
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
    """The file that a workload begins in: a user's own, or a plug-in's; None for ctrkit's own."""
    if is_file_target(target):
        return Path(target.rpartition(":")[0])
    module = type(plugin_of(target)).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    is_own = module.partition(".")[0] == __name__.partition(".")[0]
    return None if is_own or file is None else Path(file)


def source_version(target: str) -> str | None:
    """Fingerprint of a workload's own source, None where there is none to read."""
    source = source_of(target)
    return None if source is None or not source.is_file() else source_fingerprint(source)


def plugin_of(target: str) -> Plugin:
    """The plug-in of a target, one that knows nothing for a user's file or an unknown name."""
    if target in _entry_points():
        try:
            return find_plugin(target)
        except UsageError:
            pass
    bare = Plugin()
    bare.name = target
    return bare


def plugin_of_columns(columns: Iterable[str]) -> Plugin:
    """What is known of the metrics of a run whose workload is not known, by their names alone."""
    own = {name for name in columns if name not in FIXED_COLUMNS}
    bare = Plugin()
    for name in plugin_names():
        plugin = plugin_of(name)
        if own and own <= {metric.name for metric in plugin.metrics}:
            bare.metrics, bare.watch = plugin.metrics, plugin.watch
            break
    return bare


def plugin_and_settings(spec: WorkloadSpec) -> tuple[Plugin, Any]:
    """The plug-in of a run and its typed settings; one that knows nothing where it is not here."""
    plugin = plugin_of(spec.target)
    try:
        return plugin, plugin.typed(spec.settings)
    except UsageError:
        return Plugin(), NoSettings()


def title_of(spec: WorkloadSpec) -> str:
    """What tells a run from others of its workload, such as the name of its phase; may be empty."""
    plugin, settings = plugin_and_settings(spec)
    try:
        return plugin.title(settings)
    except Exception:  # a report is worth more than a name in it
        return ""


def settings_of(target: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings with the defaults of what an older ctrkit did not store.

    A user's file has none; an older ctrkit stored some of its default workload there.

    Raises:
        UsageError: they are none that the plug-in knows.
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
