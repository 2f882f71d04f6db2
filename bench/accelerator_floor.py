"""Lower bounds of a Phase 3 step: its products, and the bytes between operations and memory.

It counts from the sizes of the model: the forward pass once and the backward pass as two.
Operations on single tokens (norm, activations, the scan) count only the bytes that they read and
write, each layer's results once. Table rows and the optimizer are left out, as they are
small beside the tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from ctrkit.ctr.models import mamba
from ctrkit.ctr.models.mdaf import (
    CATEGORY_WIDTH,
    CLOCK,
    CROSS_LAYERS,
    FIELD_WIDTH,
    FIELDS,
    ITEM_WIDTH,
    SEQUENCE_LAYERS,
    WIDTH,
)

_PASSES = 3  # forward, and backward to the inputs and to the weights


@dataclass(frozen=True)
class Work:
    """The least work of one step: floating-point operations and bytes."""

    flops: float
    bytes: float

    def floor_s(self, flops_per_s: float, bytes_per_s: float) -> float:
        """The least seconds on a device, for the products or the bytes, whichever takes longer."""
        return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


def step_work(batch: int, length: int) -> Work:
    """The work for a batch with all histories padded to `length`, in float32, model `mamba`."""
    tokens, inner = batch * length, mamba.EXPAND * WIDTH
    low = mamba.RANK + 2 * mamba.STATE
    layer = WIDTH * 2 * inner + inner * low + mamba.RANK * inner + inner * WIDTH
    per_token = (ITEM_WIDTH + CATEGORY_WIDTH) * WIDTH + SEQUENCE_LAYERS * layer
    fields = FIELD_WIDTH * (len(FIELDS) + len(CLOCK))
    per_row = (
        2 * CROSS_LAYERS * fields * fields // 2 + fields * WIDTH
        + 2 * WIDTH * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH * (WIDTH // 2) + WIDTH // 2
    )  # fmt: skip
    # x and z, the convolution, dt, B and C, y, the layer's output: each written once and read once
    between = 2 * inner + inner + low + inner + inner + WIDTH
    touched = 2 * (ITEM_WIDTH + CATEGORY_WIDTH + WIDTH + SEQUENCE_LAYERS * between)
    return Work(
        flops=2.0 * _PASSES * (tokens * per_token + batch * per_row),
        bytes=4.0 * _PASSES * tokens * touched,
    )
