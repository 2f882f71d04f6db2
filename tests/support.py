"""Helpers for end-to-end tests: the installed command, and processes that it left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

Run = Callable[..., "subprocess.CompletedProcess[str]"]

COMMAND = Path(sys.executable).with_name("ctrkit")


def running_in(folder: Path) -> list[str]:
    """The commands of processes that work in a folder, forked ones too: who is left of a run."""
    folder = folder.resolve()
    return [
        str(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline", "cwd"])
        if process.info["cwd"] and Path(process.info["cwd"]).resolve() == folder
    ]


def alive(pid: int) -> bool:
    """Whether a process runs; not one that has ended and that nobody reaps in a container."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
