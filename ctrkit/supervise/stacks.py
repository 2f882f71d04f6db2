"""Reads faulthandler's dumps: which thread waits where, in whose code."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_THREAD = re.compile(r"^(Thread|Current thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_PACKAGE = f"{Path(__file__).parent.parent}/"
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


def own_part(thread: Thread) -> Thread:
    """The frames of this process: under a fork they end where those of its parent begin."""
    for index, frame in enumerate(thread):
        if frame.function == "_bootstrap" and frame.file.endswith("multiprocessing/process.py"):
            return thread[: index + 1]
    return thread


def user_frame(thread: Thread) -> Frame | None:
    """The innermost frame that is neither a library's, nor ctrkit's, nor frozen."""
    return next((frame for frame in thread if not _is_foreign(frame) and not _is_ours(frame)), None)


def waiting_place(dumps: Mapping[int, str], root_pid: int) -> str | None:
    """Where the guilty process waits, as half a sentence; None without stacks.

    User code before ctrkit's own. A worker before the main process, which only waits for it; an
    idle worker stands in a library. Without any of that it is the main process's innermost frame.
    """
    threads = {pid: own_part(parsed[-1]) for pid in dumps if (parsed := parse_dump(dumps[pid]))}
    guilty_first = sorted(threads.items(), key=lambda item: item[0] == root_pid)
    for chosen in (user_frame, _our_frame):
        for pid, thread in guilty_first:
            if frame := chosen(thread):
                who = "the main process" if pid == root_pid else f"worker {pid}"
                inner = "" if frame == thread[0] else f" (inside {thread[0]})"
                return f"{who} is at {frame}{inner}"
    if root_pid in threads:
        return f"the main process is at {threads[root_pid][0]}"
    return None


def _our_frame(thread: Thread) -> Frame | None:
    return next((frame for frame in thread if _is_ours(frame)), None)


def _is_ours(frame: Frame) -> bool:
    return frame.file.startswith(_PACKAGE)


def _is_foreign(frame: Frame) -> bool:
    return frame.file.startswith((*_LIBRARIES, "<")) or "/site-packages/" in frame.file
