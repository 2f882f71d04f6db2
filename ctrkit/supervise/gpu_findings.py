"""Findings on the GPU of a run: idle, throttled, or shared with others."""

from __future__ import annotations

from ctrkit.core.records import Finding
from ctrkit.core.units import format_bytes, format_percent
from ctrkit.supervise.gpu import GpuUse

#: Fewer samples say nothing: the library's own figures are means of up to a second.
_LEAST_SAMPLES = 3
_IDLE, _HELD = 0.15, 0.1
_MOST_NAMED = 3


def gpu_findings(use: GpuUse, wait_share: float | None) -> list[Finding]:
    """Findings on a GPU that slowed down a configuration while it was measured.

    Args:
        use: summary of the GPU during its steps.
        wait_share: share of a step in which the loop waited for data; None if unknown.
    """
    if use.samples < _LEAST_SAMPLES:
        return []
    found = [_idle(use, wait_share), *(_held(use, why) for why in sorted(use.held)), _shared(use)]
    return [finding for finding in found if finding is not None]


def _idle(use: GpuUse, wait_share: float | None) -> Finding | None:
    busy = use.mean("busy_share")
    idle = 0.0 if busy is None else 1 - busy
    if idle < _IDLE:
        return None
    lead = f"the GPU is idle {format_percent(idle)} of a step"
    if wait_share is None:
        text, confidence = f"{lead}; whether the loader is why was not measured", "low"
    elif wait_share >= idle / 2:
        text = f"{lead}: the loader (the loop waits for data {format_percent(wait_share)} of it)"
        confidence = "high"
    else:
        text = (
            f"{lead}, and the loop waits for data only {format_percent(wait_share)} of it: the "
            "host asks for work too slowly (many small operations, Python between them, or a value "
            "that is read back from the GPU)"
        )
        confidence = "medium"
    return Finding(stage="GPU", share=idle, worth_x=None, text=text, confidence=confidence)


def _held(use: GpuUse, why: str) -> Finding | None:
    share = use.held_share(why)
    if share is None or share < _HELD:
        return None
    text = f"clocks are held down by {why} in {format_percent(share)} of the looks at the GPU"
    power, clock = use.mean("power_w"), use.mean("clock_share")
    if why == "power" and power is not None and use.power_limit_w:
        text += f" ({power:.0f} W on average, the limit is {use.power_limit_w:.0f} W)"
    if clock is not None:
        text += f"; they run at {format_percent(clock)} of the highest clock on average"
    text += "; a longer run may be slower than projected" if why == "heat" else ""
    return Finding(stage="GPU clocks", share=None, worth_x=None, text=text, confidence="high")


def _shared(use: GpuUse) -> Finding | None:
    if not use.others:
        return None
    named = [
        f"{one.name or 'unnamed'} (pid {one.pid}"
        + (f", {format_bytes(one.used_bytes)})" if one.used_bytes else ")")
        for one in use.others.values()
    ]
    more = len(named) - _MOST_NAMED
    words = ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return Finding(
        stage="other processes",
        share=None,
        worth_x=None,
        text=f"other processes compute on the same GPU: {words}; what was measured holds only "
        "as long as they do",
        confidence="high",
    )
