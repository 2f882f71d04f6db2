"""Conditions on a figure of a run, as people write them: `>= 0.578`, `3-6`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ctrkit.core.errors import UsageError

_NUMBER = r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
_RANGE = re.compile(rf"\s*{_NUMBER}\s*(?:-|\.\.)\s*{_NUMBER}\s*")
_BOUND = re.compile(rf"\s*(>=|<=|>|<|==?)?\s*{_NUMBER}\s*")


@dataclass(frozen=True)
class Condition:
    """A range that a figure has to lie in; its ends count unless `is_open`."""

    low: float
    high: float
    is_open: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range."""
        if self.is_open:
            return self.low < value < self.high
        return self.low <= value <= self.high


def parse_condition(text: str) -> Condition:
    """Parse `>= 0.578`, `< 0.2`, `3-6` or `0.05 .. 0.12`; a number alone means exactly that.

    Raises:
        UsageError: the text is no such condition.
    """
    if match := _RANGE.fullmatch(text):
        low, high = float(match[1]), float(match[2])
        if low > high:
            raise UsageError(f"'{text}': the range ends before it begins")
        return Condition(low, high)
    match = _BOUND.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is no condition; write for example '>= 0.578' or '3-6'")
    operator, value = match[1] or "=", float(match[2])
    low = value if operator[0] in ">=" else float("-inf")
    high = value if operator[0] in "<=" else float("inf")
    return Condition(low, high, is_open=operator in ("<", ">"))
