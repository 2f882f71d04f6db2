"""Says once that a child has gone silent, how long it may stay silent, and why."""

from __future__ import annotations

from ctrkit.core.units import format_duration
from ctrkit.supervise.watching import Tick

# share of the limit after which to say it, and the most seconds
_SAID_FROM, _SAID_LATEST_S = 0.5, 60.0


class SilenceNotice:
    """Turns ticks into at most one line for each silence."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, tick: Tick) -> str | None:
        """The line, when half the limit or a minute has passed; else None."""
        if tick.silent_s < min(_SAID_FROM * tick.limit.idle_s, _SAID_LATEST_S):
            self._said = False
            return None
        if self._said:
            return None
        self._said = True
        return (
            f"no progress in stage '{tick.stage.label}' for {format_duration(tick.silent_s)}; "
            f"it will be treated as hung at {format_duration(tick.limit.idle_s)} "
            f"({tick.limit.reason})"
        )
