"""Measurements as a child would write them, with given steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ctrkit.core.child_records import Measurement, Stamps

MakeMeasurement = Callable[..., Measurement]


@pytest.fixture(scope="session")
def measured() -> MakeMeasurement:
    """`measured(steps_s, wait_s=..., warmup_s=[...], rows=..., **fields)`."""
    return make_measurement


def make_measurement(
    steps_s: Sequence[float],
    *,
    wait_s: float = 0.0,
    warmup_s: Sequence[float] = (9.0,),
    rows: int = 100,
    kind: str = "full",
    **fields: Any,
) -> Measurement:
    stamps, now_s = Stamps(), 4.0
    steps = [("warmup", s) for s in warmup_s] + [("throughput", s) for s in steps_s]
    for i, (window, seconds) in enumerate(steps):
        stamps.epoch.append(1)
        stamps.step.append(i + 1)
        stamps.window.append(window)
        stamps.asked_s.append(now_s)
        stamps.delivered_s.append(now_s + (wait_s if window == "throughput" else 0.0))
        now_s += seconds
        stamps.done_s.append(now_s)
        stamps.rows.append(rows)
    values: dict[str, Any] = {
        "startup_s": 4.0,
        "complete": True,
        "throughput_s": sum(steps_s) or None,
        "throughput_steps": len(steps_s),
        "throughput_rows": rows * len(steps_s),
    }
    return Measurement(kind=kind, stamps=stamps, **(values | fields))
