"""Memory of a process tree at certain moments of a launch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MemoryPoint:
    """The private memory of all processes after so many steps of an epoch.

    Private memory excludes mapped files and memory shared between processes.
    """

    epoch: int
    step: int
    at_s: float
    private_bytes: int
