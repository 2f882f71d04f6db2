from __future__ import annotations

from ctrkit.core.progress import Stage
from ctrkit.report.silence import SilenceNotice
from ctrkit.supervise.time_limits import StageLimit
from ctrkit.supervise.watching import Tick

LIMIT = StageLimit(idle_s=30, burning_s=60, reason="20 x the median step of 1.5 s")


def tick(silent_s: float) -> Tick:
    return Tick(
        wall_s=99, silent_s=silent_s, stage=Stage.STEP, limit=LIMIT, progress=None, sample=None
    )


def test_each_silence_is_said_once_with_its_limit_and_the_reason() -> None:
    notice = SilenceNotice()
    said = [notice(tick(silent_s)) for silent_s in (0, 14, 16, 20, 1, 14, 29)]
    lines = [line for line in said if line]
    assert [index for index, line in enumerate(said) if line] == [2, 6]
    assert lines[0] == (
        "no progress in stage 'step' for 16 s; it will be treated as hung at 30 s "
        "(20 x the median step of 1.5 s)"
    )
