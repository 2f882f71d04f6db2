"""GPUs by a made-up NVML: no GPU takes part. The last tests use the real package, if there."""

from __future__ import annotations

import importlib.util
import time
from types import SimpleNamespace
from typing import Any

import pytest

from ctrkit.supervise.gpu import GpuProcess, GpuUse, NvmlReader, added, combined, nvml_reader
from ctrkit.supervise.gpu_findings import gpu_findings

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


def test_the_gpu_that_the_run_computes_on_is_read_and_the_others_on_it_are_named() -> None:
    (look,) = reader(bits=0x4).read({OWN, 7})
    assert (look.index, look.name) == (1, "NVIDIA Made-up")
    assert (look.busy_share, look.power_w, look.power_limit_w) == (0.29, 312.0, 350.0)
    assert (look.memory_bytes, look.memory_total_bytes) == (3 * 10**9, 80 * 10**9)
    assert look.clock_share == 0.5
    assert look.held_by == ("power",)
    assert look.others == (GpuProcess(pid=OTHER, name="python200", used_bytes=200 * 10**6),)


@pytest.mark.parametrize(
    ("bits", "held"),
    [
        (0x0, ()), (0x1, ()), (0x2, ()), (0x80, ("power",)), (0x40, ("heat",)),
        (0x4 | 0x20 | 0x8, ("power", "heat", "a hardware slowdown")),
    ],
)  # fmt: skip
def test_why_clocks_are_held_down(bits: int, held: tuple[str, ...]) -> None:
    assert reader(bits=bits).read({OWN})[0].held_by == held


def test_where_the_driver_numbers_processes_otherwise_the_visible_gpu_is_read_without_others() -> (
    None
):
    assert reader().read({1}) == ()  # two GPUs, and nobody says which
    for visible in ("1", "GPU-1ab", "1,0"):
        (look,) = reader(environment={"CUDA_VISIBLE_DEVICES": visible}).read({1})
        assert (look.index, look.others) == (1, ())
    assert reader(environment={"CUDA_VISIBLE_DEVICES": ""}).read({1}) == ()


def test_what_a_card_does_not_tell_is_none() -> None:
    told = [name for name in dir(MadeUpNvml) if name.startswith("_nvmlDeviceGet")]
    left_out = [name[1:] for name in told if "Handle" not in name and "Processes" not in name]
    (look,) = reader(*left_out).read({OWN})
    assert (look.busy_share, look.memory_bytes, look.power_w, look.clock_share) == (None,) * 4
    assert (look.name, look.held_by) == ("GPU 1", ())
    use = added(GpuUse(), [look] * 5)
    assert gpu_findings(use, 0.5)[:-1] == []  # but that it is shared


def use_of(count: int = 5, **made: Any) -> GpuUse:
    return combined([added(GpuUse(), reader(**made).read({OWN}) * count)])


def test_a_gpu_that_waits_for_the_loader_is_said_so() -> None:
    idle, shared = gpu_findings(use_of(), 0.65)
    assert (
        idle.text
        == "the GPU is idle 71 % of a step: the loader (the loop waits for data 65 % of it)"
    )
    assert idle.share == pytest.approx(0.71)
    assert "python200 (pid 200, 200 MB)" in shared.text


def test_a_gpu_that_waits_for_the_host_is_not_blamed_on_the_loader() -> None:
    (idle, _) = gpu_findings(use_of(), 0.02)
    assert "the host asks for work too slowly" in idle.text
    assert "waits for data only 2 % of it" in idle.text
    (unknown, _) = gpu_findings(use_of(), None)
    assert unknown.confidence == "low"


def test_clocks_that_are_held_down_are_said_with_their_figures() -> None:
    held, _ = gpu_findings(use_of(busy=99, bits=0x4), 0.0)
    assert held.text == (
        "clocks are held down by power in 100 % of the looks at the GPU (312 W on average, the "
        "limit is 350 W); they run at 50 % of the highest clock on average"
    )


def test_few_looks_say_nothing() -> None:
    assert gpu_findings(use_of(count=2, bits=0x4), 0.9) == []


def test_without_a_driver_or_package_there_is_no_reader_and_no_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def no_package() -> Any:
        raise ModuleNotFoundError("pynvml")

    assert nvml_reader(no_package) is None
    assert nvml_reader(lambda: MadeUpNvml("nvmlInit")) is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="no nvidia-ml-py here")
def test_the_real_package_is_silent_and_quick_where_there_is_no_driver(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pynvml = importlib.import_module("pynvml")
    try:
        pynvml.nvmlInit()
        pytest.skip("there is a driver")
    except pynvml.NVMLError:
        pass
    began_s = time.process_time()
    assert nvml_reader(lambda: pynvml) is None
    assert time.process_time() - began_s < 5
    assert capfd.readouterr() == ("", "")


def test_the_real_package_has_what_is_asked_of_it() -> None:
    pynvml = pytest.importorskip("pynvml")
    asked = {name[1:] for name in dir(MadeUpNvml) if name.startswith("_nvml")}
    assert {name for name in asked if not hasattr(pynvml, name)} == set()
