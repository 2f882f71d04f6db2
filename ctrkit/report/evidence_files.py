"""Reads the evidence of failed trials: process states, stacks, last lines of output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrkit.core.units import format_bytes
from ctrkit.report.blocks import Column, Table
from ctrkit.report.words import clean
from ctrkit.supervise.explain.evidence import PROCESSES, read_processes
from ctrkit.supervise.explain.scene import Process, Wait

_MOST_FILE_BYTES = 24_000
_MOST_TRIALS, _MOST_FILES, _MOST_PROCESSES = 100, 40, 64
_OUTPUT = ("stderr", "stdout")
_FIRST = ("verdict", "stacks", "py-spy", "stderr", "stdout")


@dataclass(frozen=True, kw_only=True)
class EvidenceFile:
    """A text file, without `cut_bytes` bytes at its beginning."""

    name: str
    text: str
    cut_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class TrialEvidence:
    """The evidence folder of one trial.

    Attributes:
        unread: files for which there was no room.
        withheld: files with output of the training program.
    """

    trial: str
    processes: Table | None
    files: tuple[EvidenceFile, ...]
    unread: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()


def read_evidence(
    folder: Path, most_bytes: int, *, with_output: bool = False
) -> list[TrialEvidence]:
    """The evidence of each trial below `folder`, at most `most_bytes` of text in all.

    It reads only plain files directly in a trial's folder, never through a link. Output of the
    program is left out unless `with_output`: people share reports, and programs print tokens.
    """
    found = []
    for trial in _entries(folder, folders=True)[:_MOST_TRIALS]:
        evidence = _read_trial(trial, most_bytes, with_output=with_output)
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


def _read_trial(folder: Path, most_bytes: int, *, with_output: bool) -> TrialEvidence:
    files: list[EvidenceFile] = []
    unread: list[str] = []
    withheld: list[str] = []
    processes: Table | None = None
    for path in sorted(_entries(folder, folders=False), key=_rank):
        if path.name == PROCESSES:
            processes = _process_table(read_processes(path))
            if processes is not None:
                continue
        if _is_output(path) and not with_output:
            withheld += [path.name] if path.stat().st_size else []
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
        trial=folder.name,
        processes=processes,
        files=tuple(files),
        unread=tuple(unread),
        withheld=tuple(withheld),
    )


def _is_output(path: Path) -> bool:
    """True for a file with output of the training program."""
    return any(stream in path.name for stream in _OUTPUT)


def _rank(path: Path) -> tuple[int, str]:
    known = (i for i, start in enumerate(_FIRST) if path.name.startswith(start))
    return next(known, len(_FIRST)), path.name


def _read_file(path: Path, most_bytes: int) -> EvidenceFile | None:
    """The end of a file; None if there is no room for it, or it cannot be read."""
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


def _process_table(processes: Sequence[Process]) -> Table | None:
    """A table of what each process did when the trial was judged; None without any."""
    columns = (
        Column("process"), Column("worker"), Column("name", right=False),
        Column("state", right=False), Column("CPU"), Column("memory"), Column("threads"),
        Column("its threads wait in", right=False),
    )  # fmt: skip
    rows = tuple(_process_cells(one) for one in processes[:_MOST_PROCESSES])
    return Table(columns, rows).without_empty_columns() if rows else None


def _process_cells(process: Process) -> tuple[str, ...]:
    state = process.status if process.exit_code is None else f"ended ({process.exit_code})"
    return (
        str(process.pid),
        "" if process.progress is None else str(process.progress.worker),
        clean(process.name, 60),
        clean(state, 60),
        "" if process.cores is None else f"{process.cores:.1f} cores",
        "" if process.rss_bytes is None else format_bytes(process.rss_bytes),
        str(len(process.waits)) if process.waits else "",
        clean(", ".join(_counted(map(_wait_words, process.waits))), 200),
    )


def _wait_words(wait: Wait) -> str:
    """A wait in words: `futex`, or `read (pipe)`; `?` if unknown."""
    return f"{wait.syscall or '?'}" + (f" ({wait.target})" if wait.target else "")


def _counted(words: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for word in words:
        counts[word] = counts.get(word, 0) + 1
    return [word if count == 1 else f"{count} x {word}" for word, count in counts.items()]
