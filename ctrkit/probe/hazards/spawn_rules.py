"""Rules on workers that start anew (spawn, forkserver): everything they need must be pickled."""

from __future__ import annotations

from collections.abc import Iterator

from ctrkit.core.checkup import Hazard
from ctrkit.core.child_records import LoaderPart
from ctrkit.core.config import Cell
from ctrkit.core.units import format_bytes
from ctrkit.probe.hazards.facts import HazardFacts

_PYTORCH = "https://github.com/pytorch/pytorch/issues"
_GUIDELINES = "https://docs.python.org/3/library/multiprocessing.html"
_MULTIPROCESSING = "https://pytorch.org/docs/stable/notes/multiprocessing.html"
#: capacity of a pipe on Linux and macOS: writing more waits for the reader
PIPE_BYTES = 65_536


def _starts_anew(cell: Cell, facts: HazardFacts) -> str:
    """The start method if workers get what they need pickled, else empty."""
    method = facts.start_method(cell) if cell.workers else None
    return method if method in ("spawn", "forkserver") else ""


def _parts(facts: HazardFacts) -> list[LoaderPart]:
    return facts.examination.parts if facts.examination else []


def _not_picklable(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    method = _starts_anew(cell, facts)
    if not method:
        return
    tried = {part.name: part for part in _parts(facts)}
    whys = [f"{part.place}: {part.error}" for part in tried.values() if part.error]
    # what was really pickled takes precedence over what the source says
    whys += [
        f"{note.part} is {note.text} ({note.where})"
        for note in facts.noted("unpicklable")
        if note.part not in tried
    ]
    if whys:
        yield Hazard(
            name="not picklable",
            text=f"{method} workers receive the loader's parts pickled, but {'; '.join(whys)}",
            advice="define it at the top of its module and open files lazily, or use no workers",
            references=(_GUIDELINES,),
        )


def _main_guard(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    unguarded = facts.noted("unguarded")
    if _starts_anew(cell, facts) and unguarded:
        first = unguarded[0]
        owner = first.file or "the workload's file"
        yield Hazard(
            name="no main guard",
            text=f"line {first.line} of {owner} {first.text} outside any function: "
            "every worker imports the file and does so again, and may die while it starts",
            advice="put it under if __name__ == '__main__':",
            references=(_GUIDELINES,),
        )


def _large_data_set(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    method = _starts_anew(cell, facts)
    size_bytes = sum(part.pickled_bytes for part in _parts(facts))
    if method and size_bytes > PIPE_BYTES:
        yield Hazard(
            name="data set larger than a pipe",
            level="note",
            text=f"{format_bytes(size_bytes)} are pickled for each worker, "
            f"{format_bytes(cell.workers * size_bytes)} in all: one that dies while it starts "
            "leaves its parent writing to the pipe for ever",
            advice="keep large data in files or in tensors, which are shared; ctrkit's own trials "
            "end such a hang",
            references=(f"{_PYTORCH}/5902", _GUIDELINES),
        )


def _memory_maps(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    size_bytes = sum(part.memmap_bytes for part in _parts(facts))
    if _starts_anew(cell, facts) and size_bytes:
        yield Hazard(
            name="memory map sent by value",
            text=f"numpy pickles a memory map by value: {format_bytes(size_bytes)} are read and "
            "sent to each worker, which then holds them in memory",
            advice="keep the path and map the file in the worker, at the first __getitem__",
            references=("https://github.com/numpy/numpy/issues/2049",),
        )


def _device_tensors(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    devices = sorted({device for part in _parts(facts) for device in part.device_tensors})
    if not cell.workers or not devices:
        return
    where = ", ".join(devices)
    told = f"{_PYTORCH}/87688" if "mps" in where else _MULTIPROCESSING
    yield Hazard(
        name="data set on a device",
        text=f"the data set holds tensors on {where}, which workers cannot share safely",
        advice="keep it on the CPU and move each batch, or use no workers; do not change to fork",
        references=(told,),
    )


SPAWN_RULES = (_not_picklable, _main_guard, _large_data_set, _memory_maps, _device_tensors)
