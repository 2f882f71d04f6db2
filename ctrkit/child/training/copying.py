"""Copies batches to CUDA while a step runs: from pinned memory, on a stream of its own.

On the step's own stream, a copy waits until the step is done. On another stream, the copy of the
next batch runs while the current step computes, because the loop asks for the next batch as soon as
the step is queued. The host does not wait: an event makes the step's stream wait for its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Copier:
    """Copies batches from pinned memory to the current CUDA device; one per training process.

    Args:
        cuda: `torch.cuda`, or a stand-in for tests.
        device: a device as `Tensor.to` takes it.
    """

    def __init__(self, cuda: Any = torch.cuda, device: Any = "cuda") -> None:
        self._cuda, self._device = cuda, device
        self._stream = cuda.Stream()

    def __call__(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch on the device, for use on the current stream. Returns at once."""
        with self._cuda.stream(self._stream):
            moved = {
                name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.items()
            }
        step_stream = self._cuda.current_stream()
        step_stream.wait_event(self._stream.record_event())
        for tensor in moved.values():
            # the copy stream owns this memory, and must not reuse it before the step is done
            tensor.record_stream(step_stream)
        return moved
