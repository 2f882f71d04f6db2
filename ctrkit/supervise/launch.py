"""Starts a child from its spec: in its own session, output to files, with a run id and a guard."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import psutil

from ctrkit.core import stops
from ctrkit.core.command_line import shown_script
from ctrkit.core.config import ChildSpec
from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_json
from ctrkit.core.lifeline import (
    FOLDER_VARIABLE,
    RUN_ID_VARIABLE,
    SUPERVISOR_VARIABLE,
    make_sockets_folder,
)
from ctrkit.core.progress import read_ranks
from ctrkit.supervise.cleanup import (
    Ended,
    Family,
    end_family,
    find_family,
    reap_orphans,
    remove_sockets,
)
from ctrkit.supervise.explain.flight_recorder import recorder_variables
from ctrkit.supervise.explain.training_family import python_below
from ctrkit.supervise.forkserver import ForkedProcess, ForkServer
from ctrkit.supervise.guard import Guard
from ctrkit.supervise.own_environment import own_environment
from ctrkit.supervise.relay import Relay
from ctrkit.supervise.script_launch import Invocation, script_invocation
from ctrkit.supervise.trial_input import trial_input

MAX_OUTPUT_BYTES = 64_000_000
#: number of words before the arguments of `ctrkit.child`: Python, its options, the module
_OWN_WORDS = 4
_LEFTOVERS_S, _TELL_LEFTOVERS_S = 10.0, 1.0
_DROPPED = b"[ctrkit dropped what was here: the output had grown beyond 64 MB]\n"


class Child:
    """A started child process. `end` must be called once, whatever happens."""

    def __init__(
        self,
        spec: ChildSpec,
        completion: str,
        argv: Sequence[str] | None = None,
        relay: Relay | None = None,
        server: ForkServer | None = None,
    ) -> None:
        """Write `spec.json` into the spec's folder, and start the child.

        Args:
            spec: the child's spec; `spawned_at_s` is set here.
            completion: name of the result file; an old one is removed.
            argv: replaces `python -m ctrkit.child SPEC` (for tests).
            relay: connects it to our own streams; None: output goes only to files.
            server: forks the child if it can; otherwise the child is started anew.
        """
        self._relay = relay
        #: pid of the server that forked it
        self.server_pid: int | None = None
        self.folder = Path(spec.folder).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in (
            self.progress_path,
            self.folder / completion,
            self.folder / "measurement.json",  # an error of an earlier launch
            self.folder / "script.json",
            *self.folder.glob("stacks-*.txt"),
            *self.folder.glob("worker-*.bin"),
            *self.folder.glob("rank-*.bin"),
            *self.folder.glob("nccl-*"),
            *self.folder.glob("**/*.pid"),
        ):
            old.unlink(missing_ok=True)
        run_id = uuid.uuid4().hex
        env = {key: value for key, value in os.environ.items() if key != RUN_ID_VARIABLE}
        self._guard = Guard(run_id, env)
        self._process: subprocess.Popen[bytes] | ForkedProcess
        try:
            env |= make_sockets_folder(run_id)
            self.spawned_at_s = time.monotonic()
            path = self.folder / "spec.json"
            write_json(path, _shown(dataclasses.replace(spec, spawned_at_s=self.spawned_at_s)))
            start = _invocation(spec, self.folder, env)
            if argv is not None:
                start = dataclasses.replace(start, argv=list(argv))
            # Our own child unblocks the signals once it can note them; a script must start
            # unblocked.
            is_ours = argv is None and spec.workload.script is None
            with stops.blocked() if is_ours else nullcontext():
                forked = self._fork(start, run_id, server) if is_ours else None
                self._process = forked or _start(start, self.folder, run_id, relay)
        except BaseException:
            remove_sockets(run_id)
            self._guard.dismiss()
            raise
        self._family = Family.of(self._process.pid, run_id)
        self._guard.watch(self._process.pid)
        self._exit_fd = _exit_fd(self._process.pid)

    def _fork(
        self, start: Invocation, run_id: str, server: ForkServer | None
    ) -> ForkedProcess | None:
        """Fork it from the server; None if it must be started anew."""
        if server is None:
            return None
        env = _environment(start, self.folder, run_id)
        stdout, stderr = _new_outputs(self.folder)
        forked = server.fork(env, start.argv[_OWN_WORDS:], stdout, stderr)
        self.server_pid = None if forked is None else server.pid
        return forked

    @property
    def pid(self) -> int:
        """The child's process id, which is also its session's id."""
        return self._process.pid

    @property
    def progress_path(self) -> Path:
        """The child's progress file."""
        return self.folder / "progress.bin"

    @property
    def stderr_path(self) -> Path:
        """The file with the stderr of the child and its workers."""
        return self.folder / "stderr.txt"

    def wait(self, timeout_s: float) -> int | None:
        """Wait for its exit code (negative for a signal); None at the timeout."""
        if self._exit_fd is None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(timeout_s)
            return None
        if self._process.returncode is None:
            select.select([self._exit_fd], [], [], timeout_s)
        return self._process.poll()

    def interrupt(self, pid: int | None = None) -> None:
        """Ask the child to finish its step and save, unless it has ended.

        Args:
            pid: the training process within the child; None: the child itself.
        """
        if pid is None or pid == self.pid:
            self._process.send_signal(signal.SIGINT)
        elif self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)

    def pass_on(self, number: int) -> None:
        """Pass a signal on to a script, as it would have come without us, unless it has ended.

        Ctrl-C in a terminal reaches the whole group. Other signals go to the started process, and
        if that is a shell or another launcher, to the Python process below it. Workers do not get
        them: their death would end the training.
        """
        if self._process.poll() is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            if number == signal.SIGINT and self._relay is not None and self._relay.has_terminal:
                os.killpg(self.pid, number)
                return
            for pid in (self.pid, *python_below(self.pid)):
                os.kill(pid, number)

    def to_group(self, number: int) -> None:
        """Send a signal to all processes of the script's group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    @property
    def output_is_blocked(self) -> bool:
        """Whether the child may be blocked only because nothing reads its output."""
        return self._relay is not None and self._relay.is_blocked

    def bound_output(self) -> None:
        """Truncate output files that have grown too large; they are open for appending."""
        if self._relay is not None:
            return  # the relay limits them itself
        for name in ("stdout.txt", "stderr.txt"):
            path = self.folder / name
            with suppress(OSError):  # a removed file is no reason to end a run
                if path.stat().st_size > MAX_OUTPUT_BYTES:
                    os.truncate(path, 0)
                    with open(path, "ab") as file:
                        file.write(_DROPPED)

    def _let_leftovers_end(self) -> None:
        """Give processes that a script left running (an upload, say) a moment to end."""
        if self._relay is None or self._process.poll() is None:
            return
        began_s, told = time.monotonic(), False
        while (left := find_family(self._family)) and time.monotonic() - began_s < _LEFTOVERS_S:
            if not told and time.monotonic() - began_s > _TELL_LEFTOVERS_S:
                told = True
                named = ", ".join(f"pid {one.pid} ({_name(one)})" for one in left[:5])
                self._relay.tell(
                    f"the script has ended and left {named} running; what does not end in "
                    f"{_LEFTOVERS_S:.0f} s is ended"
                )
            time.sleep(0.1)

    def end(self) -> Ended:
        """End and reap the child with its whole family, and dismiss the guard."""
        try:
            self._let_leftovers_end()
            ended = end_family(self._family)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            # ranks lead their own sessions, so nothing else shows that they belonged to the family
            ranks = {one.pid for one in read_ranks(self.folder)}
            reap_orphans(self._family, ranks.union(ended.killed))
        finally:
            if self._exit_fd is not None:
                os.close(self._exit_fd)
                self._exit_fd = None
            remove_sockets(self._family.run_id)
            self._guard.dismiss()
        return ended


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return "?"


def _shown(spec: ChildSpec) -> ChildSpec:
    """The spec without secrets of a script's command, which the observer does not need."""
    if spec.workload.script is None:
        return spec
    workload = dataclasses.replace(spec.workload, script=shown_script(spec.workload.script))
    return dataclasses.replace(spec, workload=workload)


def _invocation(spec: ChildSpec, folder: Path, env: dict[str, str]) -> Invocation:
    if spec.workload.script is not None:
        return script_invocation(spec, folder, env, trial=spec.kind != "train")
    # -P: no file of the user's folder may hide a module of the library
    return Invocation(
        argv=[sys.executable, "-P", "-m", "ctrkit.child", str(folder / "spec.json")],
        folder=None,
        environment=own_environment(env)
        | recorder_variables(spec, folder, env)
        | {stops.VARIABLE: "1"},
    )


def _environment(start: Invocation, folder: Path, run_id: str) -> dict[str, str]:
    return start.environment | {
        RUN_ID_VARIABLE: run_id,
        SUPERVISOR_VARIABLE: str(os.getpid()),
        FOLDER_VARIABLE: str(folder),
        "PYTHONFAULTHANDLER": "1",  # after a segmentation fault, its stack is in stderr
    }


def _new_outputs(folder: Path) -> tuple[Path, Path]:
    """Empty files for stdout and stderr."""
    paths = folder / "stdout.txt", folder / "stderr.txt"
    for path in paths:
        path.unlink(missing_ok=True)
        path.touch()
    return paths


def _start(
    start: Invocation, folder: Path, run_id: str, relay: Relay | None
) -> subprocess.Popen[bytes]:
    env = _environment(start, folder, run_id)
    if relay is not None:
        return _start_connected(start, env, relay)
    stdout, stderr = _new_outputs(folder)
    stdin = trial_input() if start.is_script else subprocess.DEVNULL
    with open(stdout, "ab") as out, open(stderr, "ab") as err:
        return subprocess.Popen(
            start.argv, cwd=start.folder, stdin=stdin, stdout=out, stderr=err,
            env=env, start_new_session=True,
        )  # fmt: skip


def _start_connected(
    start: Invocation, env: dict[str, str], relay: Relay
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = relay.streams
    terminal = relay.terminal

    def take_terminal() -> None:
        # a session leader has no terminal until it asks for one
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    try:
        process = subprocess.Popen(
            start.argv, cwd=start.folder, stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=stdout, stderr=stderr, env=env, start_new_session=True,
            preexec_fn=take_terminal,
        )  # fmt: skip
    except OSError as error:
        why = error.strerror or error
        raise UsageError(f"-- {start.argv[0]}: cannot be started: {why}") from None
    relay.started()
    return process


def _exit_fd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None if the system has none."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
