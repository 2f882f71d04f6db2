"""Reads faulthandler's dumps: which thread waits where, in whose code."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_THREAD = re.compile(r"^(Thread|Current thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_PACKAGE = str(Path(__file__).parent.parent)
_LIBRARIES = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib"))


@dataclass(frozen=True)
class Frame:
    """One call: `line` is where it stands in `file`."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} in {self.function}"


Thread = tuple[Frame, ...]
"""Frames of one thread, innermost first."""


def parse_dump(text: str) -> list[Thread]:
    """The threads of a dump in its order: faulthandler writes the main thread last."""
    threads: list[list[Frame]] = []
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append([])
        elif threads and (match := _FRAME.match(line)):
            threads[-1].append(Frame(match[1], int(match[2]), match[3]))
    return [tuple(thread) for thread in threads if thread]


def user_frame(thread: Thread) -> Frame | None:
    """The innermost frame that is neither a library's, nor ctrkit's, nor frozen."""
    for frame in thread:
        own = frame.file.startswith((_PACKAGE, "<"))
        if not own and not _is_library(frame.file):
            return frame
    return None


def waiting_place(dumps: Mapping[int, str], root_pid: int) -> str | None:
    """Where the guilty process waits, as half a sentence; None without stacks.

    A DataLoader worker in user code is guilty before the main process, which only waits for it. An
    idle worker has no user frame. Without any user frame it is the main process's innermost one.
    """
    main_threads = {
        pid: threads[-1] for pid, text in dumps.items() if (threads := parse_dump(text))
    }
    for pid, thread in sorted(main_threads.items(), key=lambda item: item[0] == root_pid):
        if frame := user_frame(thread):
            who = "the main process" if pid == root_pid else f"worker {pid}"
            inner = "" if frame == thread[0] else f" (inside {thread[0]})"
            return f"{who} is at {frame}{inner}"
    if root_pid in main_threads:
        return f"the main process is at {main_threads[root_pid][0]}"
    return None


def _is_library(file: str) -> bool:
    return file.startswith(_LIBRARIES) or "/site-packages/" in file
