"""GPUs as a made-up `nvidia-smi` tells of them; none takes part."""

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
    assert gpus_of(LISTING, visible) == gpus


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
    assert read_gpus(lambda command: asked.append(command) or LISTING, "0") == (A100,)
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
