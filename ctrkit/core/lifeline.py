"""Ties a child to its supervisor: the child ends when the supervisor dies. Also places sockets.

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
SOCKETS_VARIABLE = "CTRKIT_SOCKETS_FOLDER"
#: Variables that torch's elastic launcher sets in the processes that it starts.
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
#: Variables with a process's number on its host: of torch's launcher, Open MPI and Slurm.
LOCAL_RANK_VARIABLES = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID")
#: The supervisor's own local rank, passed to a script, if the supervisor was started as a rank.
OUTER_RANK_VARIABLE = "CTRKIT_OUTER_LOCAL_RANK"
#: First on PYTHONPATH, its `sitecustomize` prepares every Python process of the family.
FIRST_FOLDER = Path(__file__).parents[1] / "child" / "first"

_PR_SET_PDEATHSIG = 1
#: longest path of a socket, without the terminating zero
_MOST_CHARACTERS = 107 if sys.platform.startswith("linux") else 103
#: length of what follows the temporary folder: `/ctrkit-0123456789ab/listener-01234567`
_ADDED_CHARACTERS = 38
#: the same for multiprocessing's own names: `/pymp-01234567/listener-01234567`
ADDED_BY_MULTIPROCESSING = 32
_SHORT_FOLDERS = ("/tmp", "/var/tmp")


_kept_folder: str | None = None


def keep_child_folder() -> None:
    """Remember the child's folder from now on: a script may empty its environment."""
    global _kept_folder
    _kept_folder = os.environ.get(FOLDER_VARIABLE)


def child_folder() -> str | None:
    """The folder that this process writes to for its supervisor; None without one."""
    return os.environ.get(FOLDER_VARIABLE) or _kept_folder


def fits_sockets(folder: str | os.PathLike[str], added: int = _ADDED_CHARACTERS) -> bool:
    """Whether the path of a socket below this temporary folder is short enough for the system."""
    return len(os.fsencode(folder)) + added <= _MOST_CHARACTERS


def short_temporary_folder() -> Path | None:
    """The temporary folder if sockets fit below it, else another one; None if there is none."""
    import tempfile

    for folder in (tempfile.gettempdir(), *_SHORT_FOLDERS):
        if fits_sockets(folder) and os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    return None


def sockets_folder(run_id: str) -> Path:
    """The folder for the sockets by which a family's processes pass tensors.

    multiprocessing makes such a folder itself. But the folder of a killed process stays for ever,
    and below a temporary folder with a long name it is useless.
    """
    import tempfile

    return (short_temporary_folder() or Path(tempfile.gettempdir())) / f"ctrkit-{run_id[:12]}"


def make_sockets_folder(run_id: str) -> dict[str, str]:
    """Make `sockets_folder`; returns the variables that tell the family about it.

    If the temporary folder's name is too long, the family gets a short link to it as TMPDIR: torch
    makes sockets there, too, and the user's files stay on the disk meant for them.
    """
    import tempfile

    folder, temporary = sockets_folder(run_id), tempfile.gettempdir()
    folder.mkdir(mode=0o700)
    told = {SOCKETS_VARIABLE: str(folder)}
    if not fits_sockets(temporary) and fits_sockets(folder.parent):
        (folder / "t").symlink_to(temporary, target_is_directory=True)
        told["TMPDIR"] = str(folder / "t")
    return told


def share_sockets_folder() -> None:
    """Let this process, and all that multiprocessing starts from it, use `sockets_folder`.

    Does nothing in a process that no supervisor started.
    """
    folder = os.environ.get(SOCKETS_VARIABLE)
    if folder is None or not os.path.isdir(folder):
        return
    from multiprocessing import process

    # `multiprocessing.util.get_temp_dir` reads this, and child processes inherit it
    config = getattr(process.current_process(), "_config", None)
    if isinstance(config, dict):
        config.setdefault("tempdir", folder)


def end_with_supervisor() -> None:
    """Let the kernel kill this process when its supervisor dies (Linux; elsewhere a guard does).

    Does nothing in a process that no supervisor started.
    """
    supervisor = os.environ.get(SUPERVISOR_VARIABLE)
    if supervisor is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != int(supervisor):  # the supervisor died before this call
        os.kill(os.getpid(), signal.SIGKILL)


def rank_of_environment(environment: Mapping[str, str] | None = None) -> int | None:
    """The rank that torch's elastic launcher gave this process; None if it did not start it."""
    environment = os.environ if environment is None else environment
    if any(name not in environment for name in RANK_VARIABLES):
        return None
    return int(environment["RANK"])


def local_rank_of(environment: Mapping[str, str]) -> str:
    """A process's number on its host, as `LOCAL_RANK=1`; empty if no launcher sets it."""
    named = next((name for name in LOCAL_RANK_VARIABLES if name in environment), None)
    return "" if named is None else f"{named}={environment[named]}"


def is_first_here(environment: Mapping[str, str]) -> bool | None:
    """Whether a script's process is the first rank of its host, or its supervisor's own rank.

    None if no launcher says so.
    """
    own = local_rank_of(environment)
    if not own:
        return None
    return own == environment.get(OUTER_RANK_VARIABLE) or own.endswith("=0")
