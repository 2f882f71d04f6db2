"""A training loss that is NaN or infinite: where it was first seen, and what to do about it.

Standard library only, and Python 3.9: it also runs inside a script's own interpreter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

ADVICE = (
    "a model that took such a step seldom recovers: try a lower learning rate or gradient "
    "clipping, and look for missing values in the data; torch.autograd.set_detect_anomaly(True) "
    "names the operation"
)


@dataclass(frozen=True)
class BadLoss:
    """The first loss of a launch that is not finite.

    Attributes:
        value: `nan`, `inf` or `-inf` as text, because JSON has no such numbers.
        place: number of the step, from 1, or of what `counted` names.
        counted: what `place` counts: a step, or a backward pass.
    """

    place: int
    value: str
    counted: str = "step"

    @property
    def words(self) -> str:
        """`the training loss is nan at step 4`."""
        return f"the training loss is {self.value} at {self.counted} {self.place}"


def bad_loss(losses: Iterable[float], counted: str = "step") -> dict[str, Any] | None:
    """The fields of a `BadLoss`; None if all losses are finite."""
    for place, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            return {"place": place, "value": str(float(loss)), "counted": counted}
    return None
