"""The night that started the project, replayed: docs/story.md quotes what ctrkit says about it.

To renew the page, copy what a failing test prints.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctrkit.commands.timekeeping import Timekeeper, TimeRules
from ctrkit.core.config import ChildSpec, TrainPlan, WorkloadSpec, make_cell
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.core.spending import Spending, SpentWriter
from ctrkit.report.blocks import Report
from ctrkit.report.ledger_view import ExpectedEnd, ledger_section
from ctrkit.report.terminal import report_text
from ctrkit.supervise.ledger import read_ledger
from ctrkit.supervise.stop import StopRequest
from tests.unit.supervise.simulated import QUIET, World

PAGE = Path(__file__).parents[3] / "docs" / "story.md"
BATCHES, ROWS, STEP_S = 514, 2048, 2.6
# batches of the night, and the seconds of wall clock that one of them took
NIGHT = ((200, 283.0), (200, 64.0), (114, 16.7))
# 15 epochs of 514 batches of 2.6 s, which is what a batch took by day
PROJECTION = Recommendation(
    cell=make_cell(threads=1), reason="", projected_startup_s=20.0, projected_epoch_s=1340.0,
    projected_epoch_s_low=1250.0, projected_epoch_s_high=1430.0, projected_total_s=20_120.0,
    projected_total_s_low=18_800.0, projected_total_s_high=21_500.0,
)  # fmt: skip
LOOK_S = 4.9  # the supervisor itself is not held up
TEN_IN_THE_EVENING = 1_700_000_000 // 86_400 * 86_400 + 22 * 3600


class Night(World):
    """A world with epochs of 514 batches that begins at ten in the evening."""

    epoch_steps = BATCHES

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        began_s = self.awake_s + self.slept_s
        self.clocks = dataclasses.replace(
            self.clocks,
            unix_s=lambda: TEN_IN_THE_EVENING + self.awake_s + self.slept_s - began_s,
        )
        self.keeper = self.new_keeper()

    def batches(self, child: SpentWriter, count: int) -> None:
        """Batches as by day: a tenth of a second of waiting, 2.5 s of computing on one core."""
        for _ in range(count):
            child.enter(Spending.DATA_WAIT)
            self.awake_s += 0.1
            self.tick()
            child.enter(Spending.COMPUTE)
            self.awake_s += STEP_S - 0.1
            child.enter(Spending.LOGGING)
            child.step(ROWS)
            self.cpu_s, self.step = self.cpu_s + STEP_S, self.step + 1
            self.tick()


@dataclasses.dataclass
class Told:
    """What is shown while the run goes on."""

    world: Night
    lines: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def message(self, text: str) -> None:
        self.lines.append((self.world.step, text))

    def expect(self, end: ExpectedEnd) -> None:
        pass

    def spend(self, words: str) -> None:
        pass


def asleep(world: Night, child: SpentWriter) -> None:
    """The host wakes up for 20 batches at a time."""
    for count, batch_s in NIGHT:
        for begin in range(0, count, 20):
            some = min(20, count - begin)
            world.batches(child, some)
            child.enter(Spending.DATA_WAIT)
            world.slept_s += some * (batch_s - STEP_S)
            world.tick()


def swapping(world: Night, child: SpentWriter) -> None:
    """The host is awake, and its memory is not enough: pages come and go while a batch computes."""
    swapped = 0
    for count, batch_s in NIGHT:
        for _ in range(count):
            child.enter(Spending.DATA_WAIT)
            world.awake_s += 0.1
            world.tick()
            child.enter(Spending.COMPUTE)
            looks = math.ceil(batch_s / LOOK_S)
            for _ in range(looks):
                world.awake_s += (batch_s - 0.1) / looks
                world.tick()
            swapped += int((batch_s - STEP_S) * 20e6)
            world.host = dataclasses.replace(
                QUIET, swap_used_bytes=9_000_000_000, swapped_in_bytes=swapped,
                available_bytes=150_000_000, busy_s=world.host.busy_s + STEP_S,
            )  # fmt: skip
            child.enter(Spending.LOGGING)
            child.step(ROWS)
            world.cpu_s, world.step = world.cpu_s + STEP_S, world.step + 1
            world.tick()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("night", [asleep, swapping], ids=lambda night: night.__name__)
def test_the_page_quotes_what_is_said(
    tmp_path: Path, night: Callable[[Night, SpentWriter], None]
) -> None:
    run = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    run.update(cell=PROJECTION.cell, projection=PROJECTION)
    (run.path / "child").mkdir()
    world = Night(run.path / "child")
    told = Told(world)
    plan = TrainPlan(run_folder=str(run.path), epochs=15)
    spec = ChildSpec(
        kind="train", folder=str(run.path / "child"), workload=WorkloadSpec(),
        cell=PROJECTION.cell, train=plan,
    )  # fmt: skip
    times = Timekeeper(
        run, spec, TimeRules(allow_sleep=True), told, StopRequest(graceful=True),
        clocks=world.clocks, host=lambda: world.host,
    )  # fmt: skip
    world.keeper, world.follow = times.keeper, times.tick
    times.launched()
    world.awake_s += 20.0
    night(world, world.begin())
    times.close()
    rows = read_ledger(run.path / "ledger.parquet")
    assert sum(row.wall_s for row in rows) == pytest.approx(
        20.0 + sum(count * batch_s for count, batch_s in NIGHT), abs=1.0
    )
    ((batch, warning),) = told.lines
    table = report_text(Report("", (), (ledger_section(rows),)))
    print(f"after batch {batch}\n{warning}\n{table}")
    page = PAGE.read_text(encoding="utf-8")
    assert f"after batch {batch}" in page
    assert " ".join(warning.split()) in " ".join(page.split())
    assert table.strip() in page
