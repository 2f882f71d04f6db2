"""The project's first night on simulated clocks: only the true cause of a late run is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands.timekeeping import Timekeeper, TimeRules
from ctrkit.core.config import ChildSpec, RunSizes, TrainPlan, WorkloadSpec, make_cell
from ctrkit.core.epochs import write_epochs
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.core.spending import Spending, SpentWriter
from ctrkit.report.ledger_view import ExpectedEnd, ledger_section
from ctrkit.report.run_reader import read_contents
from ctrkit.supervise.awake import Awake
from ctrkit.supervise.ledger import read_ledger, totals
from ctrkit.supervise.stop import StopRequest
from tests.unit.supervise.simulated import QUIET, World

CELL = make_cell(threads=1)
# 10 epochs of 100 steps of a second
PROJECTION = Recommendation(
    cell=CELL, reason="", projected_startup_s=2.0, projected_epoch_s=100.0,
    projected_epoch_s_low=95.0, projected_epoch_s_high=105.0, projected_total_s=1002.0,
    projected_total_s_low=952.0, projected_total_s_high=1052.0,
)  # fmt: skip


class Display:
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.words = self.spent = ""
        self.end: ExpectedEnd | None = None

    def message(self, text: str) -> None:
        self.messages.append(text)

    def expect(self, end: ExpectedEnd) -> None:
        self.words, self.end = end.words(), end

    def spend(self, words: str) -> None:
        self.spent = words


@dataclasses.dataclass
class Session:
    """A simulated session, followed by the real timekeeper."""

    world: World
    run: RunFolder
    times: Timekeeper
    display: Display
    stop: StopRequest

    def launch(self, step: int = 0) -> SpentWriter:
        """A child that goes on after so many steps of the run."""
        self.times.launched()
        self.world.awake_s += 2.0
        child = self.world.begin()
        self.world.step = step
        return child

    def finish(self, child: SpentWriter) -> dict[str, float]:
        """The seconds of the ledger, which must sum to the wall clock."""
        child.enter(Spending.SHUTDOWN)
        self.times.ended(lost=False)
        self.times.close()
        rows = read_ledger(self.run.path / "ledger.parquet")
        spent = totals(rows)
        assert sum(spent.values()) == pytest.approx(self.times.keeper.wall_s)
        assert abs(spent["unexplained"]) < 1e-6
        return spent

    @property
    def warnings(self) -> list[str]:
        return [text for text in self.display.messages if text.startswith("late")]


def session(
    folder: Path,
    projection: Recommendation | None = PROJECTION,
    awake: Awake | None = None,
    plan: dict[str, Any] | None = None,
    **rules: Any,
) -> Session:
    run = RunFolder.create("train", ["train"], WorkloadSpec(), folder / "run")
    run.update(cell=CELL, projection=projection)
    (run.path / "child").mkdir()
    return session_of(run, awake, plan, **rules)


def session_of(
    run: RunFolder, awake: Awake | None = None, plan: dict[str, Any] | None = None, **rules: Any
) -> Session:
    """A new session of a run that is there."""
    world, display, stop = World(run.path / "child"), Display(), StopRequest(graceful=True)
    train = TrainPlan(run_folder=str(run.path), **({"epochs": 10} | (plan or {})))
    spec = ChildSpec(
        kind="train", folder=str(run.path / "child"), workload=WorkloadSpec(), cell=CELL,
        train=train,
    )  # fmt: skip
    times = Timekeeper(
        run, spec, TimeRules(**rules), display, stop, awake=awake, clocks=world.clocks,
        host=lambda: world.host,
    )  # fmt: skip
    world.keeper, world.follow = times.keeper, times.tick
    return Session(world, run, times, display, stop)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path / "home"))


def test_a_run_that_goes_as_promised_is_not_warned_of(tmp_path: Path) -> None:
    now = session(tmp_path)
    child = now.launch()
    now.world.steps(child, 90)
    assert now.display.words.startswith("run left 15 min 1")
    spent = now.finish(child)
    assert (now.warnings, now.run.incidents()) == ([], [])
    assert spent["compute"] == pytest.approx(81.0)
    assert spent["startup"] == pytest.approx(2.0)


def test_a_host_that_sleeps_for_hours_between_batches_is_reported_as_that(tmp_path: Path) -> None:
    now = session(tmp_path)
    child = now.launch()
    now.world.steps(child, 130)
    child.enter(Spending.DATA_WAIT)
    now.world.slept_s += 7 * 3600 + 12 * 60  # the child's clock stands still meanwhile
    now.world.tick()
    now.world.steps(child, 200)
    (warning,) = now.warnings
    assert "late: the host slept 7 h 12 min" in warning
    assert "What to do: keep the machine plugged in" in warning
    assert "data wait" not in warning
    (incident,) = now.run.incidents()
    assert (incident["verdict"], incident["action"]) == ("late", "noted")
    assert incident["cause"] == "the host slept 7 h 12 min"
    assert incident["lost_s"] == pytest.approx(25_920 - 50, abs=60)
    spent = now.finish(child)
    assert spent["asleep"] == pytest.approx(25_920.0)
    assert spent["data_wait"] == pytest.approx(33.0)
    table = ledger_section(read_contents(now.run.path).ledger).blocks[0]
    assert ("host asleep", "7 h 12 min", "99 %") in getattr(table, "rows")  # noqa: B009


def test_a_run_that_is_paused_between_batches_is_reported_as_that(tmp_path: Path) -> None:
    now = session(tmp_path)
    child = now.launch()
    now.world.steps(child, 130)
    child.enter(Spending.DATA_WAIT)
    now.world.tick()
    now.world.awake_s += 12 * 60
    now.world.steps(child, 70)
    (warning,) = now.warnings
    assert "late: the run was stopped for 12 min 00 s" in warning
    assert "SIGSTOP" in warning
    spent = now.finish(child)
    assert spent["stopped"] == pytest.approx(720.0, abs=0.2)
    assert spent["data_wait"] == pytest.approx(20.0, abs=0.2)


def test_other_processes_that_starve_the_loader_are_named(tmp_path: Path) -> None:
    now = session(tmp_path)
    child = now.launch()
    now.world.steps(child, 300)
    for _ in range(300):
        now.world.steps(child, 1, wait_s=1.4)
        busy_s = now.world.host.busy_s + 2.3 * 1.6 + 1.5
        now.world.host = dataclasses.replace(QUIET, busy_s=busy_s)
    (warning,) = now.warnings
    # told in the midst of the first bad minute
    assert warning.startswith("late: data wait rose from 10 % to 35 %: other processes take 0.7")
    assert "end the other work" in warning
    assert now.finish(child)["data_wait"] == pytest.approx(450.0)


def test_swapping_is_named(tmp_path: Path) -> None:
    now = session(tmp_path)
    child = now.launch()
    for step in range(400):
        now.world.steps(child, 1, wait_s=0.8)
        swapped = step * 8_000_000
        now.world.host = dataclasses.replace(QUIET, swapped_in_bytes=swapped)
    (warning,) = now.warnings
    assert warning.startswith("late: swapping since ")
    assert "fewer --workers" in warning


def test_time_that_restarts_lost_is_named(tmp_path: Path) -> None:
    now = session(tmp_path)
    child = now.launch()
    now.world.steps(child, 60)
    now.times.ended(lost=True)
    now.world.awake_s += 120.0
    again = now.launch()
    now.world.steps(again, 200)
    (warning,) = now.warnings
    assert "late: restarted once: 2 min 0" in warning
    assert now.finish(again)["restart"] == pytest.approx(120.0 + 2.0 + 60.0, abs=1.1)


def test_without_a_promise_there_is_an_end_but_no_warning(tmp_path: Path) -> None:
    now = session(tmp_path, projection=None)
    child = now.launch()
    now.world.steps(child, 10)
    assert now.display.words == ""
    now.world.slept_s += 20_000
    now.world.steps(child, 90)
    assert now.display.words.startswith("run left 15 min")
    assert now.warnings == []


def test_a_run_that_would_end_too_late_is_asked_to_save_and_stop(tmp_path: Path) -> None:
    now = session(tmp_path, projection=None, abort_after_s=900.0)
    child = now.launch()
    now.world.steps(child, 40)
    assert not now.stop.finish  # its pace is not known yet
    now.world.steps(child, 40)
    assert now.stop.requests == 1
    assert now.times.aborted.startswith("it would take 16 min 4")
    assert "--abort-if-later-than allows 15 min 00 s: compute takes 90 %" in now.times.aborted
    (incident,) = now.run.incidents()
    assert (incident["verdict"], incident["action"]) == ("late", "stopped")
    # a run that hardly moves is stopped at the limit itself
    slow = session(tmp_path / "slow", projection=None, abort_after_s=30.0)
    child = slow.launch()
    slow.world.steps(child, 27)
    assert not slow.stop.finish
    slow.world.steps(child, 5)
    assert slow.stop.finish


def test_a_run_within_the_limit_goes_on(tmp_path: Path) -> None:
    now = session(tmp_path, abort_after_s=1200.0, plan={"max_steps": 300})
    now.world.steps(now.launch(), 290)
    assert not now.stop.finish
    assert now.display.words.startswith("run left 11")  # of 300 steps, not of 10 epochs


def test_incidents_are_numbered_from_1_whatever_they_are(tmp_path: Path) -> None:
    now = session(tmp_path)
    child = now.launch()
    now.world.steps(child, 70)
    now.world.slept_s += 50_000
    now.world.steps(child, 2)
    (incident,) = now.run.incidents()
    assert (incident["number"], now.run.next_incident()) == (1, 2)


def test_a_run_that_trains_nothing_yet_is_aborted_too(tmp_path: Path) -> None:
    now = session(tmp_path, abort_after_s=30.0)
    now.times.launched()
    now.world.awake_s += 29
    now.times.wait()
    assert not now.stop.finish
    now.world.awake_s += 2
    now.times.wait()
    assert now.stop.finish
    assert "without a training step" in now.times.aborted


def test_a_machine_that_cannot_be_held_awake_is_told_of_once(tmp_path: Path) -> None:
    with Awake(["no-such-tool-anywhere"]) as awake:
        now = session(tmp_path, awake=awake)
        now.world.steps(now.launch(), 5)
    assert [text for text in now.display.messages if "sleep" in text] == [
        "this machine may go to sleep during the run: there is no no-such-tool-anywhere"
    ]


# an epoch of 100 steps of a second, then 20 s of validation and 5 s of a checkpoint
WITH_ENDS = dataclasses.replace(
    PROJECTION, projected_epoch_s=125.0, projected_epoch_s_low=None, projected_epoch_s_high=None,
    projected_total_s=1252.0, projected_total_s_low=1252.0, projected_total_s_high=1252.0,
    projected_terms_s={"training": 99.0, "restart": 1.0, "validation": 20.0, "checkpoint": 5.0},
)  # fmt: skip


def left_s(now: Session) -> float:
    """What is shown as left of the run."""
    end = now.display.end
    assert end is not None
    return end.left_s


def train_epochs(now: Session, child: SpentWriter, epochs: int) -> None:
    for _ in range(epochs):
        now.world.steps(child, 100)
        now.world.end_epoch(child, 20.0, 5.0)


@pytest.mark.parametrize("steps", [10, 70, 99])
def test_what_is_left_counts_the_ends_of_epochs_from_the_first_minute(
    tmp_path: Path, steps: int
) -> None:
    now = session(tmp_path, projection=WITH_ENDS)
    now.world.steps(now.launch(), steps)
    assert left_s(now) == pytest.approx(1250.0 - steps, abs=4.0)


def test_what_is_left_falls_through_the_end_of_an_epoch_and_is_right_after_it(
    tmp_path: Path,
) -> None:
    now = session(tmp_path, projection=WITH_ENDS)
    child = now.launch()
    now.world.steps(child, 100)
    now.world.end_epoch(child, 12.0, 0.0)
    assert left_s(now) == pytest.approx(1250.0 - 112.0, abs=2.0)
    assert now.display.end is not None
    assert now.display.end.ending_s == pytest.approx(13.0, abs=1.0)
    now.world.end_epoch(child, 8.0, 5.0)
    train_epochs(now, child, 2)
    now.world.steps(child, 30)
    assert left_s(now) == pytest.approx(7 * 125.0 - 30.0, abs=8.0)
    assert now.warnings == []


def test_the_run_s_own_ends_count_for_more_than_the_projected_ones(tmp_path: Path) -> None:
    now = session(tmp_path, projection=WITH_ENDS)
    child = now.launch()
    now.world.steps(child, 100)
    now.world.end_epoch(child, 50.0, 10.0)
    now.world.steps(child, 20)
    assert left_s(now) == pytest.approx(9 * 160.0 - 20.0, abs=12.0)
    assert now.run.info.ending_s == pytest.approx(60.0, abs=1.5)


def test_without_a_projection_validation_is_guessed_and_that_is_said(tmp_path: Path) -> None:
    now = session(tmp_path, projection=None)
    now.run.update(sizes=RunSizes(epochs=10, train_batches=100, validation_batches=60))
    child = now.launch()
    now.world.steps(child, 70)
    assert left_s(now) == pytest.approx(930.0 + 10 * 60 / 3, abs=3.0)
    assert "(the time for validation is a guess until the first one)" in now.display.words
    assert now.display.end is not None
    assert now.display.end.high_s == pytest.approx(930.0 + 10 * 60, abs=5.0)
    now.world.steps(child, 30)
    now.world.end_epoch(child, 20.0, 5.0)
    now.world.steps(child, 5)
    assert left_s(now) == pytest.approx(9 * 125.0 - 5.0, abs=10.0)
    assert "is a guess" not in now.display.words


def test_without_a_projection_and_sizes_the_words_say_what_is_not_counted(tmp_path: Path) -> None:
    now = session(tmp_path, projection=None)
    now.world.steps(now.launch(), 70)
    assert "without validation and checkpoints" in now.display.words


def test_a_resumed_run_knows_its_own_epochs_from_the_first_minute(tmp_path: Path) -> None:
    now = session(tmp_path, projection=None)
    child = now.launch()
    train_epochs(now, child, 2)
    now.world.steps(child, 3)
    now.finish(child)
    rows = [{"epoch": n, "rows": 800, "wall_s": 125.0} for n in (1, 2)]
    write_epochs(now.run.path / "epochs.csv", rows)
    resumed = session_of(now.run)
    child = resumed.launch(step=203)
    resumed.world.steps(child, 4)
    assert left_s(resumed) == pytest.approx(8 * 125.0 - 7.0, abs=4.0)


def test_max_steps_that_end_amid_an_epoch_have_no_end_of_it(tmp_path: Path) -> None:
    now = session(tmp_path, projection=WITH_ENDS, plan={"max_steps": 250})
    now.world.steps(now.launch(), 10)
    assert left_s(now) == pytest.approx(2 * 125.0 + 50.0 - 10.0, abs=2.0)


def test_memory_that_runs_out_before_the_run_ends_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = session(tmp_path, None, plan={"epochs": 40})  # of 100 s: more than an hour
    used = 1_000_000_000

    def grown(_: object) -> int:
        return used

    monkeypatch.setattr("ctrkit.supervise.ledger_keeper.tree_pss_bytes", grown)
    child = now.launch()
    for _ in range(20):  # a minute each
        used += 200_000_000
        now.world.host = dataclasses.replace(QUIET, available_bytes=9_000_000_000 - used)
        now.world.steps(child, 60)
    warnings = [text for text in now.display.messages if text.startswith("memory")]
    assert len(warnings) == 1
    assert "before the run ends" in warnings[0]
    assert "What to do: keep no tensor with its graph" in warnings[0]
    (incident,) = now.run.incidents()
    assert (incident["verdict"], incident["action"]) == ("memory grows", "noted")
    assert "190.7 MiB a minute" in incident["reason"] or "MB a minute" in incident["reason"]
    now.finish(child)


def test_memory_that_lasts_until_the_run_ends_is_not_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = session(tmp_path, None, plan={"epochs": 15})  # 25 minutes
    used = 1_000_000_000
    monkeypatch.setattr("ctrkit.supervise.ledger_keeper.tree_pss_bytes", lambda pids: used)
    child = now.launch()
    for _ in range(15):
        used += 100_000_000
        now.world.host = dataclasses.replace(QUIET, available_bytes=9_000_000_000 - used)
        now.world.steps(child, 60)
    assert not [text for text in now.display.messages if text.startswith("memory")]
    assert now.run.incidents() == []
    now.finish(child)
