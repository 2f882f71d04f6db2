"""Keeps what torch itself warns of in this process, so that it reaches the report."""

from __future__ import annotations

import sys
import warnings
from typing import Any

_MOST, _LONGEST = 8, 300
#: how torch ends a warning that its C++ side gives on a line of the user's
_NATIVE = "Triggered internally at"


class TorchWarnings:
    """From now on, torch's warnings are kept in `seen`, each once; all are shown as before."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._show = warnings.showwarning
        warnings.showwarning = self._showwarning

    def end(self) -> None:
        """Warnings are no longer kept."""
        warnings.showwarning = self._show

    def _showwarning(
        self, message: Any, category: Any, filename: str, *rest: Any, **kw: Any
    ) -> None:
        text = " ".join(str(message).split())
        if (_NATIVE in text or _is_of_torch(filename)) and len(self.seen) < _MOST:
            line = text.partition(f" ({_NATIVE}")[0][:_LONGEST]
            if line not in self.seen:
                self.seen.append(line)
        self._show(message, category, filename, *rest, **kw)


def _is_of_torch(filename: str) -> bool:
    """Whether torch gave the warning, on whichever line it puts it."""
    if _in_torch(filename):
        return True
    frame = sys._getframe(2)  # who called `warnings.warn`
    return _in_torch(frame.f_code.co_filename)


def _in_torch(filename: str) -> bool:
    return "/torch/" in filename.replace("\\", "/")
