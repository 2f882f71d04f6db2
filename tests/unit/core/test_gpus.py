"""GPUs in the output of a fake `nvidia-smi`; no real one is used."""

from __future__ import annotations

import pytest

from ctrkit.core import environment
from ctrkit.core.gpus import Gpu, gpus_of, read_gpus

LISTING = (
    "0, GPU-aaa1, NVIDIA A100-SXM4-40GB, 40960 MiB, 550.54.15\n"
    "1, GPU-bbb2, NVIDIA H100 80GB HBM3, 81559 MiB, 550.54.15\n"
)
A100 = Gpu("NVIDIA A100-SXM4-40GB", 40960, "550.54.15")
H100 = Gpu("NVIDIA H100 80GB HBM3", 81559, "550.54.15")


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [
        (None, (A100, H100)), ("1", (H100,)), ("1,0", (H100, A100)), ("GPU-b", (H100,)),
        ("", ()), ("-1", ()), ("1,7,0", (H100,)),
    ],
)  # fmt: skip
def test_those_that_cuda_may_use_in_its_order(visible: str | None, gpus: tuple[Gpu, ...]) -> None:
    assert gpus_of(LISTING, visible, in_bus_order=True) == gpus


def test_of_two_kinds_a_number_does_not_tell_which_it_is_but_differs_from_the_other() -> None:
    first, second = (gpus_of(LISTING, number)[0] for number in ("0", "1"))
    names = "NVIDIA A100-SXM4-40GB and NVIDIA H100 80GB HBM3"
    assert first.words == f"CUDA's device 0 of {names}, driver 550.54.15"
    assert second.name == f"CUDA's device 1 of {names}"
    assert gpus_of(LISTING, "GPU-b") == (H100,)
    line = LISTING.splitlines()[0]
    two_alike = line + "\n" + line.replace("0, GPU-a", "1, GPU-c", 1)
    assert gpus_of(two_alike, "1,0") == (A100, A100)


PARTS = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aaa1)
  MIG 1g.5gb      Device  0: (UUID: MIG-c7a1)
  MIG 3g.20gb     Device  1: (UUID: MIG-d8b2)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbb2)
  MIG 3g.40gb     Device  0: (UUID: MIG-e9c3)
"""


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("MIG-d8b2", ["NVIDIA A100-SXM4-40GB, MIG 3g.20gb"]),
        ("MIG-e9", ["NVIDIA H100 80GB HBM3, MIG 3g.40gb"]),
        ("MIG-c7a1,MIG-nowhere", ["NVIDIA A100-SXM4-40GB, MIG 1g.5gb"]),
        ("MIG-nowhere", []),
    ],
)
def test_a_part_of_a_divided_gpu_is_told_by_its_profile(visible: str, names: list[str]) -> None:
    def run(command: list[str]) -> str:
        return PARTS if "-L" in command else LISTING

    assert [gpu.name for gpu in read_gpus(run, visible)] == names


@pytest.mark.parametrize(
    "listing",
    [
        "",
        "No devices were found\n",
        "NVIDIA-SMI has failed because it couldn't, well, talk, to, it\n",
    ],
)
def test_troubles_are_no_gpus(listing: str) -> None:
    assert gpus_of(listing, None) == ()


def test_memory_that_is_not_told_is_0() -> None:
    (gpu,) = gpus_of("0, GPU-1, NVIDIA GB10, [N/A], 580.1", None)
    assert gpu == Gpu("NVIDIA GB10", 0, "580.1")


def test_the_program_is_asked_for_names_memory_and_driver() -> None:
    asked = []
    assert read_gpus(lambda command: asked.append(command) or LISTING, "GPU-a") == (A100,)
    assert asked == [["nvidia-smi", "--query-gpu=index,uuid,name,memory.total,driver_version",
                      "--format=csv,noheader"]]  # fmt: skip


def test_another_gpu_memory_or_driver_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = []
    for gpus in ((), (A100,), (H100,), (A100, A100), (Gpu(A100.name, 81920, A100.driver),),
                 (Gpu(A100.name, A100.memory_mib, "560.1"),)):  # fmt: skip
        monkeypatch.setattr(environment, "visible_gpus", lambda gpus=gpus: gpus)
        prints.append(environment.machine_fingerprint())
        assert environment.describe_machine().get("gpus", []) == [gpu.words for gpu in gpus]
    assert len(set(prints)) == len(prints)
