"""The input of a script's trials: the file that ctrkit itself was given, from its start.

Every trial can read a file anew (`ctrkit probe -- python train.py < settings.json`). A pipe or a
terminal cannot be read twice, so then a trial's input is empty.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable

_STDIN = 0
_began_at: list[int] = []


def trial_input() -> int:
    """The stdin of a trial for `subprocess.Popen`; it begins where ours began."""
    if not _is(stat.S_ISREG):
        return subprocess.DEVNULL
    if not _began_at:
        _began_at.append(os.lseek(_STDIN, 0, os.SEEK_CUR))
    os.lseek(_STDIN, _began_at[0], os.SEEK_SET)
    return _STDIN


def missing_input() -> str:
    """A message for a failed trial, if something may have been piped to ctrkit."""
    if not _is(stat.S_ISFIFO):
        return ""
    return (
        "; a trial gets nothing from a pipe, since each reads its input anew: if the script reads "
        "its stdin, give that as a file (< FILE)"
    )


def _is(kind: Callable[[int], bool]) -> bool:
    try:
        mode = os.fstat(_STDIN).st_mode
    except OSError:  # stdin is closed
        return False
    return kind(mode)
