"""Relays a script's terminal: its output goes to ours unchanged, and into the run folder.

If ours is a terminal, the script gets one of its own (a pseudo-terminal), so that progress bars,
colours and prompts work as usual. If a stream of ours is a file or a pipe, the script gets a pipe
for it.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

MAX_COPY_BYTES = 64_000_000
DROPPED = b"[ctrkit dropped what was here: the output had grown beyond 64 MB]\n"
_CHUNK = 65_536
_DRAIN_S, _DRAIN_QUIET_S = 2.0, 0.2
_BLOCKED_S, _READER_S = 1.0, 3600.0
_NAMES = ("stdin", "stdout", "stderr")
# An incomplete escape sequence at the end of the output.
_CUT_SEQUENCE = re.compile(rb"\x1b(\[[0-9;:?<>=]*|\][^\x07\x1b]*|[()])?$")


class OutputCopy:
    """A file in the run folder with the script's output; it never grows too large."""

    def __init__(self, path: Path, limit_bytes: int = MAX_COPY_BYTES) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._limit_bytes, self._written = limit_bytes, 0

    def write(self, data: bytes) -> None:
        """Append to the copy; a full disk is no reason to disturb the script."""
        with suppress(OSError):
            if self._written + len(data) > self._limit_bytes:
                self._file.seek(0)
                self._file.truncate()
                self._written = self._file.write(DROPPED)
            self._written += self._file.write(data)

    def close(self) -> None:
        self._file.close()


class Relay:
    """Connects one launch of a script to our own streams; call `close` when it has ended.

    Args:
        folder: gets `stdout.txt` and `stderr.txt`. For a script with a terminal they are one file,
            because its terminal mixes both in order.
        to_group: called with a signal for the script's process group when Ctrl-Z stops us, and when
            we continue.
        quiet: print nothing about the launch itself.
    """

    def __init__(
        self,
        folder: Path,
        to_group: Callable[[int], None] = lambda _: None,
        *,
        quiet: bool = False,
    ) -> None:
        self.to_group, self._quiet = to_group, quiet
        self._is_dumb = os.environ.get("TERM", "dumb") in ("", "dumb", "linux")
        self._ours = {name: _descriptor(name) for name in _NAMES}
        self._is_terminal = {name: _is_terminal(fd) for name, fd in self._ours.items()}
        self._shown_on = "stdout" if self._is_terminal["stdout"] else "stderr"
        self._master, self._slave = self._open_terminal()
        self._sources: dict[int, tuple[int | None, OutputCopy]] = {}
        self._to_close: list[int] = [self._slave] if self._slave is not None else []
        self._childs: dict[str, int | None] = {}
        self._copies: dict[str, OutputCopy] = {}
        self._last = b""
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._writing_since_s: float | None = None
        self._wake = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True, name="ctrkit relay")
        self._saved_mode: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._connect(folder)

    # ---- how the script is connected -------------------------------------------------------------

    def _open_terminal(self) -> tuple[int | None, int | None]:
        if not (self._is_terminal["stdout"] or self._is_terminal["stderr"]):
            return None, None
        try:
            master, slave = os.openpty()
        except OSError:  # no pseudo-terminal is left, so use pipes
            return None, None
        shown = self._ours[self._shown_on]
        assert shown is not None
        with suppress(termios.error, OSError):
            termios.tcsetattr(slave, termios.TCSANOW, termios.tcgetattr(shown))
        self._master = master
        _copy_size(shown, master)
        return master, slave

    def _connect(self, folder: Path) -> None:
        for name in ("stdout", "stderr"):
            path = folder / f"{name}.txt"
            path.unlink(missing_ok=True)
            if self._slave is not None and self._master is not None and self._is_terminal[name]:
                self._childs[name] = self._slave
                if self._master not in self._sources:
                    copy = self._copies[name] = OutputCopy(path)
                    self._sources[self._master] = (self._ours[name], copy)
                else:
                    path.symlink_to("stdout.txt")
                continue
            copy = self._copies[name] = OutputCopy(path)
            read, write = os.pipe()
            self._childs[name] = write
            self._to_close.append(write)
            self._sources[read] = (self._ours[name], copy)
        own = self._ours["stdin"]
        self._forwards = self._slave is not None and self._is_terminal["stdin"] and _in_front(own)
        if self._forwards:
            self._childs["stdin"] = self._slave
        elif self._is_terminal["stdin"] and not _in_front(own):
            self._childs["stdin"] = None  # a background job must not read the terminal
        else:
            self._childs["stdin"] = own

    @property
    def streams(self) -> tuple[int | None, int | None, int | None]:
        """The script's descriptors for stdin, stdout and stderr; None means /dev/null."""
        return self._childs["stdin"], self._childs["stdout"], self._childs["stderr"]

    @property
    def terminal(self) -> int | None:
        """The script's terminal; None if it has none."""
        return self._slave

    @property
    def has_terminal(self) -> bool:
        """Whether the script has a terminal of its own."""
        return self._master is not None

    @property
    def is_blocked(self) -> bool:
        """Whether nothing reads our output (a waiting pager, say): then the script blocks."""
        since_s = self._writing_since_s
        return since_s is not None and time.monotonic() - since_s > _BLOCKED_S

    def started(self) -> None:
        """The script has started: relay its output from now on."""
        for descriptor in self._to_close:
            os.close(descriptor)
        self._to_close = []
        if self._forwards:
            self._take_keys()
        if self._master is not None:
            self._handle(signal.SIGWINCH, self._resized)
        self._thread.start()

    # ---- our own lines between the script's ------------------------------------------------------

    def say(self, line: str) -> None:
        """Print a line of ours, between lines of the script."""
        words = line.encode(errors="replace")
        if self.has_terminal:
            clears = b"\r" if self._is_dumb else b"\r\x1b[K"
            self._write_between(clears + words + b"\r\n")
        else:
            own = self._ours["stderr"]
            if own is not None:
                with suppress(OSError):
                    _write_all(own, words + b"\n")

    def tell(self, words: str) -> None:
        """Print a line about the launch itself."""
        if not self._quiet:
            self.say(f"ctrkit: {words}")

    def title(self, words: str) -> None:
        """Set the title of the terminal window, if there is a terminal."""
        if self.has_terminal and not self._is_dumb:
            safe = "".join(c for c in words if c.isprintable())
            self._write_between(b"\x1b]2;" + safe.encode(errors="replace") + b"\x07")

    def keep_title(self) -> None:
        """Let the terminal save its current title."""
        if self.has_terminal and not self._is_dumb:
            self._write_between(b"\x1b[22;2t")

    def restore_title(self) -> None:
        """Let the terminal restore the saved title."""
        if self.has_terminal and not self._is_dumb:
            self._write_between(b"\x1b[23;2t")

    def _write_between(self, data: bytes) -> None:
        shown = self._ours[self._shown_on]
        if shown is None:
            return
        if not self._lock.acquire(timeout=_BLOCKED_S):
            return  # nothing reads our output, so nothing would read this line
        try:
            if not _CUT_SEQUENCE.search(self._last[-200:]):
                with suppress(OSError):
                    _write_all(shown, data)
        finally:
            self._lock.release()

    # ---- the thread that passes on ---------------------------------------------------------------

    def _run(self) -> None:
        open_ = dict(self._sources)
        own = self._ours["stdin"]
        while open_ and not self._done.is_set():
            wanted = [*open_, self._wake[0]]
            if self._forwards and own is not None:
                wanted.append(own)
            ready, _, _ = select.select(wanted, [], [])
            for descriptor in ready:
                if descriptor in open_:
                    if not self._pass_on(descriptor, *open_[descriptor]):
                        del open_[descriptor]
                elif descriptor == own:
                    self._pass_keys(own)
        self._drain(open_)

    def _drain(self, open_: dict[int, tuple[int | None, OutputCopy]]) -> None:
        """Relay the script's last output, without waiting for an orphan that goes on printing."""
        until_s = time.monotonic() + _DRAIN_S
        while open_ and time.monotonic() < until_s:
            ready, _, _ = select.select(list(open_), [], [], _DRAIN_QUIET_S)
            if not ready:
                return
            for descriptor in ready:
                if not self._pass_on(descriptor, *open_[descriptor]):
                    del open_[descriptor]

    def _pass_on(self, source: int, own: int | None, copy: OutputCopy) -> bool:
        try:
            data = os.read(source, _CHUNK)
        except OSError:  # the last process of the pseudo-terminal has ended
            return False
        if not data:
            return False
        copy.write(data)
        if own is None:
            return True
        with self._lock:
            self._last = data
            self._writing_since_s = time.monotonic()
            try:
                _write_all(own, data)
            except OSError:  # the reader of our output is gone; the script will notice as usual
                if source != self._master:
                    os.close(source)
                    self._sources.pop(source, None)
                    return False
            finally:
                self._writing_since_s = None
        return True

    def _pass_keys(self, own: int) -> None:
        try:
            data = os.read(own, _CHUNK)
        except OSError:
            data = b""
        if not data or self._master is None:
            self._forwards = False
            return
        with suppress(OSError):
            _write_all(self._master, data)

    # ---- our own terminal ------------------------------------------------------------------------

    def _take_keys(self) -> None:
        """Pass keys to the script as they are typed; its own terminal echoes and edits them.

        Ctrl-C and Ctrl-Z remain ours: they become signals, which are passed on.
        """
        own = self._ours["stdin"]
        assert own is not None
        with suppress(termios.error):
            self._saved_mode = termios.tcgetattr(own)
            self._set_key_mode()
            self._handle(signal.SIGTSTP, self._stopped)

    def _set_key_mode(self) -> None:
        own = self._ours["stdin"]
        assert own is not None
        mode = termios.tcgetattr(own)
        mode[tty.IFLAG] &= ~termios.ICRNL
        mode[tty.OFLAG] &= ~termios.OPOST  # the script's terminal has done that already
        mode[tty.LFLAG] &= ~(termios.ICANON | termios.ECHO)
        mode[tty.CC][termios.VMIN], mode[tty.CC][termios.VTIME] = 1, 0
        termios.tcsetattr(own, termios.TCSADRAIN, mode)

    def _give_keys_back(self) -> None:
        own = self._ours["stdin"]
        if self._saved_mode is not None and own is not None:
            with suppress(termios.error):
                termios.tcsetattr(own, termios.TCSADRAIN, self._saved_mode)

    def _stopped(self, _: int, __: FrameType | None) -> None:
        """On Ctrl-Z, the script stops and continues with us."""
        self.to_group(signal.SIGSTOP)
        self._give_keys_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # this process is stopped here until it is continued
        signal.signal(signal.SIGTSTP, handler)
        if _in_front(self._ours["stdin"]):
            with suppress(termios.error):
                self._set_key_mode()
        self.to_group(signal.SIGCONT)

    def _resized(self, _: int, __: FrameType | None) -> None:
        shown = self._ours[self._shown_on]
        if self._master is not None and shown is not None:
            _copy_size(shown, self._master)

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers[number] = signal.signal(number, handler)

    def close(self) -> None:
        """Relay the remaining output, and restore our terminal. A second call does nothing."""
        if self._done.is_set():
            return
        self._done.set()
        os.write(self._wake[1], b"x")
        until_s = time.monotonic() + _READER_S
        if self._thread.is_alive():
            self._thread.join(_DRAIN_S + 1)
        while self._thread.is_alive() and self.is_blocked and time.monotonic() < until_s:
            self._thread.join(1.0)  # a pager may not have read the rest yet
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._give_keys_back()
        for descriptor in (*self._to_close, *self._wake, *self._sources):
            with suppress(OSError):
                os.close(descriptor)
        for copy in self._copies.values():
            copy.close()


def _descriptor(name: str) -> int | None:
    try:
        descriptor = int(getattr(sys, f"__{name}__").fileno())
        os.fstat(descriptor)
    except (AttributeError, OSError, ValueError):
        return None
    return descriptor


def _is_terminal(descriptor: int | None) -> bool:
    return descriptor is not None and os.isatty(descriptor)


def _in_front(descriptor: int | None) -> bool:
    """Whether we are the terminal's foreground job; others must not change its settings."""
    try:
        return descriptor is not None and os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def _copy_size(from_: int, to: int) -> None:
    with suppress(OSError):
        size = fcntl.ioctl(from_, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(to, termios.TIOCSWINSZ, size)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [], 1.0)
