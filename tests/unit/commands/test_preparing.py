from __future__ import annotations

import io

from rich.console import Console

from ctrkit.commands.preparing import StageDisplay, ended_line, running_line
from ctrkit.ctr.data.stage_progress import StageProgress

HALF = StageProgress(
    name="reading a.csv", share=0.5, rows=5_000_000, elapsed_s=4.0, cpu_s=7.0
)  # fmt: skip
DONE = StageProgress(
    name="reading a.csv", state="done", share=1.0, rows=10_000_000, elapsed_s=8.0, cpu_s=14.0
)


def test_a_line_says_rows_pace_and_what_is_left() -> None:
    line = "reading a.csv: 50 %, 5,000,000 rows at 1.25 M/s, 4 s left"
    assert running_line(HALF) == line
    assert running_line(StageProgress(name="joining", elapsed_s=2.0)) == "joining: 2 s"
    assert ended_line(DONE) == "reading a.csv: 10,000,000 rows at 1.25 M/s, 8 s"
    slow = StageProgress(name="a", state="skipped", share=1.0, rows=80, elapsed_s=8.0)
    assert ended_line(slow) == "a: finished before: 80 rows at 10 /s, 8 s"


def _shown(*progresses: StageProgress, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    now_s = iter(range(1000))
    with StageDisplay(console=console, clock=lambda: float(next(now_s))) as display:
        display.note("going on")
        for progress in progresses:
            display.stage(progress)
    return text.getvalue()


def test_a_log_has_a_line_per_stage_and_one_a_minute() -> None:
    minutes = [StageProgress(name="long", share=0.001, elapsed_s=10.0 * i) for i in range(13)]
    lines = _shown(HALF, DONE, *minutes, terminal=False).splitlines()
    assert lines[:2] == ["going on", ended_line(DONE)]
    assert [line.split(", ")[1] for line in lines[2:]] == ["1 min 00 s", "2 min 00 s"]


def test_a_terminal_shows_the_stage_that_runs() -> None:
    shown = _shown(HALF, DONE, terminal=True)
    assert running_line(HALF) in shown
    assert ended_line(DONE) in shown
