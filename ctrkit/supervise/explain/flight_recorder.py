"""Reads NCCL's flight recorder: the collectives of each rank, and the one that a rank hangs in.

torch keeps the latest collectives of each process in a ring buffer. Environment variables enable it
for our own ranks. A byte written to a rank's pipe makes torch write the buffer to a file, as it
does when NCCL times out. A dump shows which collective waits, and which line started it. Why a rank
has not reached it, our own stacks show.
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
#: Prefixes of torch's variables for the buffer, its file and its pipe; newer versions know the
#: older names.
_OWN_NAMES = ("TORCH_FR_", "TORCH_NCCL_TRACE_", "TORCH_NCCL_DEBUG_INFO_", "TORCH_NCCL_DUMP_")


def recorder_variables(
    spec: ChildSpec, folder: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Variables that enable the recorder for ranks that use NCCL; empty for others.

    Variables that the user has set stay as they are.
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
    """A collective as one rank recorded it; `place` is the innermost line outside torch."""

    number: int
    name: str
    state: str
    place: str = ""

    @property
    def is_done(self) -> bool:
        """Whether it is complete for this rank."""
        return self.state == "completed"


def collect_dumps(
    folder: Path, evidence: Path, *, ask: bool, enough: Callable[[], bool] = lambda: False
) -> str:
    """Keep the dumps of a child's ranks as evidence; returns what they show, empty without any.

    Args:
        folder: the child's folder.
        evidence: the folder for the dumps.
        ask: whether its ranks live, and are asked for their dumps first.
        enough: returns whether to stop waiting for dumps.
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
    """Let each listening rank write its dump, and wait a moment for complete files."""
    asked = {}
    for pipe in folder.glob(f"{_PIPE}*.pipe"):
        with suppress(OSError):  # nothing reads the pipe: the rank has ended
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
    """Unpickles only containers, texts and numbers, so that a file cannot run code here."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list  # torch's class for a list of a single type
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def read_dump(path: Path) -> list[Collective]:
    """The collectives in a dump, oldest first; empty if it is incomplete or something else."""
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
    """The innermost frame outside torch, as `train.py:88 in step`."""
    for frame in frames:
        filename = str(frame.get("filename", ""))
        if filename and "/torch/" not in filename:
            return f"{Path(filename).name}:{frame.get('line')} in {frame.get('name')}"
    return ""


def hang_words(rings: Mapping[int, Sequence[Collective]]) -> str:
    """Which ranks wait in which collective, and which have not reached it; empty if none waits."""
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
