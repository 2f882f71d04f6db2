"""Runs another program and returns what it prints: empty if it is missing, fails or is slow."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

_WAIT_S = 5.0


def output_of(command: Sequence[str], *, wait_s: float = _WAIT_S) -> str:
    """What the command prints; empty if it is missing, fails or takes longer than `wait_s`."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=wait_s, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
