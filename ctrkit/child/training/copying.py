"""Copies batches to CUDA while a step runs: from pinned memory, on a stream of its own.

A copy that is queued behind the step waits for it. On another stream the copy of the next batch
runs while the step of this one computes, since the loop asks for it as soon as the step is queued.
Nobody waits: the step's stream is told by an event when its batch is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Copier:
    """Takes batches of pinned memory to the current CUDA device; made by the process that trains.

    Args:
        cuda: `torch.cuda`, or what stands for it.
        device: that `Tensor.to` takes.
    """

    def __init__(self, cuda: Any = torch.cuda, device: Any = "cuda") -> None:
        self._cuda, self._device = cuda, device
        self._stream = cuda.Stream()

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch on the device; returns at once, for use on the current stream."""
        with self._cuda.stream(self._stream):
            moved = {
                name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()
            }
        step_stream = self._cuda.current_stream()
        step_stream.wait_event(self._stream.record_event())
        for tensor in moved.values():
            # the memory is of the stream of copies, which must not reuse it before the step is done
            tensor.record_stream(step_stream)
        return moved
