"""Copies beside the step on a fake device: what is queued where, and in which order.

No GPU takes part; the last test needs one.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from ctrkit.child.training.copying import Copier


class MadeUpStream:
    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def record_event(self) -> str:
        self.log.append(f"{self.name}: event")
        return f"event of {self.name}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name}: waits for {event}")

    def synchronize(self) -> None:
        raise AssertionError("somebody waited")


class MadeUpCuda:
    """Stands for `torch.cuda`."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.on = self.default = MadeUpStream(self.log, "step")

    def Stream(self) -> MadeUpStream:
        return MadeUpStream(self.log, "copy")

    def current_stream(self) -> MadeUpStream:
        return self.on

    @contextmanager
    def stream(self, stream: MadeUpStream):
        self.on = stream
        yield
        self.on = self.default


class MadeUpTensor:
    def __init__(self, cuda: MadeUpCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def to(self, device: str, non_blocking: bool = False) -> MadeUpTensor:
        assert non_blocking
        self.cuda.log.append(f"{self.cuda.on.name}: {self.name} to {device}")
        return MadeUpTensor(self.cuda, self.name)

    def record_stream(self, stream: MadeUpStream) -> None:
        self.cuda.log.append(f"{self.name} is used by {stream.name}")


def test_a_batch_is_copied_on_its_own_stream_and_the_step_waits_for_its_event() -> None:
    cuda = MadeUpCuda()
    copy = Copier(cuda, "cuda")
    moved = copy({name: MadeUpTensor(cuda, name) for name in ("item", "label")})
    assert set(moved) == {"item", "label"}
    assert cuda.log == [
        "copy: item to cuda", "copy: label to cuda", "copy: event",
        "step: waits for event of copy", "item is used by step", "label is used by step",
    ]  # fmt: skip
    assert cuda.on is cuda.default


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_copies_on_the_gpu_arrive_before_they_are_used() -> None:
    copy = Copier()
    total = torch.zeros((), dtype=torch.float64, device="cuda")
    for i in range(200):
        batch = {"x": torch.full((1_000_000,), float(i)).pin_memory()}
        total += copy(batch)["x"].double().mean()
    assert float(total) == sum(range(200))
