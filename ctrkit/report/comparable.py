"""Decides whether two runs can be compared, what differs between them, and what to beware of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.command_line import without_secrets
from ctrkit.core.errors import UsageError
from ctrkit.core.records import RunInfo
from ctrkit.core.registry import is_file_target, plugin_of
from ctrkit.core.units import format_bytes, format_count
from ctrkit.report.contents import RunContents
from ctrkit.report.incidents import moved_words
from ctrkit.report.words import clean

_HARDWARE = ("system", "machine", "processor", "physical_cores", "logical_cores")


@dataclass(frozen=True)
class Change:
    """Something that differs between the runs; a side that lacks it is empty."""

    what: str
    base: str
    new: str


def check_comparable(base: RunContents, new: RunContents) -> None:
    """Check that a ratio of the two runs is meaningful.

    Raises:
        UsageError: command, workload, data or phase differ; the message says which.
    """
    for reason in _reasons(base.info, new.info):
        raise UsageError(f"--compare: {base.path} and {new.path} are not comparable: {reason}")


def changes(base: RunContents, new: RunContents) -> list[Change]:
    """What differs in machine, versions, variables, devices, workload and cell."""
    was, now = dict(_described(base.info)), dict(_described(new.info))
    return [
        Change(what, was.get(what, ""), now.get(what, ""))
        for what in dict.fromkeys((*was, *now))
        if was.get(what, "") != now.get(what, "")
    ]


def cautions(base: RunContents, new: RunContents) -> Iterator[str]:
    """Sentences on other possible causes of the ratio, and on its uncertainty."""
    was, now = base.info, new.info
    machines = [_group(info, "machine") for info in (was, now)]
    if any(machines[0].get(key) != machines[1].get(key) for key in _HARDWARE):
        yield "The machines differ, so the ratio compares them, too."
    torches = [str(_group(info, "versions").get("torch", "")) for info in (was, now)]
    if torches[0] != torches[1]:
        yield f"torch differs: {_or_unknown(torches[0])} against {_or_unknown(torches[1])}."
    if is_file_target(was.workload.target) and was.workload_fingerprint != now.workload_fingerprint:
        yield "The workload's file is a different one, or it was changed."
    if not (was.data_fingerprint and now.data_fingerprint):
        yield "ctrkit cannot tell whether both used the same data: a fingerprint is missing."
    if was.command == "train" and was.cell != now.cell:
        yield "The two ran with different configurations."
    horizons = [info.workload.settings.get("epochs") for info in (was, now)]
    if horizons[0] != horizons[1] and was.command == "train":
        yield (
            "The runs plan different numbers of epochs, so their metrics in the same epoch may "
            "differ."
        )
    for name, run in (("base", base), ("new", new)):
        if run.info.status != "done":
            yield f"The {name} run is not finished: {clean(run.info.status, 40)}."
        if moved := moved_words(run.incidents):
            yield f"The {name} run: {moved}."
        yield from (f"The {name} run: {clean(line)}" for line in run.missing)


def _reasons(base: RunInfo, new: RunInfo) -> Iterator[str]:
    """Reasons why the two cannot be compared; empty if they can."""
    if base.command != new.command:
        yield f"a {clean(base.command, 20)} and a {clean(new.command, 20)}; name two of a kind"
    if _workload_name(base) != _workload_name(new):
        yield (
            f"other workload, {clean(base.workload.target)} against "
            f"{clean(new.workload.target)}; give both the same one"
        )
    yield from _phase_reasons(base, new)
    was, now = base.data_fingerprint, new.data_fingerprint
    if was and now and was != now:
        yield (
            f"other data, fingerprint {clean(was, 40)} ({_data_words(base)}) against "
            f"{clean(now, 40)} ({_data_words(new)}); give both the same --data"
        )
    rows = [info.sizes.train_rows if info.sizes else None for info in (base, new)]
    if None not in rows and rows[0] != rows[1]:
        yield f"other data, {format_count(rows[0])} training rows against {format_count(rows[1])}"


def _phase_reasons(base: RunInfo, new: RunInfo) -> Iterator[str]:
    was, now, free = base.workload.settings, new.workload.settings, _free_settings(base)
    differing = [
        key
        for key in dict.fromkeys((*was, *now))
        if key not in free and was.get(key) != now.get(key)
    ]
    if differing:
        keys = ", ".join(
            f"{clean(key, 40)} {clean(str(was.get(key)), 40)} -> {clean(str(now.get(key)), 40)}"
            for key in differing
        )
        names = [clean(str(settings.get("name", "")), 60) for settings in (was, now)]
        which = f"other phase, {names[0]} against {names[1]}" if all(names) else "other settings"
        yield f"{which} ({keys}); give both the same --phase and --set"


def _free_settings(info: RunInfo) -> tuple[str, ...]:
    """Settings that change neither what a step computes nor the amount of data."""
    return (*plugin_of(info.workload.target).free_settings, "seed")


def _workload_name(info: RunInfo) -> str:
    """A plug-in's name, or NAME of a FILE.py:NAME: in another branch, the file may differ."""
    target = info.workload.target
    return target.rpartition(".py:")[2] if is_file_target(target) else f"{target} (a plug-in)"


def _data_words(info: RunInfo) -> str:
    own = "the script's own" if info.workload.script else ""
    own = own or plugin_of(info.workload.target).default_data
    where = clean(info.workload.data or own, 200)
    rows = info.sizes.train_rows if info.sizes else None
    return where if rows is None else f"{where}, {format_count(rows)} training rows"


def _group(info: RunInfo, name: str) -> Mapping[str, Any]:
    group = info.environment.get(name)
    return group if isinstance(group, dict) else {}


def _or_unknown(text: str) -> str:
    return clean(text, 40) or "an unknown one"


def _described(info: RunInfo) -> Iterator[tuple[str, str]]:
    """Facts about a run that may explain another speed, by name, as safe text."""
    for group in info.environment:
        for key, value in _group(info, group).items():
            text = format_bytes(value) if key == "memory_bytes" else str(value)
            yield clean(f"{group}: {key}".replace("_", " "), 60), clean(text, 120)
    for device, name in info.device_names.items():
        yield clean(f"device {device}", 60), clean(name, 120)
    target = info.workload.target
    yield "workload", clean(Path(target).name if is_file_target(target) else target, 120)
    if (script := info.workload.script) is not None:
        yield "command", clean(" ".join(without_secrets(script.command)), 300)
        for key, value in script.environment.items():
            yield clean(f"--env {key}", 60), clean(value, 60)
    yield "workload fingerprint", clean(info.workload_fingerprint or "", 40)
    yield "data", clean(info.workload.data or "", 200)
    for key, value in info.workload.settings.items():
        if key in _free_settings(info) and not isinstance(value, dict):
            yield f"phase: {clean(key, 60)}", clean(str(value), 60)
    if info.command == "train":
        yield "cell", info.cell.cell_id if info.cell else ""
