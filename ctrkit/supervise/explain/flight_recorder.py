"""Reads NCCL's flight recorder: the collectives of each rank, and the one that a rank hangs in.

torch keeps the newest collectives of each process in a ring. It is switched on for our own ranks
by their environment. A byte in a rank's pipe has torch write the ring to a file, as a time-out of
NCCL does. A dump says which collective waits and who asked for it where; why a rank has not come,
our own stacks say.
"""

from __future__ import annotations

import io
import os
import pickle
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.config import ChildSpec

_ENTRIES = 2000
_DUMP, _PIPE = "nccl-dump-", "nccl-pipe-"
_WAIT_S, _POLL_S = 5.0, 0.1
#: What torch names the ring, its file and its pipe; the older names are known to newer versions.
_OWN_NAMES = ("TORCH_FR_", "TORCH_NCCL_TRACE_", "TORCH_NCCL_DEBUG_INFO_", "TORCH_NCCL_DUMP_")


def recorder_variables(
    spec: ChildSpec, folder: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """What switches it on for the ranks of a spec that use NCCL; empty elsewhere.

    Who set one of its variables has it as it is.
    """
    ours = spec.workload.script is None and spec.cell.nproc > 1 and spec.cell.device == "cuda"
    if not ours or any(name.startswith(_OWN_NAMES) for name in inherited):
        return {}
    return {
        "TORCH_NCCL_TRACE_BUFFER_SIZE": str(_ENTRIES),
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": str(folder / _DUMP),
        "TORCH_NCCL_DEBUG_INFO_PIPE_FILE": str(folder / _PIPE),
    }


@dataclass(frozen=True, kw_only=True)
class Collective:
    """A collective as one rank recorded it; `place` is the innermost line outside of torch."""

    number: int
    name: str
    state: str
    place: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it is over for this rank."""
        return self.state == "completed"


def collect_dumps(
    folder: Path, evidence: Path, *, ask: bool, enough: Callable[[], bool] = lambda: False
) -> str:
    """Keep the dumps of a child's ranks as evidence, and say what they show; empty without any.

    Args:
        folder: of the child.
        evidence: receives the dumps.
        ask: whether its ranks live, and are asked for their dumps first.
        enough: whether to wait no longer for what was asked for.
    """
    if ask:
        _ask(folder, enough)
    rings: dict[int, list[Collective]] = {}
    for path in sorted(folder.glob(f"{_DUMP}*")):
        rank = path.name.removeprefix(_DUMP)
        with suppress(OSError):
            shutil.copy(path, evidence / path.name)
        if rank.isdigit() and (ring := read_dump(path)):
            rings[int(rank)] = ring
    return hang_words(rings)


def _ask(folder: Path, enough: Callable[[], bool]) -> None:
    """Have each rank that listens write its dump, and wait a moment for it to be whole."""
    asked = {}
    for pipe in folder.glob(f"{_PIPE}*.pipe"):
        with suppress(OSError):  # nobody reads it: the rank is over
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(descriptor, b"1")
            finally:
                os.close(descriptor)
            rank = pipe.name.removeprefix(_PIPE).removesuffix(".pipe")
            asked[rank] = folder / f"{_DUMP}{rank}"
    until_s = time.monotonic() + _WAIT_S
    while asked and time.monotonic() < until_s and not enough():
        asked = {rank: path for rank, path in asked.items() if not read_dump(path)}
        time.sleep(_POLL_S if asked else 0.0)


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers, texts and numbers: a file must not run code in this process."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list  # torch's mark of a list of one type
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def read_dump(path: Path) -> list[Collective]:
    """The collectives of a dump, oldest first; empty where it is not whole, or something else."""
    try:
        dump = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
        return [_collective(entry) for entry in dump["entries"]]
    except Exception:  # a damaged pickle may raise anything
        return []


def _collective(entry: Mapping[str, Any]) -> Collective:
    numbers = (entry.get(key) for key in ("collective_seq_id", "p2p_seq_id", "seq_id", "record_id"))
    return Collective(
        number=next((int(number) for number in numbers if number), 0),
        name=str(entry.get("profiling_name", "a collective")).removeprefix("nccl:"),
        state=str(entry.get("state", "")),
        place=_place(entry.get("frames") or ()),
    )


def _place(frames: Sequence[Mapping[str, Any]]) -> str:
    """`train.py:88 in step`: the innermost frame that is not of torch itself."""
    for frame in frames:
        filename = str(frame.get("filename", ""))
        if filename and "/torch/" not in filename:
            return f"{Path(filename).name}:{frame.get('line')} in {frame.get('name')}"
    return ""


def hang_words(rings: Mapping[int, Sequence[Collective]]) -> str:
    """Which ranks wait in which collective, and which have not come to it; empty if none waits."""
    waiting = {
        rank: first
        for rank, ring in rings.items()
        if (first := next((one for one in ring if not one.is_done), None)) is not None
    }
    if not waiting:
        return ""
    said = [
        f"rank {rank} waits in {one.name} number {one.number}"
        + (f" (at {one.place})" if one.place else "")
        for rank, one in sorted(waiting.items())
    ]
    furthest = max(one.number for one in waiting.values())
    for rank, ring in sorted(rings.items()):
        last = ring[-1]
        if rank not in waiting and last.number < furthest:
            where = f" (at {last.place})" if last.place else ""
            said.append(
                f"rank {rank} has not come to it: its last was {last.name} number {last.number}"
                f"{where}"
            )
    return f"NCCL's flight recorder: {'; '.join(said)}"
