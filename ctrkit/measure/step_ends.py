"""When each step of a launch ended: by the device's clock if it has one, else by the host's.

A host runs ahead of a GPU, so its stamps show how evenly it queues steps, not how evenly the GPU
computes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.child_records import Stamps


def by_device(stamps: Stamps) -> bool:
    """Whether the device stamped every step of the throughput window."""
    on_device = zip(stamps.window, stamps.device_done_s, strict=False)
    inside = [at_s is not None for window, at_s in on_device if window == "throughput"]
    return bool(inside) and all(inside)


def ends_s(stamps: Stamps) -> Sequence[float | None]:
    """The end of every step, in seconds since the launch.

    If the device stamped every step of the throughput window, its stamps count; a step that it did
    not stamp is None. Warm-up comes before the device's clock begins, so its ends are the host's.
    """
    if not by_device(stamps):
        return stamps.done_s
    steps = zip(stamps.window, stamps.done_s, stamps.device_done_s, strict=True)
    return [host_s if window == "warmup" else at_s for window, host_s, at_s in steps]


def seconds_between(ends: Sequence[float | None], i: int, not_before_s: float) -> float | None:
    """Seconds of step i, which begins when step i - 1 ends, but not before `not_before_s`."""
    end_s, before_s = ends[i], ends[i - 1]
    if end_s is None or before_s is None:
        return None
    return end_s - max(before_s, not_before_s)
