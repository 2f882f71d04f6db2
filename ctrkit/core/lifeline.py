"""What a child does first for its supervisor: it ends with it and shows its stacks on a signal.

Standard library only: this is imported before anything that could hang.
"""

from __future__ import annotations

import ctypes
import faulthandler
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

#: Asks a process for its stacks. Not SIGUSR1 or SIGUSR2: schedulers send those, and scripts handle
#: them (save, and ask to be run again).
STACKS_SIGNAL = int(signal.SIGRTMAX) - 3 if hasattr(signal, "SIGRTMAX") else 29  # 29: SIGINFO

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


def stacks_path(folder: str | os.PathLike[str], pid: int) -> Path:
    """Where the process `pid` writes its stacks; that the file exists says that it is armed."""
    return Path(folder) / f"stacks-{pid}.txt"


# pid -> folder and the descriptor of its stacks; a forked process finds its parent's entry only
_armed: dict[int, tuple[str, int]] = {}


def arm_stacks(folder: str | os.PathLike[str]) -> None:
    """From now on STACKS_SIGNAL writes the stacks of all threads to `stacks_path`.

    It works while the GIL is held in C. A forked process arms itself anew, with a file of its own,
    before any other code of it runs. Armed already, nothing happens.

    Raises:
        OSError: the file cannot be made.
    """
    if os.getpid() in _armed:
        return
    if not _armed:
        os.register_at_fork(after_in_child=_arm_forked)
    _arm(str(folder))


def _arm_forked() -> None:
    folder, _ = next(iter(_armed.values()))
    try:
        _arm(folder)
    except OSError:  # its folder is gone: then nobody watches it any more
        faulthandler.unregister(STACKS_SIGNAL)
        signal.signal(STACKS_SIGNAL, signal.SIG_IGN)


def _arm(folder: str) -> None:
    # A plain descriptor: nothing of a file object that was copied while in use. It stays open.
    path = stacks_path(folder, os.getpid())
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    faulthandler.register(STACKS_SIGNAL, file=fd, all_threads=True, chain=False)
    _armed.clear()
    _armed[os.getpid()] = folder, fd


def keep_crashes() -> None:
    """From now on a crash in C leaves its stack in `stacks_path`, too.

    Needed where somebody has replaced faulthandler's handlers, as torch does in its workers.
    Processes that crash together would write between each other's lines of a file they share.
    """
    if os.getpid() in _armed:
        _, fd = _armed[os.getpid()]
        faulthandler.disable()
        faulthandler.enable(file=fd)
