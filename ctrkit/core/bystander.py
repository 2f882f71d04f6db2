"""Lets code that only watches or reports a run fail without ending that run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


def say(text: str) -> None:
    """Print a line to stderr, if stderr still exists: a terminal may have been closed."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class Bystander:
    """Suppresses failures, and reports each kind of failure once.

    Args:
        tell: called with the message.
    """

    def __init__(self, tell: Callable[[str], None] = say) -> None:
        self._tell, self._told = tell, set[str]()

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """A context for code that only watches; `what` names it, as the subject of a sentence."""
        try:
            yield
        except Exception as error:
            self.tell(what, error)

    def tell(self, what: str, error: Exception) -> None:
        """Report this failure, if it is the first of its kind."""
        if what in self._told:
            return
        self._told.add(what)
        said = " ".join(str(error).split())[:200]
        with suppress(Exception):
            self._tell(
                f"{what} failed ({type(error).__name__}: {said}); nothing else depends on it"
            )
