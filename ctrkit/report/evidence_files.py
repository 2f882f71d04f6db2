"""Evidence of failed trials from a run folder: states of processes, stacks, ends of the output."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.units import format_bytes, format_duration
from ctrkit.report.blocks import Column, Table
from ctrkit.report.words import clean

_MOST_FILE_BYTES = 24_000
_MOST_TRIALS, _MOST_FILES, _MOST_PROCESSES = 100, 40, 64
_FIRST = ("verdict", "stacks", "py-spy", "stderr", "stdout")
_PROCESSES = "processes.json"


@dataclass(frozen=True, kw_only=True)
class EvidenceFile:
    """A text file; `cut_bytes` at its beginning were left out."""

    name: str
    text: str
    cut_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class TrialEvidence:
    """What lies in the evidence folder of one trial; `unread` are files for which was no room."""

    trial: str
    processes: Table | None
    files: tuple[EvidenceFile, ...]
    unread: tuple[str, ...] = ()


def read_evidence(folder: Path, most_bytes: int) -> list[TrialEvidence]:
    """The evidence of each trial below `folder`, at most `most_bytes` of text altogether.

    Only plain files directly in a trial's own folder are read, never through a link.
    """
    found = []
    for trial in _entries(folder, folders=True)[:_MOST_TRIALS]:
        evidence = _read_trial(trial, most_bytes)
        most_bytes -= sum(len(file.text.encode("utf-8", "replace")) for file in evidence.files)
        found.append(evidence)
    return found


def _entries(folder: Path, *, folders: bool) -> list[Path]:
    try:
        return sorted(
            path for path in folder.iterdir()
            if not path.is_symlink() and (path.is_dir() if folders else path.is_file())
        )  # fmt: skip
    except OSError:
        return []


def _read_trial(folder: Path, most_bytes: int) -> TrialEvidence:
    files: list[EvidenceFile] = []
    unread: list[str] = []
    processes: Table | None = None
    for path in sorted(_entries(folder, folders=False), key=_rank):
        if path.name == _PROCESSES and (processes := _processes(path)) is not None:
            continue
        room_bytes = min(_MOST_FILE_BYTES, most_bytes) if len(files) < _MOST_FILES else 0
        file = _read_file(path, room_bytes)
        if file is None:
            unread.append(path.name)
        elif file.text.strip():
            files.append(file)
            most_bytes -= len(file.text)
    if len(unread) > _MOST_FILES:
        unread = [*unread[:_MOST_FILES], f"{len(unread) - _MOST_FILES} more"]
    return TrialEvidence(
        trial=folder.name, processes=processes, files=tuple(files), unread=tuple(unread)
    )


def _rank(path: Path) -> tuple[int, str]:
    known = (i for i, start in enumerate(_FIRST) if path.name.startswith(start))
    return next(known, len(_FIRST)), path.name


def _read_file(path: Path, most_bytes: int) -> EvidenceFile | None:
    """The end of a file; None where there is no room for it or it cannot be read."""
    if most_bytes < 1000:
        return None
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            file.seek(max(0, size - most_bytes))
            text = file.read(most_bytes).decode("utf-8", errors="replace")
    except OSError:
        return None
    return EvidenceFile(name=path.name, text=text, cut_bytes=max(0, size - most_bytes))


def _processes(path: Path) -> Table | None:
    """`processes.json` as a table; None where it is not what it should be."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(values, list):
        return None
    rows = [_process_cells(value) for value in values[:_MOST_PROCESSES] if isinstance(value, dict)]
    columns = (
        Column("process"), Column("name", right=False), Column("state", right=False),
        Column("user CPU"), Column("system CPU"), Column("memory"), Column("threads"),
        Column("its threads wait in", right=False),
    )  # fmt: skip
    return Table(columns, tuple(rows)).without_empty_columns() if rows else None


def _process_cells(value: Mapping[str, Any]) -> tuple[str, ...]:
    def number(key: str) -> float | None:
        found = value.get(key)
        known = isinstance(found, int | float) and not isinstance(found, bool)
        return float(found) if known else None  # type: ignore[arg-type]

    def text(key: str) -> str:
        return clean(str(value.get(key, "")), 60)

    user_s, system_s, memory = number("user_s"), number("system_s"), number("rss_bytes")
    return (
        text("pid"), text("name"), text("status"),
        "" if user_s is None else format_duration(user_s),
        "" if system_s is None else format_duration(system_s),
        "" if memory is None else format_bytes(memory),
        text("threads"), _waits(value.get("waits")),
    )  # fmt: skip


def _waits(threads: object) -> str:
    """Kernel functions in which a process's threads wait, each with how many do."""
    if not isinstance(threads, list):
        return ""
    places = [str(t.get("wchan") or "") for t in threads if isinstance(t, dict)]
    return clean(", ".join(_counted(place for place in places if place not in ("", "0"))), 200)


def _counted(words: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return [word if count == 1 else f"{word} ({count})" for word, count in counts.items()]
