"""GPUs through a fake NVML: no GPU is used. The last tests use the real package if installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from made_up_nvml import OTHER, OWN, MadeUpNvml, reader

from ctrkit.supervise import nvml
from ctrkit.supervise.gpu import GpuProcess, GpuSample, GpuUse, added
from ctrkit.supervise.gpu_findings import gpu_findings
from ctrkit.supervise.nvml import AsideReader, NvmlReader, nvml_reader, open_gpus


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


FIRST, SECOND = "GPU-0abc", "GPU-1abc"


@pytest.mark.parametrize(
    ("visible", "script", "built_in"),
    [
        # a script may use any of those that it sees; what ctrkit trains itself uses the first
        (None, [], [0]), ("", [], []), ("-1", [], []), ("NoDevFiles", [], []),
        ("1", [1], [1]), (" 1 ", [1], [1]), (SECOND, [1], [1]), ("GPU-1", [1], [1]),
        ("1,0", [], [1]), (f"{SECOND},{FIRST}", [], [1]),
        ("1,7,0", [1], [1]),  # CUDA uses none from the first on that is not there
        ("7,1", [], []),
    ],
)  # fmt: skip
def test_where_the_driver_numbers_processes_otherwise_only_a_gpu_that_must_be_it_is_read(
    visible: str | None, script: list[int], built_in: list[int]
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    for uses_first, expected in ((False, script), (True, built_in)):
        looks = reader(environment=environment).read({1}, uses_first=uses_first)
        assert [look.index for look in looks] == expected
        assert all(look.others == () for look in looks)


class TwoKinds(MadeUpNvml):
    """CUDA counts the fastest card first; NVML counts by the place on the bus."""

    def _nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"Slow" if handle == 0 else b"Fast"


def test_a_number_means_another_card_to_cuda_where_they_are_of_two_kinds() -> None:
    def read(visible: str, order: str | None = None) -> list[str]:
        environment = {"CUDA_VISIBLE_DEVICES": visible}
        environment |= {} if order is None else {"CUDA_DEVICE_ORDER": order}
        looks = NvmlReader(TwoKinds(), 2, environment).read({1}, uses_first=True)
        return [look.name for look in looks]

    assert read("0") == read("0", "FASTEST_FIRST") == []
    assert read("0", "PCI_BUS_ID") == ["Slow"]
    assert read(SECOND) == ["Fast"]
    (look,) = NvmlReader(TwoKinds(), 2, {"CUDA_VISIBLE_DEVICES": "0"}).read({OWN})
    assert look.name == "Fast"  # the process tells, whatever the number means


class Divided(MadeUpNvml):
    """The first GPU is divided (MIG); the run computes on its second part."""

    def _nvmlDeviceGetMigMode(self, handle: Any) -> list[int]:
        return [1, 1] if handle == 0 else [0, 0]

    def _nvmlDeviceGetMaxMigDeviceCount(self, handle: Any) -> int:
        return 7

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, part: int) -> str:
        if part > 1:
            raise RuntimeError("not found")
        return f"part {part}"

    def _nvmlDeviceGetUUID(self, handle: Any) -> str:
        return f"MIG-{handle[-1]}fff" if isinstance(handle, str) else f"GPU-{handle}abc"

    def _nvmlDeviceGetComputeRunningProcesses(self, handle: Any) -> list[Any]:
        pids = {"part 0": [OTHER], "part 1": [OWN]}.get(handle)
        if pids is None:
            raise RuntimeError("no permission for the whole")
        return [type("P", (), {"pid": pid, "usedGpuMemory": None}) for pid in pids]

    def _nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        total = 10 * 10**9 if isinstance(handle, str) else 80 * 10**9
        return type("M", (), {"used": 10**9, "total": total})

    def _nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        if isinstance(handle, str):
            raise RuntimeError("not supported")
        return super()._nvmlDeviceGetUtilizationRates(handle)


def test_of_a_divided_gpu_the_part_is_read_and_who_computes_on_another_part_is_no_other() -> None:
    (look,) = NvmlReader(Divided(), 2, {}).read({OWN})
    assert (look.index, look.memory_total_bytes, look.busy_share) == (0, 10 * 10**9, None)
    assert (look.others, look.power_w) == ((), 312.0)
    for visible, handles in (("MIG-1f", ["part 1"]), ("0", ["part 0"]), ("MIG-9", [])):
        found = NvmlReader(Divided(), 2, {"CUDA_VISIBLE_DEVICES": visible})._visible()
        assert [one.handle for one in found] == handles


class Lost(MadeUpNvml):
    """A card that has fallen off the bus, or that this user may not open."""

    def _nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 0:
            raise RuntimeError("GPU is lost")
        return index


def test_a_card_that_is_lost_takes_nothing_from_the_others() -> None:
    found = nvml_reader(lambda: Lost())
    assert found is not None
    assert [look.index for look in found.read({OWN})] == [1]
    assert nvml_reader(lambda: MadeUpNvml("nvmlDeviceGetHandleByIndex")) is None


def test_an_older_driver_is_asked_by_an_older_call() -> None:
    class Older(MadeUpNvml):
        def _nvmlDeviceGetComputeRunningProcesses_v2(self, handle: int) -> list[Any]:
            return super()._nvmlDeviceGetComputeRunningProcesses(handle)

    found = NvmlReader(Older("nvmlDeviceGetComputeRunningProcesses"), 2, {})
    assert [look.index for look in found.read({OWN})] == [1]


class Slow:
    """A reader of a driver that hangs until it is released."""

    def __init__(self) -> None:
        self.released, self.asked = threading.Event(), 0

    def read(self, pids: Any, *, uses_first: bool = False) -> tuple[GpuSample, ...]:
        self.asked += 1
        self.released.wait(20)
        return (GpuSample(index=self.asked, name="slow"),)


def test_a_driver_that_hangs_holds_up_nobody_and_is_asked_once() -> None:
    slow = Slow()
    aside = AsideReader(lambda: slow, wait_s=0.05)
    assert [aside.read({OWN}) for _ in range(4)] == [()] * 4
    assert slow.asked == 1
    slow.released.set()
    deadline_s = time.monotonic() + 20
    while not (found := aside.read({OWN})):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert found[0].index >= 2  # not the late answer, which is of another moment


@pytest.mark.parametrize("broken", [None, "read", "open"])
def test_what_cannot_be_read_or_breaks_is_nothing(broken: str | None) -> None:
    class Broken:
        def read(self, pids: Any, *, uses_first: bool = False) -> tuple[GpuSample, ...]:
            raise ValueError("a driver of another version")

    def opened() -> Any:
        if broken == "open":
            raise OSError("libnvidia-ml.so is a text file")
        return Broken() if broken == "read" else None

    aside = AsideReader(opened, wait_s=20)
    assert [aside.read({OWN}) for _ in range(3)] == [()] * 3


def test_without_the_package_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    open_gpus.cache_clear()
    monkeypatch.setattr(nvml.importlib.util, "find_spec", lambda name: None)
    assert open_gpus() is None
    open_gpus.cache_clear()


LIBRARY = """
import time

def nvmlInit():
    {opening}

def nvmlDeviceGetCount():
    return 1

def nvmlDeviceGetHandleByIndex(index):
    return index
"""
READS = """
import json, time
from ctrkit.supervise.nvml import open_gpus
reader, deadline_s = open_gpus(), time.monotonic() + 5
while not (found := reader.read({1}, uses_first=True)) and time.monotonic() < deadline_s:
    time.sleep(0.05)
print(json.dumps([look.name for look in found]))
"""


@pytest.mark.parametrize(
    ("opening", "names"),
    [("pass", ["GPU 0"]), ("time.sleep(600)", []), ("raise OSError('a driver')", [])],
)
def test_a_library_that_is_found_on_the_path(
    tmp_path: Path, opening: str, names: list[str]
) -> None:
    """It may hang when it is opened; the process ends all the same."""
    (tmp_path / "pynvml.py").write_text(LIBRARY.format(opening=opening))
    root = Path(nvml.__file__).parents[2]
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{root}"
    done = subprocess.run(
        [sys.executable, "-c", READS], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == names


def test_what_a_card_does_not_tell_is_none() -> None:
    told = [name for name in dir(MadeUpNvml) if name.startswith("_nvmlDeviceGet")]
    left_out = [name[1:] for name in told if "Handle" not in name and "Processes" not in name]
    (look,) = reader(*left_out).read({OWN})
    assert (look.busy_share, look.memory_bytes, look.power_w, look.clock_share) == (None,) * 4
    assert (look.name, look.held_by) == ("GPU 1", None)
    use = added(GpuUse(), [look] * 5)
    assert gpu_findings(use, 0.5)[:-1] == []  # but that it is shared
    assert use.held_share("power") is None


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
    asked = {name[1:] for name in (*dir(Divided), *dir(MadeUpNvml)) if name.startswith("_nvml")}
    asked.add("nvmlDeviceGetComputeRunningProcesses_v2")
    assert {name for name in asked if not hasattr(pynvml, name)} == set()
