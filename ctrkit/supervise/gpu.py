"""Samples the GPU of a run with NVIDIA's library: load, memory, power, clocks, other processes.

The library is `nvidia-ml-py` (the extra `cuda`). Without it, without a driver or without a GPU
there is no reader, silently. What a card does not tell is None.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

#: Why clocks are lower than they could be: bits of NVML, the same in all its versions.
_HELD_BY = {"power": 0x4 | 0x80, "heat": 0x20 | 0x40, "a hardware slowdown": 0x8}
_MW, _MHZ_KIND = 1e-3, 1  # NVML_CLOCK_SM


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that computes on a GPU; bytes are None where the driver does not tell."""

    pid: int
    name: str
    used_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class GpuSample:
    """One GPU at one moment.

    `busy_share`: of the last moments, in which a kernel ran. `clock_share`: of its highest clock.
    `held_by`: what holds its clocks down, among `power`, `heat` and `a hardware slowdown`. `others`
    compute on it and are not of the run; empty where it is not known which process the run is.
    """

    index: int
    name: str
    busy_share: float | None = None
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_share: float | None = None
    held_by: tuple[str, ...] = ()
    others: tuple[GpuProcess, ...] = ()


class GpuReader(Protocol):
    """Reads the GPUs that some processes compute on."""

    def read(self, pids: Collection[int]) -> tuple[GpuSample, ...]: ...


@lru_cache(maxsize=1)
def open_gpus() -> GpuReader | None:
    """The reader of this machine's GPUs, None where there is no library, driver or GPU."""
    return nvml_reader(lambda: importlib.import_module("pynvml"))


def nvml_reader(load: Callable[[], Any]) -> GpuReader | None:
    """A reader by a library that `load` imports, None where it cannot be had."""
    try:
        nvml = load()
        nvml.nvmlInit()
        count = int(nvml.nvmlDeviceGetCount())
    except Exception:  # no package; else its own errors: no driver, another version, no permission
        return None
    return NvmlReader(nvml, count) if count else None


class NvmlReader:
    """Reads GPUs by NVML.

    Args:
        nvml: the module `pynvml`, initialised.
        count: of its GPUs.
        environment: tells which of them CUDA may use.
    """

    def __init__(self, nvml: Any, count: int, environment: Mapping[str, str] | None = None) -> None:
        self._nvml = nvml
        self._handles = {i: nvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)}
        visible = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
        self._visible = self._visible_gpus(visible)

    def read(self, pids: Collection[int]) -> tuple[GpuSample, ...]:
        """The GPUs that these processes compute on.

        In a container the driver may number processes otherwise: then the first that CUDA may use.
        """
        computing = {i: self._processes(handle) for i, handle in self._handles.items()}
        own = [i for i, found in computing.items() if any(one.pid in pids for one in found)]
        if own:
            return tuple(
                self._look(i, tuple(one for one in computing[i] if one.pid not in pids))
                for i in own
            )
        return tuple(self._look(i, ()) for i in self._visible[:1])

    def _visible_gpus(self, visible: str | None) -> list[int]:
        """Numbers of the GPUs that CUDA may use, its first one first; empty where not known."""
        if visible is None:
            # which of several is CUDA's first is its own affair: it begins with the fastest
            return list(self._handles) if len(self._handles) == 1 else []
        found = []
        for word in visible.split(","):
            for i, handle in self._handles.items():
                uuid = _told(lambda h=handle: self._nvml.nvmlDeviceGetUUID(h))  # type: ignore[misc]
                if word.strip() and (
                    word.strip() == str(i) or _text(uuid).startswith(word.strip())
                ):
                    found.append(i)
        return found

    def _processes(self, handle: Any) -> list[GpuProcess]:
        listed = _told(lambda: self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
        return [
            GpuProcess(
                pid=int(one.pid),
                name=_text(_told(lambda p=one.pid: self._nvml.nvmlSystemGetProcessName(p))),  # type: ignore[misc]
                used_bytes=getattr(one, "usedGpuMemory", None),
            )
            for one in listed
        ]

    def _look(self, index: int, others: tuple[GpuProcess, ...]) -> GpuSample:
        nvml, handle = self._nvml, self._handles[index]
        rates = _told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        memory = _told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        power = _told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        limit = _told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        clock = _told(lambda: nvml.nvmlDeviceGetClockInfo(handle, _MHZ_KIND))
        most = _told(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, _MHZ_KIND))
        return GpuSample(
            index=index,
            name=_text(_told(lambda: nvml.nvmlDeviceGetName(handle))) or f"GPU {index}",
            busy_share=None if rates is None else rates.gpu / 100,
            memory_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            power_w=None if power is None else power * _MW,
            power_limit_w=None if limit is None else limit * _MW,
            clock_share=clock / most if clock is not None and most else None,
            held_by=self._held_by(handle),
            others=others,
        )

    def _held_by(self, handle: Any) -> tuple[str, ...]:
        """The newer name of the call first; a card that tells nothing is held by nothing."""
        for name in ("Event", "Throttle"):
            read = getattr(self._nvml, f"nvmlDeviceGetCurrentClocks{name}Reasons", None)
            bits = None if read is None else _told(lambda r=read: r(handle))  # type: ignore[misc]
            if bits is not None:
                return tuple(word for word, mask in _HELD_BY.items() if bits & mask)
        return ()


def _told(call: Callable[[], Any]) -> Any:
    """What the library says, None where this card or driver does not."""
    with suppress(Exception):  # NVMLError, whose classes are made at run time
        return call()
    return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """What a run's GPUs did over some samples: means, the most memory, and who else was there."""

    name: str = ""
    samples: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_limit_w: float | None = None
    held: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[int, GpuProcess] = field(default_factory=dict)

    def mean(self, figure: str) -> float | None:
        """Of `busy_share`, `power_w` or `clock_share`; None where no sample had it."""
        count = self.counts.get(figure, 0)
        return self.sums[figure] / count if count else None

    def held_share(self, why: str) -> float:
        """Share of the samples in which the clocks were held down by it."""
        return self.held.get(why, 0) / self.samples if self.samples else 0.0

    @property
    def others_bytes(self) -> int | None:
        """Memory that other processes took of the run's GPUs; None where there were none."""
        known = [one.used_bytes or 0 for one in self.others.values()]
        return sum(known) if known else None


def added(use: GpuUse, looks: Sequence[GpuSample]) -> GpuUse:
    """The use with one more look at each of the run's GPUs."""
    for look in looks:
        sums, counts, held = dict(use.sums), dict(use.counts), dict(use.held)
        for figure in ("busy_share", "power_w", "clock_share"):
            value = getattr(look, figure)
            if value is not None:
                sums[figure] = sums.get(figure, 0.0) + value
                counts[figure] = counts.get(figure, 0) + 1
        for why in look.held_by:
            held[why] = held.get(why, 0) + 1
        use = GpuUse(
            name=use.name or look.name,
            samples=use.samples + 1,
            sums=sums,
            counts=counts,
            memory_bytes=_most(use.memory_bytes, look.memory_bytes),
            memory_total_bytes=look.memory_total_bytes or use.memory_total_bytes,
            power_limit_w=look.power_limit_w or use.power_limit_w,
            held=held,
            others={**use.others, **{one.pid: one for one in look.others}},
        )
    return use


def combined(uses: Sequence[GpuUse]) -> GpuUse:
    """The use over several launches."""
    whole = GpuUse()
    for use in uses:
        whole = GpuUse(
            name=whole.name or use.name,
            samples=whole.samples + use.samples,
            sums=_summed(whole.sums, use.sums),
            counts={k: int(v) for k, v in _summed(whole.counts, use.counts).items()},
            memory_bytes=_most(whole.memory_bytes, use.memory_bytes),
            memory_total_bytes=use.memory_total_bytes or whole.memory_total_bytes,
            power_limit_w=use.power_limit_w or whole.power_limit_w,
            held={k: int(v) for k, v in _summed(whole.held, use.held).items()},
            others={**whole.others, **use.others},
        )
    return whole


def _summed(one: Mapping[str, float], two: Mapping[str, float]) -> dict[str, float]:
    return {key: one.get(key, 0) + two.get(key, 0) for key in {*one, *two}}


def _most(one: int | None, two: int | None) -> int | None:
    return two if one is None else one if two is None else max(one, two)
