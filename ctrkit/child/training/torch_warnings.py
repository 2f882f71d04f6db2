"""Keeps the warnings that torch gives in this process, for the report."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

_MOST, _LONGEST = 8, 300
#: how torch ends a warning that its C++ side gives on a line of the user's
_NATIVE = "Triggered internally at"


class TorchWarnings:
    """From now on, torch's warnings are kept and counted; all are shown as before.

    Args:
        on_new: called with all counts as soon as there is a warning that was not there before.
    """

    def __init__(self, on_new: Callable[[Mapping[str, int]], None] | None = None) -> None:
        self.counts: dict[str, int] = {}
        self._on_new = on_new
        self._show, self._filters = warnings.showwarning, warnings.filters[:]
        self._shown = set[tuple[str, str, int]]()
        warnings.showwarning = self._showwarning
        if on_new is not None:  # else Python tells of each place once, and nothing can be counted
            warnings.simplefilter("always", append=True)

    @property
    def seen(self) -> list[str]:
        """Each of them, once."""
        return list(self.counts)

    def end(self) -> None:
        """Warnings are no longer kept."""
        warnings.showwarning = self._show
        if self._on_new is not None:
            warnings.filters[:] = self._filters  # type: ignore[index]

    def _showwarning(
        self, message: Any, category: Any, filename: str, lineno: int, *rest: Any, **kw: Any
    ) -> None:
        text = " ".join(str(message).split())
        if _NATIVE in text or _is_of_torch(filename, text):
            self._count(text.partition(f" ({_NATIVE}")[0][:_LONGEST])
        place = text, filename, lineno
        if self._on_new is None or place not in self._shown:
            self._shown.add(place)
            self._show(message, category, filename, lineno, *rest, **kw)

    def _count(self, line: str) -> None:
        is_new = line not in self.counts
        if is_new and len(self.counts) >= _MOST:
            return
        self.counts[line] = self.counts.get(line, 0) + 1
        if is_new and self._on_new is not None:
            self._on_new(self.counts)


def _is_of_torch(filename: str, text: str) -> bool:
    """Whether torch gave the warning, on whichever line it puts it."""
    if _in_torch(filename):
        return True
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename == warnings.__file__:
        frame = frame.f_back
    code = frame.f_code  # of who called `warnings.warn`, or what is written in C and did
    if _in_torch(code.co_filename):
        return True
    return "warn" not in code.co_names and "tensor" in text.lower()


def _in_torch(filename: str) -> bool:
    return "/torch/" in filename.replace("\\", "/")
