"""Helpers for end-to-end tests: the installed command, and processes that it left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from ctrkit.core.lifeline import FOLDER_VARIABLE

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


def left_of(folder: Path) -> list[int]:
    """Living processes of the children of a run in a folder, by the environment they were given.

    By nothing else: other tests may run the same scripts at the same time.
    """
    return [
        process.pid
        for process in psutil.process_iter(["environ", "status"])
        if str(folder) in (process.info["environ"] or {}).get(FOLDER_VARIABLE, "")
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def alive(pid: int) -> bool:
    """Whether a process runs; not one that has ended and that nobody reaps in a container."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
