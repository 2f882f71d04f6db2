"""The supervisor's side of the fork server of trials (`child/forkserver.py`).

A forked trial has torch imported already, which saves most of its start. This works on Linux only:
there the supervisor adopts a process whose parent has ended, so a forked trial becomes its child
like any other. If the server does not answer, is gone, or differs from what a new process would be,
the trial is started anew; nothing depends on the server.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ctrkit.core import stops
from ctrkit.core.fork_requests import ROOM_VARIABLE, SERVE, ForkReply, ForkRequest, receive, send
from ctrkit.core.lifeline import SUPERVISOR_VARIABLE
from ctrkit.supervise.cleanup import Family, reap_orphans, subreaper
from ctrkit.supervise.own_environment import own_environment

#: Environment variable; `0` starts every trial anew.
SWITCH = "CTRKIT_FORKSERVER"
_OURS = "CTRKIT_"
_ROOM = 16_384
_READY_WITHIN_S, _REPLY_WITHIN_S, _END_WITHIN_S, _LOOK_S = 60.0, 15.0, 5.0, 0.2


class ForkedProcess:
    """A forked child with the interface of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # something else has reaped it; `Popen` would say the same
                self.returncode = 0
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit code.

        Raises:
            subprocess.TimeoutExpired: it is still running.
        """
        deadline_s = float("inf") if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline_s:
                raise subprocess.TimeoutExpired(["a forked child"], timeout or 0.0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)


class ForkServer:
    """A server that starts when first needed, and never again once it has failed.

    Args:
        is_over: whether the user wants to end; then nothing waits for the server.
    """

    def __init__(self, is_over: Callable[[], bool] = lambda: False) -> None:
        self._is_over = is_over
        #: variables of the server; the only one of ours lets it end with this process
        self._environment = {
            name: value
            for name, value in own_environment(os.environ).items()
            if not name.startswith(_OURS) or name == SUPERVISOR_VARIABLE
        }
        self._surroundings = _surroundings()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        #: why nothing can be forked; empty if it can
        self.problem = ""

    @property
    def pid(self) -> int | None:
        """The server's pid while it serves."""
        return None if self._process is None or self._connection is None else self._process.pid

    def prepare(self) -> bool:
        """Start the server if needed, and wait until it can fork; returns whether it can."""
        if self._process is not None or self.problem:
            return self._connection is not None
        try:
            self._start()
            self._await(_READY_WITHIN_S)
        except OSError as error:
            self.fail(str(error))
        return self._connection is not None

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-P", "-m", "ctrkit.child", SERVE, str(its.fileno())]
        self._connection = ours
        # the server ends when its socket closes, not by signals meant for the supervisor
        with its, stops.blocked():
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True, pass_fds=[its.fileno()],
                env=self._environment | {ROOM_VARIABLE: "x" * _ROOM},
            )  # fmt: skip

    def fork(
        self, environment: Mapping[str, str], arguments: list[str], stdout: Path, stderr: Path
    ) -> ForkedProcess | None:
        """Fork a child that is ready to run; None if it must be started anew.

        Call it within `subreaper`. Stop signals are blocked in the child.

        Args:
            environment: its whole environment.
            arguments: arguments of `python -m ctrkit.child`.
            stdout: the file for its output.
            stderr: the file for its errors.
        """
        own = {k: v for k, v in environment.items() if self._environment.get(k) != v}
        missing = set(self._environment) - set(environment)
        if missing or any(map(_may_be_read_at_an_import, own)):
            return None
        if _surroundings() != self._surroundings or not self.prepare():
            return None
        assert self._connection is not None
        request = ForkRequest(
            arguments=arguments, stdout=str(stdout), stderr=str(stderr), environment=own
        )
        forked: ForkedProcess | None = None
        try:
            send(self._connection, request)
            forked = ForkedProcess(self._await(_REPLY_WITHIN_S).pid)
            self._await(_REPLY_WITHIN_S)
        except OSError as error:
            if forked is not None:
                forked.send_signal(signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    forked.wait(_END_WITHIN_S)
            self.fail(str(error))
            return None
        return forked

    def _await(self, within_s: float) -> ForkReply:
        """The next reply.

        Raises:
            OSError: the reply names a problem, none came in time, or the user wants to end.
        """
        assert self._connection is not None
        self._connection.settimeout(_LOOK_S)
        deadline_s = time.monotonic() + within_s
        while not self._is_over():
            try:
                fields = receive(self._connection)
            except TimeoutError:
                if time.monotonic() < deadline_s:
                    continue
                raise OSError(f"no answer within {within_s:.0f} s") from None
            reply = ForkReply(**fields) if fields else ForkReply(problem="it has ended")
            if reply.problem:
                raise OSError(reply.problem)
            return reply
        raise OSError("the end was asked for")

    def fail(self, problem: str) -> None:
        """Fork nothing from now on."""
        self.problem = problem
        self.close()

    def close(self) -> None:
        """End and reap the server; children that it forked continue."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        process = self._process
        if process is None or process.returncode is not None:
            return
        try:
            process.wait(timeout=0.5 if self.problem else _END_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            # a process that waits for a disk does not end even by SIGKILL
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_END_WITHIN_S)
        # if the server was killed, the process between it and a trial is now a child of this one
        reap_orphans(Family(root_pid=process.pid, created_s=time.time(), run_id=""), ())


@contextmanager
def fork_server(is_over: Callable[[], bool] = lambda: False) -> Iterator[ForkServer | None]:
    """A server that ends with this context; None if trials are always started anew."""
    if not sys.platform.startswith("linux") or os.environ.get(SWITCH) == "0":
        yield None
        return
    with subreaper():
        server = ForkServer(is_over)
        try:
            yield server
        finally:
            server.close()


def _may_be_read_at_an_import(variable: str) -> bool:
    """Whether a library may have read this variable when the server imported it."""
    return not variable.startswith(_OURS) and variable != "TMPDIR"


def _surroundings() -> tuple[object, ...]:
    """What a child inherits besides its environment; a forked one inherits it from the server."""
    limits = tuple(
        resource.getrlimit(number)
        for name, number in sorted(vars(resource).items())
        if name.startswith("RLIMIT_")
    )
    status = _text("/proc/self/status").splitlines()
    ignored = [line for line in status if line.startswith(("Umask:", "SigIgn:"))]
    return (
        os.getcwd(), os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0), limits, ignored,
        _text("/proc/self/cgroup"), _text("/proc/self/oom_score_adj"),
    )  # fmt: skip


def _text(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text("utf-8", "replace")
    return ""
