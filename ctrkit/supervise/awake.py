"""Keeps the machine awake during a real run, with the system's own tool for that."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from types import TracebackType
from typing import IO

_END_S = 3.0
_CAFFEINATE = "caffeinate"
_INHIBIT = "systemd-inhibit"


def hold_command(system: str, pid: int) -> list[str]:
    """The command that keeps the machine awake until it is ended, or until `pid` is gone.

    On Linux it ends when its input ends, a pipe that only that process holds open.
    """
    if system == "darwin":
        return [_CAFFEINATE, "-i", "-w", str(pid)]
    why = "a training run is active"
    return [_INHIBIT, "--what=idle:sleep", "--mode=block", "--who=ctrkit", f"--why={why}", "cat"]


class Awake:
    """A context in which the machine does not sleep by itself, as far as possible.

    A closed lid and an empty battery are stronger. Whatever happens inside, the tool is ended and
    reaped; it also ends when this process is killed.

    Args:
        command: command of the tool; None for this system's own.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self._command = hold_command(sys.platform, os.getpid()) if command is None else command
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._problem = ""

    def __enter__(self) -> Awake:
        if shutil.which(self._command[0]) is None:
            self._problem = f"there is no {self._command[0]}"
            return self
        self._errors = tempfile.TemporaryFile()  # a file, because a pipe could fill up
        try:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                stderr=self._errors, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._problem = f"{self._command[0]}: {error.strerror}"
        return self

    def problem(self) -> str:
        """Why the machine is not kept awake; empty if it is. A refusal shows after a moment."""
        if self._process is not None and not self._problem and self._process.poll() is not None:
            self._problem = f"{self._command[0]}: {self._last_words()}"
        return self._problem

    def _last_words(self) -> str:
        assert self._errors is not None
        assert self._process is not None
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1] if said else f"ended with exit code {self._process.returncode}"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            _end(self._process)
        if self._errors is not None:
            self._errors.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it gently, else by force, and reap it, unless it hangs in the kernel."""
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    if process.args[0] == _CAFFEINATE:  # type: ignore[index]  # it does not read
        process.terminate()
    try:
        process.wait(timeout=_END_S)
    except subprocess.TimeoutExpired:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_END_S)
