"""What an exception in the child means."""

from __future__ import annotations

import pytest

from ctrkit.child.entry import child_error
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import Stage


@pytest.mark.parametrize(
    ("error", "stage", "verdict", "message"),
    [
        (ValueError("no\nsuch  file"), Stage.DATA, "setup-failed", "ValueError: no such file"),
        (RuntimeError("boom"), Stage.STEP, "crashed", "RuntimeError: boom"),
        (KeyError(), Stage.STEP, "crashed", "KeyError: KeyError"),
        (UsageError("phase: wrong"), Stage.DATA, "usage", "phase: wrong"),
    ],
)
def test_verdict_and_message(error: Exception, stage: Stage, verdict: str, message: str) -> None:
    problem = child_error(error, stage)
    assert (problem.verdict, problem.message, problem.stage) == (verdict, message, stage.label)
    assert type(error).__name__ in problem.traceback
