"""Keeps the warnings that torch gives in this process, for the report."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

_MOST, _LONGEST = 8, 300
#: how a warning from torch's C++ code ends when it names a line of the user's
_NATIVE = "Triggered internally at"


class TorchWarnings:
    """Keeps and counts torch's warnings from now on; they are shown as before.

    Args:
        on_new: called with all counts as soon as a new kind of warning comes.
    """

    def __init__(self, on_new: Callable[[Mapping[str, int]], None] | None = None) -> None:
        self.counts: dict[str, int] = {}
        self._on_new = on_new
        self._show, self._filters = warnings.showwarning, warnings.filters[:]
        self._shown = set[tuple[str, str, int]]()
        warnings.showwarning = self._showwarning
        # otherwise Python shows each place only once, and nothing can be counted
        if on_new is not None:
            warnings.simplefilter("always", append=True)

    @property
    def seen(self) -> list[str]:
        """Each kept warning once."""
        return list(self.counts)

    def end(self) -> None:
        """Stop keeping warnings."""
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
    """Whether torch gave the warning, whichever line it is attributed to."""
    if _in_torch(filename):
        return True
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename == warnings.__file__:
        frame = frame.f_back
    code = frame.f_code  # the caller of `warnings.warn`, or of C code that warned
    if _in_torch(code.co_filename):
        return True
    return "warn" not in code.co_names and "tensor" in text.lower()


def _in_torch(filename: str) -> bool:
    return "/torch/" in filename.replace("\\", "/")
