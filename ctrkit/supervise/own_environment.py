"""The environment variables that every child gets."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ctrkit.core.lifeline import FIRST_FOLDER, SUPERVISOR_VARIABLE


def own_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """The inherited environment, with the variables that prepare a child and guard it."""
    path = [str(FIRST_FOLDER), *filter(None, [inherited.get("PYTHONPATH")])]
    return dict(inherited) | {
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONFAULTHANDLER": "1",  # after a segmentation fault, its stack is in stderr
        SUPERVISOR_VARIABLE: str(os.getpid()),
    }
