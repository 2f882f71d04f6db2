"""A fake NVML with two GPUs, for tests; no GPU is used."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from ctrkit.supervise.nvml import NvmlReader

OWN, OTHER = 100, 200


class NotSupportedError(Exception):
    pass


class MadeUpNvml:
    """Two GPUs; the run computes on the second. `left_out` are calls that a card refuses."""

    def __init__(self, *left_out: str, bits: int = 0x1, busy: int = 29) -> None:
        self.left_out, self.bits, self.busy, self.calls = left_out, bits, busy, 0

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        if name in self.left_out or f"_{name}" not in dir(type(self)):
            if "EventReasons" in name:
                raise AttributeError(name)  # an older library

            def refuses(*_: object) -> Any:
                raise NotSupportedError

            return refuses
        self.calls += 1
        return getattr(self, f"_{name}")

    def _nvmlInit(self) -> None:
        pass

    def _nvmlDeviceGetCount(self) -> int:
        return 2

    def _nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def _nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}abc"

    def _nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"NVIDIA Made-up"

    def _nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:
        pids = [OWN, OTHER] if handle == 1 else []
        return [SimpleNamespace(pid=pid, usedGpuMemory=pid * 10**6) for pid in pids]

    def _nvmlSystemGetProcessName(self, pid: int) -> str:
        return f"python{pid}"

    def _nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        return SimpleNamespace(gpu=self.busy, memory=1)

    def _nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=3 * 10**9, total=80 * 10**9, free=0)

    def _nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 312_000

    def _nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return 350_000

    def _nvmlDeviceGetClockInfo(self, handle: int, kind: int) -> int:
        return 990

    def _nvmlDeviceGetMaxClockInfo(self, handle: int, kind: int) -> int:
        return 1980

    def _nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return self.bits


def reader(*left_out: str, environment: dict[str, str] | None = None, **made: Any) -> NvmlReader:
    return NvmlReader(MadeUpNvml(*left_out, **made), 2, environment or {})
