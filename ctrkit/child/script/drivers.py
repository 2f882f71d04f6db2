"""Chooses the purpose of a script's launch: an inspection, a trial, or a watched real run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctrkit.child.script.inspecting import InspectWatch
from ctrkit.child.script.running import RunWatch
from ctrkit.child.script.trial_watch import TrialWatch
from ctrkit.child.script.watch import LoopWatch

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer
    from ctrkit.child.script.presence import Owner


def make_driver(observer: Observer, owner: Owner) -> LoopWatch:
    """The watch of a training process.

    One that trains beside it, without being a rank, is only watched.
    """
    if not owner.is_alone:
        return LoopWatch(observer, owner)
    if observer.kind == "train":
        return RunWatch(observer, owner)
    if observer.kind == "inspect":
        return InspectWatch(observer, owner)
    return TrialWatch(observer, owner)
