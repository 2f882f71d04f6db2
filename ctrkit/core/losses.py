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
    """The first loss of a launch that is no finite number.

    `value` is `nan`, `inf` or `-inf` as text, since JSON has none of them. `place` counts steps
    from 1, or backward passes, as `counted` says.
    """

    place: int
    value: str
    counted: str = "step"

    @property
    def words(self) -> str:
        """`the training loss is nan at step 4`."""
        return f"the training loss is {self.value} at {self.counted} {self.place}"


def bad_loss(losses: Iterable[float], counted: str = "step") -> dict[str, Any] | None:
    """The fields of a `BadLoss`; None where all losses are finite numbers."""
    for place, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            return {"place": place, "value": str(float(loss)), "counted": counted}
    return None
