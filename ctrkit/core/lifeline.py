"""What a child does first for its supervisor: it ends with it, and puts its sockets where told.

Standard library only: this is imported before anything that could hang.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

RUN_ID_VARIABLE = "CTRKIT_RUN_ID"
SUPERVISOR_VARIABLE = "CTRKIT_SUPERVISOR_PID"
FOLDER_VARIABLE = "CTRKIT_CHILD_FOLDER"
#: Set by torch's elastic launcher in the processes that it starts.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
#: Put first on PYTHONPATH, it arms every Python process of the family (its `sitecustomize`).
FIRST_FOLDER = Path(__file__).parents[1] / "child" / "first"

_PR_SET_PDEATHSIG = 1


def sockets_folder(run_id: str) -> Path:
    """Where a family's processes put the sockets by which they hand over tensors.

    multiprocessing makes such a folder itself, but one whose process is killed stays for ever.
    The name is short, since that of a socket may have about 100 characters.
    """
    import tempfile

    return Path(tempfile.gettempdir()) / f"ctrkit-{run_id[:12]}"


def share_sockets_folder() -> None:
    """Have this process, and all that multiprocessing starts from it, use `sockets_folder`.

    Does nothing in a process that no supervisor started.
    """
    run_id = os.environ.get(RUN_ID_VARIABLE)
    if run_id is None or not (folder := sockets_folder(run_id)).is_dir():
        return
    from multiprocessing import process

    # what `multiprocessing.util.get_temp_dir` looks up, and what each process inherits
    config = getattr(process.current_process(), "_config", None)
    if isinstance(config, dict):
        config.setdefault("tempdir", str(folder))


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


def rank_of_environment(environment: Mapping[str, str] | None = None) -> int | None:
    """The rank that torch's elastic launcher gave this process; None if it did not start it."""
    environment = os.environ if environment is None else environment
    if any(name not in environment for name in RANK_VARIABLES):
        return None
    return int(environment["RANK"])
