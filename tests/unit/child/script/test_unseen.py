"""Frames of the observer are left out of warnings."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable

import pytest

from ctrkit.child.script.unseen import unseen


def warns(level: int) -> None:
    warnings.warn("look", stacklevel=level)


def wrapped(function: Callable[..., None]) -> Callable[..., None]:
    @unseen
    @functools.wraps(function)
    def wrapper(*arguments: object) -> None:
        function(*arguments)

    return wrapper


def caller(function: Callable[[int], None], level: int) -> None:
    function(level)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_wrapped_function_warns_of_the_same_line(level: int) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for function in (warns, wrapped(wrapped(warns))):
            caller(function, level)
    plain, observed = seen
    assert plain.filename == __file__
    assert (observed.filename, observed.lineno) == (plain.filename, plain.lineno)
