"""The fork server: imports torch once, so that trials forked from it need not import it again.

`serve` waits for requests, and returns only in a trial. From there on the trial is like a process
that was started anew: it leads a session, is a child of the supervisor, and has its own output
files, environment, random numbers and signals. Trials of one server share two things: the seed of
Python's hashes and the layout of their memory. So the launches that a projection rests on are
started anew.

The server forks only while it has one thread. It never imports the user's code, never touches a
device, and ends when its supervisor ends.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import process
from pathlib import Path
from typing import Any

from ctrkit.child.entry import import_libraries
from ctrkit.core import lifeline
from ctrkit.core.fork_requests import ROOM_VARIABLE, ForkReply, ForkRequest, receive, send

_ADOPTED_WITHIN_S = 10.0
#: Of NVIDIA, of it in Windows' Linux, and of AMD.
_DEVICE_FILES = ("/dev/nvidia", "/dev/dxg", "/dev/kfd")


def serve(descriptor: int) -> list[str]:
    """Fork a trial for each request. Returns only in a trial.

    Args:
        descriptor: the socket to the supervisor.

    Returns:
        The arguments of the trial.

    Raises:
        SystemExit: in the server: the supervisor has no more requests, or forking is not possible.
    """
    lifeline.end_with_supervisor()
    connection = socket.socket(fileno=descriptor)
    import_libraries()
    if problem := _why_not():
        send(connection, ForkReply(problem=problem))
        raise SystemExit(1)
    send(connection, ForkReply(ready=True))
    while (fields := receive(connection)) is not None:
        if problem := _why_not():
            send(connection, ForkReply(problem=problem))
        elif _is_trial(connection):
            return _begin(ForkRequest(**fields), connection)
    raise SystemExit(0)


def _why_not() -> str:
    """Why the server must not fork; empty if it may.

    numpy's OpenBLAS ends its idle threads before each fork, so only after a first fork can the
    threads be counted that would remain.
    """
    _forked_and_ended()
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        return f"{len(threads) - 1} threads run beside the main one"
    return device_problem(sys.modules["torch"].cuda, _opened())


def device_problem(cuda: Any, opened: Iterable[str]) -> str:
    """Why no process can be forked that uses an accelerator; empty where one can.

    CUDA cannot be used in a process that was forked from one that has asked the driver for anything
    (https://pytorch.org/docs/stable/notes/multiprocessing.html).

    Args:
        cuda: `torch.cuda`.
        opened: the files that this process has open.
    """
    device_files = sorted(path for path in opened if path.startswith(_DEVICE_FILES))
    if device_files:
        return f"the server has {', '.join(device_files)} open: an import opened it"
    if cuda.is_initialized():
        return "the server uses CUDA: an import began it"
    if cuda._is_in_bad_fork():
        return "the process that this one was forked from has asked for CUDA"
    return ""


def _opened() -> list[str]:
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one of the folder is closed again
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return found


def _forked_and_ended() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _is_trial(connection: socket.socket) -> bool:
    """Fork twice, so that the process in between ends and the supervisor adopts the trial.

    Returns:
        Whether this process is the trial.
    """
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return False
    trial = os.fork()
    if trial:
        send(connection, ForkReply(pid=trial))
        os._exit(0)
    return True


def _begin(request: ForkRequest, connection: socket.socket) -> list[str]:
    """Make this process like a new one, and tell the supervisor. Returns the trial's arguments."""
    try:
        _wait_until_adopted()
        os.setsid()
        _connect(request)
        _take_environment(request.environment)
        _forget_the_server()
        if problem := device_problem(sys.modules["torch"].cuda, _opened()):
            raise RuntimeError(problem)
        sys.argv[1:] = request.arguments
        sys.orig_argv[-2:] = request.arguments
    except Exception as error:
        send(connection, ForkReply(pid=os.getpid(), problem=f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
    send(connection, ForkReply(pid=os.getpid(), ready=True))
    connection.close()
    return request.arguments


def _wait_until_adopted() -> None:
    supervisor = int(os.environ[lifeline.SUPERVISOR_VARIABLE])
    deadline_s = time.monotonic() + _ADOPTED_WITHIN_S
    while os.getppid() != supervisor:
        if time.monotonic() > deadline_s:
            raise RuntimeError("the supervisor did not adopt it")
        time.sleep(0.001)


def _connect(request: ForkRequest) -> None:
    """Redirect stdout and stderr to the trial's files, below `sys.stdout` and `sys.stderr`."""
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    for number, path in ((1, request.stdout), (2, request.stderr)):
        opened = os.open(path, appending, 0o666)
        os.dup2(opened, number)
        os.close(opened)


def _take_environment(variables: dict[str, str]) -> None:
    """Set these variables in `os.environ`, and in `/proc/self/environ` as well.

    The supervisor reads the latter to find processes of a family that left its session.
    """
    environment = {k: v for k, v in os.environ.items() if k != ROOM_VARIABLE} | variables
    os.environ.clear()  # nothing uses the kernel's original block any more: it can be overwritten
    os.environ.update(environment)
    shown = b"".join(os.fsencode(f"{k}={v}") + b"\0" for k, v in environment.items())
    # fields 50 and 51 (env_start, env_end) of proc(5); the first one after the name is the third
    fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    begin, end = (int(fields[number - 3]) for number in (50, 51))
    if len(shown) > end - begin:
        raise RuntimeError(f"its environment has {len(shown)} bytes, {end - begin} have room")
    ctypes.memmove(begin, shown.ljust(end - begin, b"\0"), end - begin)
    found = Path("/proc/self/environ").read_bytes()
    if not found.startswith(shown):
        raise RuntimeError("its environment is not shown by the system")


def _forget_the_server() -> None:
    """Reset what a new process would draw or find out anew. `random` reseeds itself at a fork."""
    tempfile.tempdir = None
    importlib.invalidate_caches()
    process.current_process().authkey = os.urandom(32)
    sys.modules["torch"].default_generator.seed()
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    main = threading.main_thread()
    if main.native_id != threading.get_native_id() and hasattr(main, "_set_native_id"):
        main._set_native_id()
