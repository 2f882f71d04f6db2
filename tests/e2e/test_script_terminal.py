"""The real run of a script in a terminal, which belongs to the script."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Callable
from pathlib import Path

from script_launches import PYTHON, script
from support import COMMAND

ASKS = """
import getpass, os, signal, sys, time
print("terminals", *[os.isatty(i) for i in (0, 1, 2)], *os.get_terminal_size(), flush=True)
signal.signal(signal.SIGWINCH, lambda *_: print("size", *os.get_terminal_size(), flush=True))
print("hello", input("name? "), flush=True)
try:
    print("length", len(getpass.getpass("secret? ")), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
"""


class Terminal:
    """A terminal of 30 x 100 in which the command runs, and what it has shown so far."""

    def __init__(
        self, folder: Path, *arguments: str | Path, command: list[str] | None = None
    ) -> None:
        argv = command or [str(COMMAND), "train", "--out", "run", *map(str, arguments)]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ["TERM"] = "dumb"
            os.execv(argv[0], argv)
        self.resize(30, 100)
        self.mode = termios.tcgetattr(self.fd)
        self.shown = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def read_until(self, words: str) -> None:
        self._read(lambda: words in self.shown)
        assert words in self.shown, self.shown

    def _read(self, enough: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s and not enough():
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 4096)
                except OSError:
                    return
                self.shown += data.decode(errors="replace")
                if not data:
                    return

    def exit_code(self) -> int:
        mode = termios.tcgetattr(self.fd)
        self._read(lambda: False)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        assert mode is not None
        return code


def test_its_terminal_is_its_own(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--", PYTHON, script(tmp_path, ASKS))
    terminal.read_until("name? ")
    assert "terminals True True True 100 30" in terminal.shown
    terminal.type("Bob\r")
    terminal.read_until("hello Bob")
    terminal.read_until("secret? ")
    terminal.resize(40, 120)
    terminal.read_until("size 120 40")
    terminal.type("abcdef\r")
    terminal.read_until("length 6")
    assert "abcdef" not in terminal.shown
    assert "\x1b" not in terminal.shown  # TERM says that it understands no such thing
    terminal.type("\x03")
    assert terminal.exit_code() == 7, terminal.shown
    kept = (tmp_path / "run" / "child" / "stdout.txt").read_text()
    assert "hello Bob" in kept
    assert "ctrkit:" not in kept


def test_ctrl_z_stops_the_script_with_us(tmp_path: Path) -> None:
    path = script(tmp_path, "import time\nfor i in range(40):\n"
                            "    print('tick', i, flush=True); time.sleep(0.2)\n")  # fmt: skip
    line = (
        f"set -m; {COMMAND} train -q --out run -- {PYTHON} {path}; echo stopped; sleep 2;"
        " fg > /dev/null; echo ended $?"
    )
    terminal = Terminal(tmp_path, command=["/bin/bash", "-c", line])
    terminal.read_until("tick 3")
    terminal.type("\x1a")
    assert terminal.exit_code() == 0
    before, _, after = terminal.shown.partition("stopped")
    last = before.count("tick")
    assert 4 <= last < 40
    assert after.split()[:2] == ["tick", str(last)]  # nothing came while it was stopped
    assert "ended 0" in after


def test_our_terminal_is_given_back_as_it_was(tmp_path: Path) -> None:
    """A shell around it, so that the terminal is still there afterwards."""
    path = script(tmp_path, "print('trained')")
    line = f"stty -a > before; {COMMAND} train -q --out run -- {PYTHON} {path}; stty -a > after"
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv("/bin/sh", ["/bin/sh", "-c", line])
    shown = b""
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.waitpid(pid, 0)
    os.close(fd)
    assert shown == b"trained\r\n"
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()
