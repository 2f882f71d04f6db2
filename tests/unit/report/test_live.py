import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from ctrkit.core.plugins import Plugin
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.records import AnswerSoFar, Recommendation
from ctrkit.ctr.plugin import MdafPlugin
from ctrkit.report.ledger_view import ExpectedEnd
from ctrkit.report.live_probe import ProbeDisplay, so_far_line
from ctrkit.report.live_train import TrainDisplay, epoch_line, speed_of
from tests.unit.report.conftest import (
    BATCHES,
    ROWS,
    ROWS_0,
    THREAD,
    cell,
    epoch_row,
    measured,
    trial,
)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def console(*, terminal: bool, width: int = 80, height: int = 24) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    made = Console(
        file=file, width=width, height=height, force_terminal=terminal, force_interactive=terminal,
        color_system=None, highlight=False, markup=False, emoji=False, _environ={},
    )  # fmt: skip
    return made, file


def progress(step: int, written_s: float, **changes: Any) -> Progress:
    values: dict[str, Any] = {
        "pid": 1, "stage": Stage.STEP, "epoch": 1, "steps": 514, "rows": step * 2048,
        "writes": step + 1, "wait_s": step * 0.1, "loss": 0.38,
    }  # fmt: skip
    return Progress(step=step, written_s=written_s, **(values | changes))


def test_speed_is_taken_between_the_first_and_the_last_reading() -> None:
    speed = speed_of([progress(10, 100.0), progress(15, 130.0), progress(20, 200.0)])
    assert speed is not None
    assert speed.steps_per_s == 0.1
    assert speed.rows_per_s == 204.8
    assert speed.wait_share == pytest.approx(0.01)
    assert speed_of([progress(10, 100.0)]) is None
    assert speed_of([progress(10, 100.0), progress(10, 120.0)]) is None


def test_a_probe_without_terminal_prints_a_line_per_finished_trial() -> None:
    made, file = console(terminal=False)
    clock = Clock()
    with ProbeDisplay(budget_s=120.0, console=made, clock=clock) as display:
        display.started(THREAD, "full")
        clock.now_s += 12.4
        display.tick(progress(3, 1.0))
        display.record(measured(THREAD, 11.1, data_wait_share=0.004))
        display.record(measured(BATCHES, 11.3, kind="predicted", verdict="skipped"))
        display.record(trial(ROWS, verdict="deadlock", reason="all wait\x1b[2J"))
        display.message("done")
    assert file.getvalue().splitlines() == [
        "[12 s] cpu-thread-w0-t2-b2048 (whole step): ok, 11.1 s ±0.3 a step, 185 rows/s, "
        "data wait 0.4 %, whole run 23 h 56 min",
        "[12 s] cpu-rows-w4-fork-p2-t2-b2048 (whole step): deadlock. all wait\\x1b[2J",
        "done",
    ]


def answer(**changes: Any) -> AnswerSoFar:
    values: dict[str, Any] = {
        "basis": "measured", "cell": THREAD, "launches": 2, "step_s": 0.1, "step_s_low": 0.09,
        "step_s_high": 0.11, "projected_epoch_s": 60.0, "projected_epoch_s_low": 50.0,
        "projected_epoch_s_high": 70.0, "projected_total_s": 900.0, "projected_total_s_low": 780.0,
        "projected_total_s_high": 1020.0,
    }  # fmt: skip
    return AnswerSoFar(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            "so far: whole run 15 min 00 s (13.0 .. 17.0 min) with {cell}, measured in 2 launches",
        ),
        (
            {"basis": "predicted", "projected_total_s": None},
            "so far: an epoch 1 min 00 s (50 .. 70 s) with {cell}, predicted from its step and its "
            "loader, each measured alone",
        ),
        (
            {"launches": 1, "projected_total_s": None, "projected_epoch_s": None},
            "so far: a step 100 ms ±10 with {cell}, measured in 1 launch",
        ),
        (
            {"basis": "bound", "projected_total_s": None, "projected_epoch_s": None},
            "so far: whole run at least 13 min 00 s: on cpu with batch 2048 a step takes at least "
            "90.0 ms without its loader",
        ),
    ],
)
def test_an_answer_so_far_is_a_line(changes: dict[str, Any], line: str) -> None:
    assert so_far_line(answer(**changes)) == line.format(cell=THREAD.cell_id)


def test_an_answer_so_far_is_told_once_where_there_is_no_terminal() -> None:
    made, file = console(terminal=False, width=200)
    with ProbeDisplay(console=made, clock=Clock()) as display:
        for one in (answer(), answer(), answer(launches=3)):
            display.answer(one)
    lines = file.getvalue().splitlines()
    assert [line.rpartition(", ")[2] for line in lines] == [
        "measured in 2 launches", "measured in 3 launches",
    ]  # fmt: skip


def test_an_answer_so_far_stands_on_a_terminal() -> None:
    made, file = console(terminal=True, width=200)
    with ProbeDisplay(console=made, clock=Clock(), budget_s=120) as display:
        display.answer(answer())
    assert "so far: whole run 15 min 00 s (13.0 .. 17.0 min)" in file.getvalue()


def test_a_probe_on_a_terminal_shows_matrix_what_runs_best_and_budget() -> None:
    made, file = console(terminal=True)
    clock = Clock()
    with ProbeDisplay(budget_s=120.0, cells=[THREAD, BATCHES], console=made, clock=clock) as d:
        d.record(measured(THREAD, 11.1))
        d.started(BATCHES, "full")
        clock.now_s += 20.0
        file.truncate(0)
        d.tick(progress(3, 1.0))
        shown = file.getvalue()
    assert "ok" in shown
    assert "now cpu-batches-w2-spawn-p2-t2-b2048 (whole step): step 3, 20 s" in shown
    assert "cells ✓▸  1 ok" in shown
    assert "best whole run 23 h 56 min (22.7 .. 25.1 h), cpu-thread-w0-t2-b2048" in shown
    assert "budget left 100 s" in shown
    assert "\x1b[?25h" in file.getvalue()[len(shown) :]  # the cursor is back


def test_each_cell_of_the_matrix_has_a_mark_that_says_how_it_stands() -> None:
    made, file = console(terminal=True, width=120)
    with ProbeDisplay(cells=[THREAD, BATCHES, ROWS, ROWS_0], console=made, clock=Clock()) as d:
        d.record(trial(THREAD, kind="compute", step_s=11.0))
        d.record(trial(THREAD, kind="loader", step_s=0.02))
        d.started(THREAD, "full")
        assert "cells ▸···  3 to come" in file.getvalue()
        assert "a step: computing alone 11.0 s, loading alone 20.0 ms" in file.getvalue()
        d.record(measured(THREAD, 11.1))
        d.record(measured(BATCHES, 11.3, kind="predicted", verdict="skipped"))
        d.record(trial(ROWS, verdict="deadlock"))
        file.truncate(0)
        d.record(trial(ROWS_0, verdict="refused"))
    assert "cells ✓○✕–  1 ok, 1 failed, 1 predicted, 1 not run" in file.getvalue()


def test_what_a_narrower_terminal_has_wrapped_is_erased() -> None:
    made, file = console(terminal=True, width=80)
    with ProbeDisplay(budget_s=9.0, console=made, clock=Clock()) as display:
        display.started(BATCHES, "full")  # 66 columns: three rows of 30
        file.truncate(0)
        display.started(BATCHES, "full")
        usual = file.getvalue().count("\x1b[1A")
        made.width = 30
        file.truncate(0)
        display.started(BATCHES, "full")
        assert file.getvalue().count("\x1b[1A") == usual + 2
        file.truncate(0)
        display.started(BATCHES, "full")
        assert file.getvalue().count("\x1b[1A") == usual


def test_cells_that_were_not_run_for_one_reason_share_a_line() -> None:
    made, file = console(terminal=False)
    why = {"launch": 0, "verdict": "skipped", "reason": "nothing says that it is faster"}
    with ProbeDisplay(console=made, clock=Clock()) as display:
        display.record(trial(ROWS, **why | {"verdict": "refused", "reason": "it hangs"}))
        display.record(measured(THREAD, 11.1))
        display.record(trial(BATCHES, **why))
        display.record(trial(ROWS, **why))
        display.message("done")
        display.record(trial(ROWS_0, **why))
        display.record(trial(ROWS, **why))
    lines = file.getvalue().splitlines()
    assert lines[0].endswith("(whole step): refused. it hangs")
    assert "ok, 11.1 s" in lines[1]
    both = "[0 s] 2 configurations skipped. Nothing says that it is faster."
    assert lines[2:] == [both, "done", both]


@pytest.mark.parametrize("width", [40, 60])
def test_a_narrow_terminal_gets_no_line_that_is_too_long(width: int) -> None:
    made, file = console(terminal=True, width=width)
    with ProbeDisplay(budget_s=9.0, cells=[THREAD] * 90, console=made, clock=Clock()) as display:
        display.record(measured(THREAD, 11.1))
        display.started(BATCHES, "full")
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", file.getvalue())
    assert max(len(line) for line in shown.splitlines()) <= width


def test_a_display_is_never_taller_than_the_terminal() -> None:
    made, file = console(terminal=True, height=12)
    with ProbeDisplay(console=made, clock=Clock()) as display:
        for batch_size in range(64, 84):
            file.truncate(0)
            display.record(measured(cell(batch_size=batch_size), 1.0 + batch_size))
        assert "+ 17" in file.getvalue()


def test_redraws_are_rare() -> None:
    made, file = console(terminal=True)
    clock = Clock()
    with ProbeDisplay(console=made, clock=clock) as display:
        display.started("inspect")
        length = len(file.getvalue())
        for _ in range(50):
            clock.now_s += 0.003
            display.tick(None)
        assert len(file.getvalue()) == length
        clock.now_s += 0.2
        display.tick(None)
        assert len(file.getvalue()) > length


def test_where_the_time_goes_now_stands_beside_the_speed() -> None:
    made, file = console(terminal=True)
    clock = Clock()
    with TrainDisplay(epochs=15, console=made, clock=clock) as display:
        display.spend("forward and backward 71 %, data wait 4.0 %")
        display.tick(progress(10, 100.0))
        clock.now_s += 30.0
        file.truncate(0)
        display.tick(progress(20, 200.0))
        shown = file.getvalue()
    assert "205 rows/s · loss 0.3800 · forward and backward 71 %, data wait 4.0 %" in shown


def _probe_events(made: Console) -> None:
    with ProbeDisplay(quiet=True, console=made) as display:
        display.started(THREAD, "full")
        display.record(measured(THREAD, 1.0))
        display.message("x")


def _train_events(made: Console) -> None:
    with TrainDisplay(quiet=True, console=made) as display:
        display.tick(progress(1, 1.0))
        display.epoch_done(epoch_row(1))
        display.message("x")


@pytest.mark.parametrize("events", [_probe_events, _train_events])
@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_is_silent(events: Callable[[Console], None], terminal: bool) -> None:
    made, file = console(terminal=terminal)
    events(made)
    assert file.getvalue() == ""


def test_an_epoch_line_has_actual_against_projected() -> None:
    projection = Recommendation(
        cell=THREAD, reason="", projected_epoch_s=1780.0, projected_epoch_s_low=1680.0,
        projected_epoch_s_high=1860.0,
    )  # fmt: skip
    row = {"epoch": 1, "wall_s": 1862.0, "val_auc": 0.5698, "val_loss": None}
    assert epoch_line(row, projection, MdafPlugin()) == (
        "epoch 1: 31 min 02 s, projected 29 min 40 s (28.0 .. 31.0 min): +4.6 %; "
        "validation AUC 0.5698"
    )
    assert epoch_line({"epoch": 2, "wall_s": 5.0}, None, Plugin()) == "epoch 2: 5 s"


def test_a_run_without_terminal_prints_at_most_every_ten_seconds() -> None:
    made, file = console(terminal=False, width=200)
    clock = Clock()
    projection = Recommendation(cell=THREAD, reason="", projected_epoch_s=6000.0)
    with TrainDisplay(epochs=15, projection=projection, console=made, clock=clock) as display:
        for second in range(100):
            clock.now_s += 1.0
            display.tick(progress(second // 10, 1000.0 + second // 10 * 10))
        lines = file.getvalue().splitlines()
        assert 9 <= len(lines) <= 10
        assert lines[-1] == (
            "epoch 1/15 · step 9/514 · 205 rows/s · data wait 1.0 % · loss 0.3800 · "
            "epoch left 1 h 24 min · run left 1 d 1 h"
        )
        display.epoch_done(epoch_row(1))
        assert "epoch 1: 1 h 43 min, projected 1 h 40 min: +3.3 %" in file.getvalue()


def test_the_expected_end_takes_the_place_of_its_own_reckoning() -> None:
    clock = Clock()
    made, output = console(terminal=False, width=200)
    projection = Recommendation(cell=THREAD, reason="", projected_epoch_s=6000.0)
    with TrainDisplay(epochs=15, projection=projection, console=made, clock=clock) as display:
        display.expect(ExpectedEnd(at_unix_s=0.0, left_s=7200, low_s=7000, high_s=9000))
        for step in range(2):
            clock.now_s += 10
            display.tick(progress(step * 10, clock.now_s))
    last = " ".join(output.getvalue().splitlines()[-1].split())
    assert "run left 2 h 00 min, until" in last
    assert last.count("run left") == 1


def test_a_run_is_never_over_before_its_epoch() -> None:
    clock = Clock()
    made, output = console(terminal=False, width=200)
    with TrainDisplay(epochs=1, console=made, clock=clock) as display:
        display.expect(ExpectedEnd(at_unix_s=0.0, left_s=40, low_s=30, high_s=50))
        for step in range(2):
            clock.now_s += 10
            display.tick(progress(step * 10, clock.now_s))
    last = " ".join(output.getvalue().splitlines()[-1].split())
    epoch_left, run_left = re.findall(r"(?:epoch|run) left ([^·,]+)", last)
    assert epoch_left.strip() == run_left.strip()


def test_a_resumed_or_new_epoch_starts_its_speed_anew() -> None:
    made, file = console(terminal=False, width=200)
    clock = Clock()
    with TrainDisplay(epochs=3, console=made, clock=clock) as display:
        display.tick(progress(500, 1000.0))
        display.tick(progress(510, 1010.0))
        clock.now_s += 20
        display.tick(progress(5, 1020.0, epoch=2, rows=10_240))
    assert "rows/s" not in file.getvalue().splitlines()[-1]


def test_a_run_on_a_terminal_shows_a_bar_and_says_when_nothing_moves() -> None:
    made, file = console(terminal=True)
    clock = Clock()
    with TrainDisplay(epochs=15, console=made, clock=clock) as display:
        display.tick(progress(100, 1000.0))
        clock.now_s += 1
        display.tick(progress(110, 1010.0))
        assert "epoch 1/15" in file.getvalue()
        assert "step 110/514" in file.getvalue()
        assert "2,048 rows/s" in file.getvalue()
        assert "no progress" not in file.getvalue()
        clock.now_s += 25
        display.tick(progress(110, 1010.0))
        assert "no progress for 25 s" in file.getvalue()


def test_a_restart_is_a_line_and_starts_the_speed_anew() -> None:
    made, file = console(terminal=False, width=200)
    clock = Clock()
    with TrainDisplay(epochs=3, console=made, clock=clock) as display:
        display.tick(progress(500, 1000.0))
        display.tick(progress(510, 1010.0))
        display.restarted("deadlock in epoch 1, step 510: restarted")
        display.tick(progress(500, 1020.0))
    lines = file.getvalue().splitlines()
    assert lines[-2] == "deadlock in epoch 1, step 510: restarted"
    assert lines[-1].startswith("epoch 1/3 · step 500/514")
    assert "rows/s" not in lines[-1]


def test_lines_count_from_the_launch_of_a_probe_that_began_before_it_is_shown() -> None:
    out = io.StringIO()
    display = ProbeDisplay(
        began_s=100.0, clock=lambda: 117.0, console=Console(file=out, width=120), budget_s=30.0
    )
    with display:
        display.record(trial(THREAD))
    assert out.getvalue().startswith("[17 s] ")
