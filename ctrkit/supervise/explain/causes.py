"""Says in one sentence why a child hung or died: the first known pattern that fits."""

from __future__ import annotations

from ctrkit.supervise.explain.deaths import DEATHS
from ctrkit.supervise.explain.hangs import HANGS
from ctrkit.supervise.explain.scene import Scene
from ctrkit.supervise.explain.sentences import Cause

__all__ = ["Cause", "explain"]

_HANG_VERDICTS = ("deadlock", "stalled", "shutdown-hang")


def explain(scene: Scene) -> Cause | None:
    """The cause that the scene shows; None if it shows none.

    A hang is explained by where living processes are, a death by messages and counters. An error
    that was followed by a hang counts as an error.
    """
    hung = scene.verdict in _HANG_VERDICTS and bool(scene.processes)
    patterns = (*HANGS, *DEATHS) if hung else DEATHS
    return next((cause for pattern in patterns if (cause := pattern(scene))), None)
