"""Chooses the parts of each report: pure functions from a run folder's contents to blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctrkit.core.command_line import without_secrets
from ctrkit.core.registry import title_of
from ctrkit.core.units import format_bytes, format_count, format_duration
from ctrkit.report.blocks import Block, Bullets, Facts, Report, Section
from ctrkit.report.contents import RunContents
from ctrkit.report.probe_view import probe_sections
from ctrkit.report.script_run_view import script_run_sections
from ctrkit.report.shell_lines import short_target
from ctrkit.report.status import judgement_sections
from ctrkit.report.train_view import train_sections
from ctrkit.report.words import clean, plural


def report_view(contents: RunContents) -> Report:
    """The report on a run folder, of a probe or of a real run."""
    info = contents.info
    if info.command == "probe":
        sections = probe_sections(contents)
    elif info.workload.script is not None:
        sections = script_run_sections(contents)
    else:
        sections = [*train_sections(contents), *judgement_sections(contents)]
    if contents.missing:
        lines = Bullets(tuple(clean(line) for line in dict.fromkeys(contents.missing)), "bad")
        sections = [*sections, Section("Not readable", (lines,))]
    title = f"{report_name(contents)}, {moment_words(info.created)}"
    return Report(title, (), (_header(contents), *sections))


def report_name(contents: RunContents) -> str:
    """`Probe of loop.py:Work`, or of a plug-in with its phase."""
    command = contents.info.command
    name = {"probe": "Probe", "train": "Run"}.get(command, clean(command))
    return f"{name} of {clean(_workload_name(contents))}"


def _workload_name(contents: RunContents) -> str:
    workload = contents.info.workload
    if workload.script is not None:
        return " ".join(without_secrets(workload.script.command))
    return f"{short_target(workload.target)} {title_of(workload)}".strip()


def moment_words(created: str) -> str:
    """An ISO time in UTC as `2026-01-31 12:00 UTC`."""
    if not created:
        return "at an unknown time"
    return clean(created.replace("T", " ")[:16], 40) + " UTC"


def _header(contents: RunContents) -> Section:
    rows = [
        ("data", _data_words(contents)),
        ("machine", _machine_words(contents)),
        ("code", _code_words(contents)),
        ("folder", clean(str(contents.path))),
    ]
    info = contents.info
    if info.wall_s is not None:
        budget = f" of a budget of {format_duration(info.budget_s)}" if info.budget_s else ""
        rows.append(("took", format_duration(info.wall_s) + budget))
    blocks: list[Block] = [Facts(tuple(row for row in rows if row[1]))]
    return Section("", tuple(blocks))


def _data_words(contents: RunContents) -> str:
    workload, sizes = contents.info.workload, contents.info.sizes
    parts = [workload.data or contents.plugin.default_data]
    if sizes is not None:
        if sizes.train_rows is not None:
            parts.append(
                f"{format_count(sizes.train_rows)} training rows{_batches_words(contents)}"
            )
        elif sizes.train_batches is not None:
            parts.append(f"{format_count(sizes.train_batches)} batches an epoch")
        if sizes.validation_rows:
            parts.append(f"{format_count(sizes.validation_rows)} validation rows")
        known = sizes.epochs is not None
        parts.append(plural(sizes.epochs or 0, "epoch") if known else "number of epochs not known")
    return clean(", ".join(part for part in parts if part))


def _batches_words(contents: RunContents) -> str:
    """` in 514 batches`, if that is right for the run's batch size."""
    sizes, cell = contents.info.sizes, contents.info.cell
    if sizes is None or not sizes.train_batches or sizes.train_rows is None:
        return ""
    if cell is not None and abs(sizes.train_rows / cell.batch_size - sizes.train_batches) > 1:
        return ""
    return f" in {format_count(sizes.train_batches)} batches"


def _code_words(contents: RunContents) -> str:
    """`branch main, commit a79b79a` of the folder in which it was run."""
    code = contents.info.environment.get("git")
    if not isinstance(code, dict):
        return ""
    return clean(
        ", ".join(f"{what} {code[what]}" for what in ("branch", "commit") if code.get(what))
    )


def _cores_words(machine: Mapping[str, Any]) -> str:
    """`2 cores`, or `0.5 of 2 cores (CPU quota)` in a container that may use less."""
    quota, visible = machine.get("cpu_quota_cores"), machine.get("logical_cores")
    if isinstance(quota, int | float) and isinstance(visible, int) and quota < visible:
        return f"{quota:g} of {plural(visible, 'core')} (CPU quota)"
    cores = machine.get("physical_cores")
    return plural(cores, "core") if isinstance(cores, int) else ""


def _machine_words(contents: RunContents) -> str:
    """Processor, cores, memory, system and torch in a line, as far as known."""
    environment = contents.info.environment
    machine, versions = environment.get("machine"), environment.get("versions")
    machine = machine if isinstance(machine, dict) else {}
    versions = versions if isinstance(versions, dict) else {}
    memory = machine.get("memory_bytes")
    system = " ".join(str(machine[key]) for key in ("system", "machine") if machine.get(key))
    parts = [
        *(name for device, name in contents.info.device_names.items() if name != device),
        str(machine.get("processor") or ""),
        _cores_words(machine),
        format_bytes(memory) if isinstance(memory, int) else "",
        system,
        f"torch {versions['torch']}" if versions.get("torch") else "",
    ]
    return clean(", ".join(dict.fromkeys(part for part in parts if part)))
