"""Reads from stderr what ended a process: the uncaught exception, else the last line.

After that exception, Python may write more: warnings, and exceptions that it ignores during
shutdown. Before it there may be other tracebacks: of threads, of logging, of caught exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MOST = 500
_HEADER = re.compile(r"^(Original )?Traceback \(most recent call last\):$")
_GROUP = re.compile(r"^ *\+ Exception Group Traceback \(most recent call last\):$")
_GROUP_BAR = re.compile(r"^ *[|+] ?")
#: The first frame of an exception that ends the program: a module, or code that starts one.
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
    """The uncaught exception in one line, else the last meaningful line; shortened.

    If the script wrote more after the exception, or the message has several lines, the last line is
    appended.

    Args:
        stderr: the end of stderr.
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
    """The lines without the bars of exception groups, so that the outer traceback looks normal."""
    found: list[str] = []
    in_group = False
    for line in lines:
        if _GROUP.match(line):
            in_group = True
            found.append("Traceback (most recent call last):")
        elif in_group and re.match(r"^ *\+-", line):
            in_group = False  # the exceptions of the group follow
        elif in_group:
            found.append(_GROUP_BAR.sub("", line, count=1))
        elif not re.match(r"^ +[|+]", line):
            found.append(line)
    return found


def _without_noise(lines: Sequence[str]) -> list[str]:
    """The lines without ignored exceptions, exceptions of threads, and warnings."""
    found: list[str] = []
    number = 0
    while number < len(lines):
        if _BESIDE.match(lines[number]):
            number = _after_beside(lines, number)
        elif _WARNING.match(lines[number]) and not _ends_traceback(lines, number):
            number += 1
            while number < len(lines) and lines[number].startswith("  "):
                number += 1  # the source line that a warning quotes
        else:
            found.append(lines[number])
            number += 1
    return found


def _after_beside(lines: Sequence[str], number: int) -> int:
    """Index of the line after a report of a harmless exception and its chain."""
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
    """Whether a line is the exception of a traceback: a warning turned into an error."""
    before = number - 1
    while before >= 0 and lines[before].startswith(" "):
        before -= 1
    return before >= 0 and before < number - 1 and bool(_HEADER.match(lines[before]))


def _uncaught(lines: Sequence[str]) -> int | None:
    """Index of the uncaught exception's line; for a DataLoader worker's, its own exception."""
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
    """` (train.py, line 2)` if the line reports a syntax error, else nothing."""
    if at < 0 or lines[at].partition(":")[0] not in _OF_SYNTAX:
        return ""
    for line in reversed(lines[:at]):
        if place := _PLACE.match(line):
            return f" ({place.group(1)}, line {place.group(2)})"
        if not line.startswith(" "):
            break
    return ""
