"""The NVIDIA GPUs that CUDA may use here, from `nvidia-smi`; an empty list without it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ctrkit.core.subprocesses import output_of

_ASKED = "index,uuid,name,memory.total,driver_version"


@dataclass(frozen=True)
class Gpu:
    """A GPU; equal where a measurement of one holds for the other."""

    name: str
    memory_mib: int
    driver: str

    @property
    def words(self) -> str:
        """`NVIDIA H100, 81559 MiB, driver 550.54`."""
        return f"{self.name}, {self.memory_mib} MiB, driver {self.driver}"


def gpus_of(listing: str, visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs of a listing, a line each, that `CUDA_VISIBLE_DEVICES` lets CUDA use.

    A line that is no GPU is left out: the program prints its troubles there, too.
    """
    found: dict[str, tuple[str, Gpu]] = {}
    for line in listing.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) < 5 or not parts[0].isdigit():
            continue
        index, uuid, *name, memory, driver = parts
        mib = memory.split()[0] if memory else ""
        gpu = Gpu(", ".join(name), int(mib) if mib.isdigit() else 0, driver)
        found[index] = (uuid, gpu)
    if visible is None:
        return tuple(gpu for _, gpu in found.values())
    chosen = []
    for word in filter(None, (part.strip() for part in visible.split(","))):
        same = [gpu for i, (uuid, gpu) in found.items() if word == i or uuid.startswith(word)]
        if not same:
            break  # CUDA uses none from the first on that is not there
        chosen += same[:1]
    return tuple(chosen)


def read_gpus(run: Callable[[Sequence[str]], str], visible: str | None) -> tuple[Gpu, ...]:
    """Those that the program `nvidia-smi` tells of."""
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    return gpus_of(run(command), visible)


@cache
def visible_gpus() -> tuple[Gpu, ...]:
    """Those of this machine; they do not change while a command runs."""
    if shutil.which("nvidia-smi") is None:
        return ()
    return read_gpus(output_of, os.environ.get("CUDA_VISIBLE_DEVICES"))
