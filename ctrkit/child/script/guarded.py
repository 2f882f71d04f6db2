"""Keeps errors of the observer from the script, and lets one thread at a time tell events."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Note an error of the observer and end the observation, without affecting the script.

    One thread at a time: a script may take its batches in another thread than it trains in.
    """

    @functools.wraps(method)
    def call(self: Observer, *arguments: Any) -> Any:
        if not self.active:
            return None
        try:
            with self.lock:
                return method(self, *arguments)
        except Exception as error:
            self.give_up(f"{method.__name__} failed", error)
            return None

    return call
