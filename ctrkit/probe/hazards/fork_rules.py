"""Rules on forked workers: what the parent holds when it forks can go wrong in them."""

from __future__ import annotations

from collections.abc import Iterator

from ctrkit.core.checkup import Hazard
from ctrkit.core.config import Cell
from ctrkit.probe.hazards.facts import HazardFacts

_MOST_THREADS = 3
_PYTORCH = "https://github.com/pytorch/pytorch/issues"
_LIBRARY_REFERENCES = {
    "cv2": f"{_PYTORCH}/1355",
    "h5py": "https://github.com/h5py/h5py/issues/2584",
    "tokenizers": "https://github.com/huggingface/transformers/issues/5486",
}


def _forks(cell: Cell, facts: HazardFacts) -> bool:
    return cell.workers > 0 and facts.start_method(cell) == "fork"


def _with_mps(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    if _forks(cell, facts) and cell.device == "mps":
        yield Hazard(
            name="fork with MPS",
            level="refusal" if facts.has_task else "warning",
            text="MPS used in a forked child silently hangs or crashes: torch does not guard it",
            advice="use --start-method spawn, or --loader thread",
            references=(f"{_PYTORCH}/178037", f"{_PYTORCH}/78924", f"{_PYTORCH}/104761"),
        )


def _with_cuda(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    """A note: most workers make batches on the CPU, and torch ends one that asks for CUDA."""
    if _forks(cell, facts) and cell.device == "cuda":
        yield Hazard(
            name="fork with CUDA",
            level="note",
            text="a worker forked from a process that uses CUDA cannot use CUDA itself: torch ends "
            "it with an error",
            advice="keep the device out of the data set, or use --start-method spawn",
            references=("https://pytorch.org/docs/stable/notes/multiprocessing.html",),
        )


def _on_macos(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    if _forks(cell, facts) and facts.limits.system == "Darwin":
        yield Hazard(
            name="fork on macOS",
            text="on macOS a worker forked after a large CPU operation can hang on a large batch",
            advice="prefer spawn, which is the default there",
            references=(f"{_PYTORCH}/78924", f"{_PYTORCH}/104761"),
        )


def _with_threads(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    """Applies only if there are threads: without them, a fork is safe from this."""
    if not _forks(cell, facts) or facts.limits.system == "Darwin":
        return
    libraries, threads = facts.threaded_libraries, facts.threads
    if not libraries and not threads:
        return
    seen = [f"running here: {', '.join(threads[:_MOST_THREADS])}"] if threads else []
    seen += [f"loaded here: {', '.join(libraries)}"] if libraries else []
    known = tuple(_LIBRARY_REFERENCES[library] for library in libraries)
    yield Hazard(
        name="fork with threads",
        text="a lock that another thread holds while forking stays locked in the worker for ever; "
        + "; ".join(seen),
        advice="prefer spawn, or start no threads before the workers",
        references=known or (_LIBRARY_REFERENCES["cv2"], _LIBRARY_REFERENCES["h5py"]),
    )


def _with_openmp(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    raised = facts.noted("threads")
    if _forks(cell, facts) and raised:
        where = ", ".join(f"{note.text} ({note.where})" for note in raised)
        yield Hazard(
            name="OpenMP threads over fork",
            text=f"a forked worker that uses more than the one thread torch gives it waits for "
            f"threads which did not survive the fork; {where}",
            advice="leave the workers at one thread, or use spawn",
            references=(f"{_PYTORCH}/75147",),
        )


FORK_RULES = (_with_mps, _with_cuda, _on_macos, _with_threads, _with_openmp)
