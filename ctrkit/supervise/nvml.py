"""Reads GPUs with NVIDIA's own library, `nvidia-ml-py` (the extra `cuda`).

Without the library, a driver or a GPU it reads nothing, silently.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import Any

from ctrkit.supervise.gpu import GpuProcess, GpuReader, GpuSample

#: Bits of NVML for the reasons why clocks are low, the same in all its versions.
_HELD_BY = {"power": 0x4 | 0x80, "heat": 0x20 | 0x40, "a hardware slowdown": 0x8}
_MW, _MHZ_KIND = 1e-3, 1  # NVML_CLOCK_SM


@lru_cache(maxsize=1)
def open_gpus() -> GpuReader | None:
    """A reader for this machine's GPUs; None without the library."""
    if importlib.util.find_spec("pynvml") is None:
        return None
    return AsideReader(lambda: nvml_reader(lambda: importlib.import_module("pynvml")))


def nvml_reader(load: Callable[[], Any]) -> GpuReader | None:
    """A reader with the library that `load` imports; None if that fails."""
    try:
        nvml = load()
        nvml.nvmlInit()
        reader = NvmlReader(nvml, int(nvml.nvmlDeviceGetCount()))
    # no package, or the library's own errors: no driver, another version, no permission
    except Exception:
        return None
    return reader if reader.devices else None


class AsideReader:
    """Calls another reader in its own thread, so that a hanging driver does not block the caller.

    Args:
        open_reader: makes the other reader; called in that thread.
        wait_s: the longest that `read` waits for an answer.
    """

    def __init__(self, open_reader: Callable[[], GpuReader | None], wait_s: float = 0.25) -> None:
        self._open_reader, self._wait_s = open_reader, wait_s
        self._asked: SimpleQueue[tuple[Collection[int], bool]] = SimpleQueue()
        self._answers: SimpleQueue[tuple[GpuSample, ...]] = SimpleQueue()
        self._unanswered = 0
        self._thread: threading.Thread | None = None

    def read(self, pids: Collection[int], *, uses_first: bool = False) -> tuple[GpuSample, ...]:
        """Read as the other reader does; empty if it does not answer in time, and until it has."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="nvml", daemon=True)
            self._thread.start()
        with suppress(Empty):
            while self._unanswered:  # discard a late answer to an earlier call
                self._answers.get_nowait()
                self._unanswered -= 1
        if self._unanswered:
            return ()
        self._asked.put((frozenset(pids), uses_first))
        self._unanswered = 1
        with suppress(Empty):
            answer = self._answers.get(timeout=self._wait_s)
            self._unanswered = 0
            return answer
        return ()

    def _serve(self) -> None:
        reader: GpuReader | None = None
        with suppress(Exception):
            reader = self._open_reader()
        while True:
            pids, uses_first = self._asked.get()
            found: tuple[GpuSample, ...] = ()
            if reader is not None:
                with suppress(Exception):  # the library's errors have no common class
                    found = reader.read(pids, uses_first=uses_first)
            self._answers.put(found)


@dataclass(frozen=True)
class _Device:
    """A device as CUDA counts it: a GPU, or a part of one (MIG) with its own handle."""

    index: int
    uuid: str
    handle: Any
    gpu: Any


class NvmlReader:
    """Reads GPUs with NVML.

    Args:
        nvml: the module `pynvml`, initialised.
        count: number of its GPUs.
        environment: says which of them CUDA may use.
    """

    def __init__(self, nvml: Any, count: int, environment: Mapping[str, str] | None = None) -> None:
        self._nvml = nvml
        self._environment = os.environ if environment is None else environment
        handles = {i: self._told("nvmlDeviceGetHandleByIndex", i) for i in range(count)}
        self._gpus = {i: gpu for i, gpu in handles.items() if gpu is not None}  # a GPU may be lost
        #: all devices that a process can compute on
        self.devices = [one for i, gpu in self._gpus.items() for one in self._devices_of(i, gpu)]

    def read(self, pids: Collection[int], *, uses_first: bool = False) -> tuple[GpuSample, ...]:
        """Sample the GPUs that these processes compute on.

        In a container, the driver may use other process ids. Then the only device that CUDA may use
        is read; if there are several, the first one, if the run is known to use it (`uses_first`).
        """
        computing = [(device, self._processes(device)) for device in self.devices]
        own = [
            self._look(device, tuple(one for one in found if one.pid not in pids))
            for device, found in computing
            if any(one.pid in pids for one in found)
        ]
        if own:
            return tuple(own)
        visible = self._visible()
        known = visible[:1] if uses_first or len(visible) == 1 else []
        return tuple(self._look(device, ()) for device in known)

    def _told(self, call: str, *arguments: Any) -> Any:
        """The library's answer; None if this card, driver or library gives none."""
        with suppress(Exception):  # NVMLError, whose classes are made at run time
            return getattr(self._nvml, call)(*arguments)
        return None

    def _devices_of(self, index: int, gpu: Any) -> list[_Device]:
        mode = self._told("nvmlDeviceGetMigMode", gpu)
        if not mode or mode[0] != 1:
            return [_Device(index, self._uuid(gpu), gpu, gpu)]
        count = self._told("nvmlDeviceGetMaxMigDeviceCount", gpu) or 0
        parts = [self._told("nvmlDeviceGetMigDeviceHandleByIndex", gpu, i) for i in range(count)]
        return [_Device(index, self._uuid(part), part, gpu) for part in parts if part is not None]

    def _uuid(self, handle: Any) -> str:
        return _text(self._told("nvmlDeviceGetUUID", handle))

    def _visible(self) -> list[_Device]:
        """The devices that CUDA may use, in CUDA's order; empty if unknown."""
        visible = self._environment.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return self.devices if len(self.devices) == 1 or self._is_in_order() else []
        found = []
        for word in (part.strip() for part in visible.split(",")):
            if word.isdigit():
                if len(self._gpus) > 1 and not self._is_in_order():
                    return []
                same = [one for one in self.devices if one.index == int(word)]
            else:
                same = [one for one in self.devices if word and one.uuid.startswith(word)]
            if not same:
                break  # CUDA stops at the first id that does not exist
            found.append(same[0])
        return found

    def _is_in_order(self) -> bool:
        """Whether CUDA orders GPUs as NVML does.

        If not, it begins with the one it considers fastest.
        """
        names = {_text(self._told("nvmlDeviceGetName", gpu)) for gpu in self._gpus.values()}
        return self._environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(names) == 1

    def _processes(self, device: _Device) -> list[GpuProcess]:
        call = "nvmlDeviceGetComputeRunningProcesses"
        listed = self._told(call, device.handle)
        if listed is None:  # a driver that is older than the library
            listed = self._told(f"{call}_v2", device.handle) or []
        return [
            GpuProcess(
                pid=int(one.pid),
                name=_text(self._told("nvmlSystemGetProcessName", one.pid)),
                used_bytes=getattr(one, "usedGpuMemory", None),
            )
            for one in listed
        ]

    def _look(self, device: _Device, others: tuple[GpuProcess, ...]) -> GpuSample:
        """Sample a device: its own memory and load, power and clocks of the whole GPU."""
        rates = self._told("nvmlDeviceGetUtilizationRates", device.handle)
        memory = self._told("nvmlDeviceGetMemoryInfo", device.handle)
        power = self._told("nvmlDeviceGetPowerUsage", device.gpu)
        limit = self._told("nvmlDeviceGetEnforcedPowerLimit", device.gpu)
        clock = self._told("nvmlDeviceGetClockInfo", device.gpu, _MHZ_KIND)
        most = self._told("nvmlDeviceGetMaxClockInfo", device.gpu, _MHZ_KIND)
        return GpuSample(
            index=device.index,
            name=_text(self._told("nvmlDeviceGetName", device.handle)) or f"GPU {device.index}",
            busy_share=None if rates is None else rates.gpu / 100,
            memory_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            power_w=None if power is None else power * _MW,
            power_limit_w=None if limit is None else limit * _MW,
            clock_share=clock / most if clock is not None and most else None,
            held_by=self._held_by(device.gpu),
            others=others,
        )

    def _held_by(self, gpu: Any) -> tuple[str, ...] | None:
        """By the newer name of the call, else by the older one."""
        for name in ("Event", "Throttle"):
            bits = self._told(f"nvmlDeviceGetCurrentClocks{name}Reasons", gpu)
            if bits is not None:
                return tuple(word for word, mask in _HELD_BY.items() if bits & mask)
        return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)
