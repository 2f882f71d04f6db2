"""Keeps the observer's own frames out of warnings: they name the line that they always name.

A warning with `stacklevel=2` names the caller of the function that warns. Where the observer has
wrapped that function, its caller would be the observer. Python leaves frames of importlib out of
that count, and knows them by the name of their file; so these frames have such a name, too. The
filters and the once-only rule of a script's warnings then also work as without the observer.
"""

from __future__ import annotations

from typing import Any, TypeVar

#: `warnings` looks for both words, in every version since 3.3; a name in brackets is no file.
FILE_NAME = "<ctrkit's observer, left out of warnings as importlib._bootstrap is>"

F = TypeVar("F", bound=Any)


def unseen(function: F) -> F:
    """The same function, whose frames no warning names."""
    function.__code__ = function.__code__.replace(co_filename=FILE_NAME)
    return function
