"""Rules on macOS, pinned memory, torch's default device, and inspections that found nothing."""

from __future__ import annotations

from collections.abc import Iterator

from ctrkit.core.checkup import Hazard
from ctrkit.core.child_records import untold_words
from ctrkit.core.config import Cell
from ctrkit.core.units import format_count
from ctrkit.probe.hazards.facts import HazardFacts

_PYTORCH = "https://github.com/pytorch/pytorch/issues"


def _macos_start(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    if cell.workers and facts.limits.system == "Darwin" and facts.start_method(cell) == "spawn":
        yield Hazard(
            name="workers start slowly on macOS",
            level="note",
            text="each spawned worker imports everything again, about 5 s each with heavy imports, "
            "again in every epoch unless they are kept",
            advice="try --persistent true, fewer workers or the thread loader",
            references=("https://github.com/cvg/Hierarchical-Localization/issues/502",),
        )


def _macos_sharing(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    if cell.workers and facts.limits.system == "Darwin":
        yield Hazard(
            name="file_system sharing",
            level="note",
            text="macOS shares tensors by file name only: a worker that is killed leaves its "
            "segments behind",
            advice="nothing to do in ctrkit's own runs, which sweep them",
            references=("https://pytorch.org/docs/stable/multiprocessing.html",),
        )


def _macos_exit(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    new = facts.limits.python_version >= (3, 12)
    if cell.workers and facts.limits.system == "Darwin" and new:
        yield Hazard(
            name="no exit on macOS",
            level="note",
            text="with Python 3.12 or newer a process may never end after it has used workers; "
            "newer torch works around it",
            advice="keep torch up to date; a result that is complete counts all the same",
            references=(f"{_PYTORCH}/153050", f"{_PYTORCH}/155157", f"{_PYTORCH}/155698"),
        )


def _pinned_for_mps(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    pins = cell.pin or (facts.examination is not None and facts.examination.pins)
    if cell.device == "mps" and pins:
        yield Hazard(
            name="pin_memory on MPS",
            level="note",
            text="MPS has no pinned memory: pin_memory is warned of and ignored",
            advice="leave it out",
            references=(f"{_PYTORCH}/86060",),
        )


def _default_device(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    look = facts.examination
    if look is None or not look.shuffles or look.default_device == look.generator_device:
        return
    yield Hazard(
        name="generator not on the default device",
        text=f"torch's default device is {look.default_device}, but the loader shuffles with a "
        f"generator on {look.generator_device}: the first batch raises an error",
        advice="leave the default device alone, or give the DataLoader "
        f"generator=torch.Generator('{look.default_device}')",
        references=(f"{_PYTORCH}/110820",),
    )


def _not_examined(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    look = facts.examination
    if look is not None and look.problem and not look.is_no_loader:
        yield Hazard(
            name="loader not examined",
            text=look.problem,
            advice="without the loader nothing can be said of what its workers would receive",
        )


def _no_loader(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    look = facts.examination
    if look is not None and look.is_no_loader:
        what, _, advice = look.problem.partition(" returned ")[2].partition(": ")
        yield Hazard(
            name="make_loader returns no batches",
            level="refusal",
            text=f"it returned {what}",
            advice=advice or "return an iterable of batches",
        )


def _needs_workers(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    look = facts.examination
    if not cell.workers and look is not None and look.needs_workers:
        yield Hazard(
            name="not without workers",
            text=look.needs_workers,
            advice="leave out --workers 0, or leave out what only workers take (prefetch_factor, "
            "persistent_workers) where there are none",
        )


def _idle_workers(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    look = facts.examination
    if look is None or look.batches is None:
        return
    batches = -(-look.batches * look.batch_size // cell.batch_size)
    if cell.workers > max(1, batches):
        yield Hazard(
            name="more workers than batches",
            text=f"an epoch has {format_count(batches)} batches by the loader's len(), so that "
            f"{format_count(cell.workers - batches)} of {format_count(cell.workers)} workers make "
            "none: each costs its start and its memory",
            advice=f"use {format_count(max(1, batches // 2))} workers or fewer",
        )


def _untold_workers(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    look = facts.examination
    if look is None or not look.told_data_set or not cell.workers:
        return
    if cell.persistent or look.persistent:
        what, _, advice = untold_words(look.told_data_set).partition("; ")
        yield Hazard(name="epoch not told to kept workers", text=what, advice=advice)


SYSTEM_RULES = (
    _no_loader, _untold_workers, _needs_workers, _idle_workers,
    _not_examined, _macos_start, _macos_sharing, _macos_exit, _pinned_for_mps, _default_device,
)  # fmt: skip
