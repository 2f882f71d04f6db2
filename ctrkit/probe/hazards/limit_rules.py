"""Rules that compare a cell's needs with the machine's memory, shared memory and open files."""

from __future__ import annotations

from collections.abc import Iterator

from ctrkit.core.checkup import Hazard
from ctrkit.core.config import Cell
from ctrkit.core.units import format_bytes, format_count
from ctrkit.probe.hazards.facts import HazardFacts

_PYTORCH = "https://github.com/pytorch/pytorch/issues"
_SHARING = "https://pytorch.org/docs/stable/multiprocessing.html"
#: the largest share of available memory to plan with: the step needs memory, too
MOST_MEMORY_SHARE = 0.8
#: files that a process with torch has open anyway, including pipes of workers
_OTHER_FILES = 64


def batch_bytes(cell: Cell, facts: HazardFacts) -> int | None:
    """Bytes of a batch on the host; None if its rows are unknown."""
    row_bytes = facts.needs.row_bytes
    return None if row_bytes is None else row_bytes * cell.batch_size


def _memory(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    """Forked workers share their parent's pages, so only other workers count with their size."""
    available_bytes = facts.limits.memory_bytes
    if not cell.workers or available_bytes is None:
        return
    starts_anew = facts.start_method(cell) != "fork"
    worker_bytes = facts.needs.worker_bytes or 0 if starts_anew else 0
    queue_bytes = cell.queued_batches * (batch_bytes(cell, facts) or 0)
    planned_bytes = cell.workers * worker_bytes + queue_bytes
    if planned_bytes <= MOST_MEMORY_SHARE * available_bytes:
        return
    parts = []
    if worker_bytes:
        parts.append(f"{cell.workers} workers of {format_bytes(worker_bytes)}")
    if queue_bytes:
        parts.append(
            f"{format_count(cell.queued_batches)} batches of "
            f"{format_bytes(batch_bytes(cell, facts))}"
        )
    source = "its control group allows" if facts.limits.memory_is_capped else "is available"
    yield Hazard(
        name="too little memory",
        level="refusal",
        text=f"{' and '.join(parts)} take {format_bytes(planned_bytes)}, more than "
        f"{100 * MOST_MEMORY_SHARE:.0f} % of the {format_bytes(available_bytes)} that {source}",
        advice="use fewer workers, a smaller prefetch or batch, or a loader without workers",
        references=(
            "https://github.com/Lightning-AI/lightning/issues/11295",
            f"{_PYTORCH}/13246",
        ),
    )


def _shared_memory(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    free_bytes, each_bytes = facts.limits.shm_bytes, batch_bytes(cell, facts)
    if not cell.workers or free_bytes is None or facts.limits.system != "Linux":
        return
    tensors_bytes = 0
    if facts.examination and facts.start_method(cell) != "fork":
        tensors_bytes = sum(part.shared_bytes for part in facts.examination.parts)
    planned_bytes = cell.queued_batches * (each_bytes or 0) + tensors_bytes
    if planned_bytes <= free_bytes:
        return
    parts = [f"the data set's tensors of {format_bytes(tensors_bytes)}"] if tensors_bytes else []
    if each_bytes:
        parts.append(f"{format_count(cell.queued_batches)} batches of {format_bytes(each_bytes)}")
    yield Hazard(
        name="/dev/shm is too small",
        text=f"{' and '.join(parts)} go through shared memory, but only "
        f"{format_bytes(free_bytes)} of it are free: a worker then dies of a bus error",
        advice="enlarge it (docker run --shm-size), or use fewer workers or a smaller prefetch",
        references=(f"{_PYTORCH}/5040",),
    )


def _open_files(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    """If tensors are shared by descriptor, each tensor of a waiting batch keeps a file open."""
    most, tensors = facts.limits.open_files, facts.needs.tensors_per_batch
    strategy = facts.examination.sharing_strategy if facts.examination else ""
    if not strategy:
        strategy = "file_system" if facts.limits.system == "Darwin" else "file_descriptor"
    if not cell.workers or most is None or tensors is None or strategy != "file_descriptor":
        return
    planned = cell.queued_batches * tensors + _OTHER_FILES
    if planned > most:
        yield Hazard(
            name="too few open files",
            text=f"{format_count(cell.queued_batches)} waiting batches of {tensors} tensors keep "
            f"up to {format_count(planned)} files open, but a process may open "
            f"{format_count(most)}",
            advice="raise it with ulimit -n, or call "
            "torch.multiprocessing.set_sharing_strategy('file_system')",
            references=(f"{_PYTORCH}/973", _SHARING),
        )


def _cpu_quota(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    """A CPU quota smaller than the cores that every library counts."""
    quota, visible = facts.limits.cpu_quota_cores, facts.limits.visible_cores
    if quota is None or visible is None or quota >= visible:
        return
    whole = max(1, int(quota))
    yield Hazard(
        name="CPU quota",
        level="note",
        text=f"the control group allows {quota:g} of {visible} cores, but torch, OpenMP and other "
        f"libraries count {visible}: what runs beyond the quota is stopped for the rest of each "
        "period",
        advice=f"keep threads and busy workers to {whole} together, with OMP_NUM_THREADS={whole} "
        "for libraries in the workers",
        references=("https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu",),
    )


def _socket_paths(cell: Cell, facts: HazardFacts) -> Iterator[Hazard]:
    """Workers send batches through sockets, whose paths have about a hundred characters at most."""
    long, short = facts.limits.long_temporary_folder, facts.limits.short_temporary_folder
    if not cell.workers or not long:
        return
    fails = "with workers the first batch fails with `AF_UNIX path too long`"
    text = f"the temporary folder's name has {len(long)} characters, too many for a socket's path"
    if short:
        text = f"{text}: {fails} wherever ctrkit does not start it; here {short} is taken for them"
    yield Hazard(
        name="temporary folder with a long name",
        level="note" if short else "warning",
        text=text if short else f"{text} ({long}): {fails}",
        advice="set TMPDIR to a folder with a short name, such as /tmp",
        references=("https://github.com/python/cpython/issues/132124",),
    )


LIMIT_RULES = (_memory, _shared_memory, _open_files, _cpu_quota, _socket_paths)
