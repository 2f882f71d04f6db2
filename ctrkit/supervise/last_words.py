"""Reads from stderr what ended a process: the uncaught exception, else the last line.

Python may write more after that exception: warnings, and exceptions that it ignores while it shuts
down. Other tracebacks stand before it: of threads, of logging, of exceptions that were caught.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MOST = 500
_HEADER = re.compile(r"^(Original )?Traceback \(most recent call last\):$")
_GROUP = re.compile(r"^ *\+ Exception Group Traceback \(most recent call last\):$")
_GROUP_BAR = re.compile(r"^ *[|+] ?")
#: An exception that ends the program began in a module, or in what starts one.
_OUTERMOST = re.compile(r'^ +File "(.*", line \d+, in <module>|<frozen runpy>", .*)$')
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(: .*|:)?$")
#: A traceback after one of these lines did not end the program.
_BESIDE = re.compile(
    r"^(Exception ignored |Exception in |Process \S+:$|--- Logging error ---$"
    r"|Error in atexit|Error in sys\.|Task exception was never retrieved)"
)
_CHAINED = re.compile(
    r"^(During handling of the above exception, another exception occurred"
    r"|The above exception was the direct cause of the following exception):$"
)
_WARNING = re.compile(r"^.*\w*Warning: ")
_PLACE = re.compile(r'^ +File "(.+)", line (\d+)$')
_OF_SYNTAX = ("SyntaxError", "IndentationError", "TabError")


def last_words(stderr: str) -> str:
    """The uncaught exception in one line, else the last line that is not mere noise; shortened.

    What the script said after the exception, or the rest of a message of several lines, comes
    after it as its last line.

    Args:
        stderr: the end of it.
    """
    lines = _without_groups([line.rstrip() for line in stderr.splitlines()])
    lines = [line for line in lines if line.strip()]
    own = _without_noise(lines)
    last = own[-1].strip() if own else (lines[-1].strip() if lines else "")
    at = _uncaught(own)
    if at is None:
        if at_syntax := _syntax_place(own, len(own) - 1):
            last += at_syntax
        return last[:_MOST]
    said = own[at].strip() + _syntax_place(own, at)
    return said[:_MOST] if at == len(own) - 1 else f"{said[:_MOST]} [...] {last[:_MOST]}"


def _without_groups(lines: Sequence[str]) -> list[str]:
    """Without the bars of exception groups: their outermost traceback reads as any other."""
    found: list[str] = []
    in_group = False
    for line in lines:
        if _GROUP.match(line):
            in_group = True
            found.append("Traceback (most recent call last):")
        elif in_group and re.match(r"^ *\+-", line):
            in_group = False  # what follows are the exceptions in it
        elif in_group:
            found.append(_GROUP_BAR.sub("", line, count=1))
        elif not re.match(r"^ +[|+]", line):
            found.append(line)
    return found


def _without_noise(lines: Sequence[str]) -> list[str]:
    """Without what did not end the program: ignored exceptions, those of threads, warnings."""
    found: list[str] = []
    number = 0
    while number < len(lines):
        if _BESIDE.match(lines[number]):
            number = _after_beside(lines, number)
        elif _WARNING.match(lines[number]) and not _ends_traceback(lines, number):
            number += 1
            while number < len(lines) and lines[number].startswith("  "):
                number += 1  # the line of source that a warning quotes
        else:
            found.append(lines[number])
            number += 1
    return found


def _after_beside(lines: Sequence[str], number: int) -> int:
    """The line after a report of an exception that did not end the program, and after its chain."""
    is_log = lines[number].startswith("--- Logging")
    number += 1
    while number < len(lines):
        if _HEADER.match(lines[number]):
            number += 1
        while number < len(lines) and lines[number].startswith(" "):
            number += 1
        number += 1  # the exception
        if number < len(lines) and _CHAINED.match(lines[number]):
            number += 1
            continue
        break
    if is_log:
        while number < len(lines) and lines[number].startswith(("Call stack:", " ", "Message:")):
            number += 1
        if number < len(lines) and lines[number].startswith("Arguments:"):
            number += 1
    return number


def _ends_traceback(lines: Sequence[str], number: int) -> bool:
    """Whether a line is the exception of a traceback: a warning that was made an error."""
    before = number - 1
    while before >= 0 and lines[before].startswith(" "):
        before -= 1
    return before >= 0 and before < number - 1 and bool(_HEADER.match(lines[before]))


def _uncaught(lines: Sequence[str]) -> int | None:
    """Where the exception stands that nobody caught; of a DataLoader worker's, its own."""
    found, of_worker = None, False
    for number, line in enumerate(lines):
        if not (header := _HEADER.match(line)):
            continue
        original = bool(header.group(1))
        if original and found is None:
            continue
        is_outermost = number + 1 < len(lines) and _OUTERMOST.match(lines[number + 1])
        end = number + 1
        while end < len(lines) and lines[end].startswith(" "):
            end += 1
        if end >= len(lines) or not _EXCEPTION.match(lines[end]):
            continue
        if (original and not of_worker) or is_outermost:
            found, of_worker = end, original
    return found


def _syntax_place(lines: Sequence[str], at: int) -> str:
    """` (train.py, line 2)` where the line tells of an error of syntax, else nothing."""
    if at < 0 or lines[at].partition(":")[0] not in _OF_SYNTAX:
        return ""
    for line in reversed(lines[:at]):
        if place := _PLACE.match(line):
            return f" ({place.group(1)}, line {place.group(2)})"
        if not line.startswith(" "):
            break
    return ""
