"""Configurations known to hang or crash, as pure rules with public references.

A rule refuses only what ctrkit itself would bring about: its own training step on a device, and
workers forked from that very process. A user's loader code is never refused on suspicion, only
warned of: what it does in its workers cannot be known from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctrkit.config import Cell

_PYTORCH = "https://github.com/pytorch/pytorch/issues"


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """A known way for a cell to fail: what happens, what to do instead, and where it is told."""

    name: str
    refuses: bool
    text: str
    advice: str
    references: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """One line for the row of a refused cell."""
        return f"{self.text}; {self.advice} ({', '.join(self.references)})"


def hazards_of(
    cell: Cell, *, has_task: bool = True, system: str = "Linux", picklable: bool = True
) -> list[Hazard]:
    """The rules that a cell meets, refusals first.

    Args:
        cell: the configuration.
        has_task: ctrkit runs a training step on the cell's device; else there is only a loader.
        system: `platform.system()` of the machine that would run it.
        picklable: the workload can be sent to a spawned worker.
    """
    found = []
    if cell.workers > 0 and cell.start_method == "fork":
        if cell.device == "mps":
            found.append(_fork_with_mps(refuses=has_task))
        if cell.device == "cuda":
            found.append(_fork_with_cuda(refuses=has_task))
        found.append(_fork_on_macos() if system == "Darwin" else _fork_with_threads())
    if cell.workers > 0 and cell.start_method != "fork" and not picklable:
        found.append(_not_picklable(str(cell.start_method)))
    return sorted(found, key=lambda hazard: not hazard.refuses)


def refusal(cell: Cell, *, has_task: bool = True, system: str = "Linux") -> Hazard | None:
    """The rule that refuses this cell, None if it may run."""
    return next((h for h in hazards_of(cell, has_task=has_task, system=system) if h.refuses), None)


def _fork_with_mps(*, refuses: bool) -> Hazard:
    return Hazard(
        name="fork with MPS",
        refuses=refuses,
        text="MPS used in a forked child silently hangs or crashes, and torch does not guard it",
        advice="use --start-method spawn, or --loader thread",
        references=(f"{_PYTORCH}/178037", f"{_PYTORCH}/78924", f"{_PYTORCH}/104761"),
    )


def _fork_with_cuda(*, refuses: bool) -> Hazard:
    return Hazard(
        name="fork with CUDA",
        refuses=refuses,
        text="workers forked from a process that uses CUDA cannot use it themselves",
        advice="use --start-method spawn, or --run-refused if no worker touches the device",
        references=("https://pytorch.org/docs/stable/notes/multiprocessing.html",),
    )


def _fork_on_macos() -> Hazard:
    return Hazard(
        name="fork on macOS",
        refuses=False,
        text="on macOS a worker forked after a large CPU operation can hang on a large batch",
        advice="prefer spawn, which is the default there",
        references=(f"{_PYTORCH}/78924", f"{_PYTORCH}/104761"),
    )


def _fork_with_threads() -> Hazard:
    return Hazard(
        name="fork with threads",
        refuses=False,
        text="a lock that another thread holds while forking stays locked in the worker for ever",
        advice="prefer spawn where the loader's libraries start threads",
        references=(f"{_PYTORCH}/1355", "https://github.com/h5py/h5py/issues/2584"),
    )


def _not_picklable(start_method: str) -> Hazard:
    return Hazard(
        name="not picklable",
        refuses=False,
        text=f"the workload cannot be pickled, and {start_method} workers receive it pickled",
        advice="define it at the top of its module and open files lazily, or use no workers",
        references=(
            "https://docs.python.org/3/library/multiprocessing.html#programming-guidelines",
        ),
    )
