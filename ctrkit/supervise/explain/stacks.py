"""Parses stacks of faulthandler and tracebacks: where each thread stands, in whose code."""

from __future__ import annotations

import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path

_THREAD = re.compile(r"^(Thread|Current thread) 0x[0-9a-f]+.*\(most recent call first\):")
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$')
_CALL = re.compile(r'^ *File "(.+)", line (\d+), in (.+)$')
_PACKAGE = f"{Path(__file__).parents[2]}/"
_OBSERVER = "/observer/ctrkit/"  # the link through which a script's interpreter finds the observer
_LIBRARIES = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib"))
# Also paths of other interpreters: the stacks may come from another machine.
_LIBRARY = re.compile(r"/lib/python3\.\d+t?/|/(site|dist)-packages/|^<")


@dataclass(frozen=True)
class Frame:
    """One call: the current `line` in `file`."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} in {self.function}"

    def is_in(self, end_of_path: str, *functions: str) -> bool:
        """Whether it is in this file, and in one of the functions if any are given."""
        return self.file.endswith(end_of_path) and (not functions or self.function in functions)


Thread = tuple[Frame, ...]
"""Frames of one thread, innermost first."""


def parse_dump(text: str) -> tuple[Thread, ...]:
    """The threads of a dump in order; faulthandler writes the main thread last."""
    threads: list[list[Frame]] = []
    for line in text.splitlines():
        if _THREAD.match(line):
            threads.append([])
        elif threads and (match := _FRAME.match(line)):
            threads[-1].append(Frame(match[1], int(match[2]), match[3]))
    return tuple(tuple(thread) for thread in threads if thread)


def parse_traceback(text: str) -> Thread:
    """The frames of all tracebacks in a text, the last raised first; an approximation."""
    calls = (_CALL.match(line) for line in text.splitlines())
    return tuple(Frame(call[1], int(call[2]), call[3]) for call in calls if call)[::-1]


def own_part(thread: Thread) -> Thread:
    """The frames of this process; after a fork, without its parent's frames."""
    for index, frame in enumerate(thread):
        if frame.is_in("multiprocessing/process.py", "_bootstrap"):
            return thread[: index + 1]
    return thread


def user_frame(thread: Thread) -> Frame | None:
    """The innermost frame outside libraries, ctrkit and frozen modules."""
    return next((frame for frame in thread if is_users(frame)), None)


def our_frame(thread: Thread) -> Frame | None:
    """The innermost frame of ctrkit."""
    return next((frame for frame in thread if _is_ours(frame)), None)


def is_users(frame: Frame) -> bool:
    """Whether the frame is outside libraries, ctrkit and frozen modules."""
    return not _is_library(frame) and not _is_ours(frame)


def find_frame(thread: Thread, end_of_path: str, *functions: str) -> Frame | None:
    """The innermost frame in this file, and in one of the functions if any are given."""
    return next((frame for frame in thread if frame.is_in(end_of_path, *functions)), None)


def _is_ours(frame: Frame) -> bool:
    return frame.file.startswith(_PACKAGE) or _OBSERVER in frame.file


def _is_library(frame: Frame) -> bool:
    return frame.file.startswith(_LIBRARIES) or bool(_LIBRARY.search(frame.file))
