"""Keeps the observer's frames out of warnings, which then name the same line as without it.

A warning with `stacklevel=2` names the caller of the function that warns. If the observer has
wrapped that function, its caller would be the observer. Python does not count frames of importlib,
which it recognises by the name of their file; so the observer's frames have such a name, too.
Filters and the once-only rule of a script's warnings then also work as without the observer.
"""

from __future__ import annotations

from typing import Any, TypeVar

#: `warnings` looks for both words in every version since 3.3; a name in brackets is no file.
FILE_NAME = "<ctrkit's observer, left out of warnings as importlib._bootstrap is>"

F = TypeVar("F", bound=Any)


def unseen(function: F) -> F:
    """The same function with frames that no warning names."""
    function.__code__ = function.__code__.replace(co_filename=FILE_NAME)
    return function
