"""What a child does first for its supervisor: it ends with it and shows its stacks on a signal.

Standard library only: this is imported before anything that could hang.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from pathlib import Path
from typing import IO

RUN_ID_VARIABLE = "CTRKIT_RUN_ID"
SUPERVISOR_VARIABLE = "CTRKIT_SUPERVISOR_PID"

_PR_SET_PDEATHSIG = 1
_stacks_file: list[IO[str]] = []  # faulthandler keeps only the number: the file must stay open


def end_with_supervisor() -> None:
    """Have the kernel kill this process when its supervisor dies (Linux; elsewhere a guard does).

    Does nothing in a process that no supervisor started.
    """
    supervisor = os.environ.get(SUPERVISOR_VARIABLE)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(supervisor):  # it died before the request was made
        os.kill(os.getpid(), signal.SIGKILL)


def stacks_path(folder: Path, pid: int) -> Path:
    """Where the process `pid` writes its stacks; that the file exists says that it is armed."""
    return folder / f"stacks-{pid}.txt"


def arm_stacks(folder: Path) -> None:
    """From now on SIGUSR1 writes the stacks of all threads to `stacks_path`.

    It works while the GIL is held in C. Forked workers inherit it, file included; whoever sends
    the signals must therefore send one at a time.
    """
    file = open(stacks_path(folder, os.getpid()), "a", encoding="utf-8")  # noqa: SIM115
    _stacks_file.append(file)
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True, chain=False)
