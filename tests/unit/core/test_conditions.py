"""Conditions that a figure has to meet."""

from __future__ import annotations

import pytest

from ctrkit.core.conditions import parse_condition
from ctrkit.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">= 0.578", [0.578, 1.0], [0.577]),
        ("< 0.2", [0.19, -3], [0.2]),
        ("3-6", [3, 4.5, 6], [2, 7]),
        ("0.05 .. 0.12", [0.05, 0.12], [0.049, 0.121]),
        ("-1--0.5", [-1, -0.5], [0]),
        ("5", [5], [4.9]),
        ("= 1e-3", [0.001], [0.002]),
    ],
)
def test_conditions(text: str, inside: list[float], outside: list[float]) -> None:
    condition = parse_condition(text)
    assert all(condition.holds(value) for value in inside)
    assert not any(condition.holds(value) for value in outside)


@pytest.mark.parametrize("text", ["", "high", ">= ", "6-3", "1-2-3", "=> 4", "nan"])
def test_bad_conditions(text: str) -> None:
    with pytest.raises(UsageError):
        parse_condition(text)
