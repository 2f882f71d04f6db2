"""The NVIDIA GPUs that CUDA may use here, from `nvidia-smi`; an empty list without it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from ctrkit.core.subprocesses import output_of

_ASKED = "index,uuid,name,memory.total,driver_version"


@dataclass(frozen=True)
class Gpu:
    """A GPU. Two are equal if a measurement of one holds for the other."""

    name: str
    memory_mib: int
    driver: str

    @property
    def words(self) -> str:
        """`NVIDIA H100, 81559 MiB, driver 550.54`; memory that is not known is left out."""
        memory = f", {self.memory_mib} MiB" if self.memory_mib else ""
        return f"{self.name}{memory}, driver {self.driver}"


@dataclass(frozen=True)
class _Listed:
    """A GPU of the listing."""

    index: str
    uuid: str
    gpu: Gpu


def gpus_of(
    listing: str, visible: str | None, *, in_bus_order: bool = False, parts: str = ""
) -> tuple[Gpu, ...]:
    """The GPUs in a listing of `nvidia-smi` that `CUDA_VISIBLE_DEVICES` lets CUDA use.

    A line that describes no GPU is skipped: the program also prints its errors there.

    Args:
        listing: the output of `nvidia-smi` for `_ASKED`, a line per GPU.
        visible: the variable's value; None if it is not set.
        in_bus_order: whether CUDA numbers GPUs in the listing's order. If not, CUDA begins with the
            card that it considers fastest, so with different kinds a number does not tell the card.
        parts: output of `nvidia-smi -L`, for divided GPUs (MIG).
    """
    listed = list(filter(None, map(_listed, listing.splitlines())))
    if visible is None:
        return tuple(one.gpu for one in listed)
    names = dict.fromkeys(one.gpu.name for one in listed)
    chosen: list[Gpu] = []
    for word in filter(None, (part.strip() for part in visible.split(","))):
        if word.startswith("MIG-"):
            same = _part(word, listed, parts)
        elif word.isdigit():
            same = [one.gpu for one in listed if one.index == word]
            if len(names) > 1 and not in_bus_order:
                name = f"CUDA's device {word} of {' and '.join(names)}"
                same = [Gpu(name, 0, gpu.driver) for gpu in same]
        else:
            same = [one.gpu for one in listed if one.uuid.startswith(word)]
        if not same:
            break  # CUDA stops at the first id that does not exist
        chosen += same[:1]
    return tuple(chosen)


def _listed(line: str) -> _Listed | None:
    parts = [part.strip() for part in line.split(",")]
    if len(parts) < 5 or not parts[0].isdigit():
        return None
    index, uuid, *name, memory, driver = parts
    mib = memory.split()[0] if memory else ""
    return _Listed(index, uuid, Gpu(", ".join(name), int(mib) if mib.isdigit() else 0, driver))


def _part(word: str, listed: Sequence[_Listed], parts: str) -> list[Gpu]:
    """The part of a divided GPU with this UUID: `NVIDIA A100, MIG 1g.5gb`.

    Its memory is in the name of its profile.
    """
    whole: _Listed | None = None
    for line in parts.splitlines():
        if uuid := re.search(r"UUID: (GPU-[^)]+)", line):
            whole = next((one for one in listed if one.uuid == uuid[1]), None)
        found = re.match(r"\s+(MIG \S+)\s.*UUID: (MIG-[^)]+)", line)
        if found and whole is not None and found[2].startswith(word):
            return [Gpu(f"{whole.gpu.name}, {found[1]}", 0, whole.gpu.driver)]
    return []


def read_gpus(
    run: Callable[[Sequence[str]], str], visible: str | None, *, in_bus_order: bool = False
) -> tuple[Gpu, ...]:
    """The GPUs that `nvidia-smi` lists and CUDA may use."""
    command = ["nvidia-smi", f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    parts = run(["nvidia-smi", "-L"]) if "MIG-" in (visible or "") else ""
    return gpus_of(run(command), visible, in_bus_order=in_bus_order, parts=parts)


@cache
def visible_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine that CUDA may use; cached, since they do not change meanwhile."""
    if shutil.which("nvidia-smi") is None:
        return ()
    in_bus_order = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return read_gpus(output_of, visible, in_bus_order=in_bus_order)
