"""Keeps an error of the observer from the script, and one thread out of another one's event."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer


def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """An error of the observer is noted, ends the observation, and is never the script's.

    One thread at a time: a script may take its batches in another one than it trains in.
    """

    @functools.wraps(method)
    def call(self: Observer, *arguments: Any) -> Any:
        try:
            with self.lock:
                return method(self, *arguments)
        except Exception as error:
            self.give_up(f"{method.__name__} failed", error)
            return None

    return call
