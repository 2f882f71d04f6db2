"""The ledger's rows: kept, appended, and read again."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ctrkit.core.errors import UsageError
from ctrkit.core.spending import Spending
from ctrkit.report.ledger_view import _facts
from ctrkit.supervise.gpu import GpuProcess, GpuSample
from ctrkit.supervise.ledger import read_ledger, totals
from ctrkit.supervise.ledger_keeper import loop_state, tree_pss_bytes
from tests.unit.supervise.simulated import QUIET, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_row_a_minute_and_one_at_the_end(world: World) -> None:
    world.awake_s += 2.0
    child = world.launch()
    world.steps(child, 130)
    world.host = dataclasses.replace(QUIET, busy_s=400.0, swapped_in_bytes=9, throttles=5)
    child.enter(Spending.SHUTDOWN)
    world.awake_s += 1.0
    world.keeper.ended(lost=False)
    world.keeper.close()
    rows = read_ledger(world.path)
    assert [round(row.wall_s) for row in rows] == [60, 60, 13]
    assert [(row.session, row.launch, row.epoch, row.step) for row in rows] == [
        (1, 1, 1, 58), (1, 1, 2, 18), (1, 1, 2, 30),
    ]  # fmt: skip
    assert [row.rows for row in rows] == [464, 480, 96]
    assert rows[1].rows_per_s == pytest.approx(8.0)
    assert rows[1].cpu_cores == pytest.approx(1.5)
    assert rows[2].other_cores == pytest.approx((400.0 - 18.0) / 13.0, abs=0.1)
    assert [(row.swapped_in_bytes, row.swapped_out_bytes) for row in rows][1:] == [
        (0, None), (9, None),
    ]  # fmt: skip
    assert [row.throttles for row in rows] == [0, 0, 2]
    spent = totals(rows)
    assert spent["startup"] == pytest.approx(2.0)
    assert spent["data_wait"] == pytest.approx(13.0)
    assert spent["compute"] == pytest.approx(117.0)
    assert spent["shutdown"] == pytest.approx(1.0)
    assert sum(spent.values()) == pytest.approx(sum(row.wall_s for row in rows))
    for row in rows:
        assert sum(row.seconds.values()) == pytest.approx(row.wall_s)
    assert rows == world.keeper.rows


def test_each_minute_has_what_its_gpus_did_by_a_made_up_gpu(world: World) -> None:
    child = world.launch()
    gpu = GpuSample(index=0, name="made up", busy_share=0.3, power_w=200.0, memory_bytes=5,
                    held_by=("power",))  # fmt: skip
    world.gpus = (gpu,)
    world.steps(child, 60)
    other = GpuProcess(pid=7, name="x", used_bytes=9)
    world.gpus = (dataclasses.replace(gpu, busy_share=0.9, held_by=(), others=(other,)),)
    world.steps(child, 60)
    world.gpus = None
    world.keeper.ended(lost=False)
    world.keeper.close()
    first, second, rest = read_ledger(world.path)
    assert (first.gpu_busy_share, first.gpu_power_w) == (pytest.approx(0.3), pytest.approx(200.0))
    assert (first.gpu_held_by_power_share, first.gpu_held_by_heat_share) == (1.0, 0.0)
    assert (first.gpu_memory_bytes, first.gpu_others_bytes) == (5, None)
    assert second.gpu_busy_share == pytest.approx(0.9, abs=0.02)
    assert second.gpu_others_bytes == 9
    assert (rest.gpu_busy_share, rest.gpu_clock_share, rest.gpu_held_by_power_share) == (None,) * 3
    facts = dict(_facts([first, second], 120.0))
    assert facts["GPU"].endswith("busy, 200 W, on average")
    assert facts["GPU clocks"].startswith("held down by power")
    assert facts["GPU shared"] == "with other processes, up to 9 B"
    untold = dict(_facts([dataclasses.replace(second, gpu_others_bytes=0)], 60.0))
    assert untold["GPU shared"] == "with other processes"


def test_a_card_that_does_not_tell_what_holds_it_down_has_no_share_of_it(world: World) -> None:
    child = world.launch()
    world.gpus = (GpuSample(index=0, name="made up", busy_share=0.3),)
    world.steps(child, 60)
    world.keeper.ended(lost=False)
    world.keeper.close()
    row = read_ledger(world.path)[0]
    assert (row.gpu_held_by_power_share, row.gpu_held_by_heat_share) == (None, None)


def test_restarts_and_sessions_are_added(world: World) -> None:
    child = world.launch()
    world.steps(child, 5)
    world.keeper.ended(lost=True)
    world.awake_s += 3.0
    again = world.launch()
    world.steps(again, 6)
    world.keeper.ended(lost=False)
    world.keeper.close()
    (row,) = read_ledger(world.path)
    assert (row.launch, row.rows, row.steps) == (2, 88, 11)
    assert row.seconds["restart"] == pytest.approx(3.0 + 6.0)  # only its sixth step was new
    assert row.cpu_cores == pytest.approx(16.5 / 14.0)
    world.keeper = world.new_keeper()
    world.awake_s += 1.0
    world.keeper.close()
    assert [row.session for row in read_ledger(world.path)] == [1, 2]
    assert read_ledger(world.path)[0] == row


def test_what_has_passed_since_the_last_row_can_be_asked_for(world: World) -> None:
    child = world.launch()
    world.steps(child, 70)
    first, second = world.keeper.rows_so_far()
    assert (round(first.wall_s), round(second.wall_s)) == (60, 10)
    assert len(world.keeper.rows) == 1


def test_a_damaged_ledger_is_put_aside_and_a_missing_disk_does_not_end_the_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.path.write_bytes(b"no parquet")
    with pytest.raises(UsageError, match=r"ledger\.parquet: cannot be read"):
        read_ledger(world.path)
    world.keeper = world.new_keeper()
    assert (world.folder / "damaged-ledger.parquet").read_bytes() == b"no parquet"
    assert "damaged-ledger.parquet" in world.said[0]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ctrkit.supervise.ledger.write_table", full)
    child = world.launch()
    world.steps(child, 130)
    assert len(world.keeper.rows) == 2
    assert len(world.said) == 2
    assert "No space left on device; the run continues" in world.said[1]


def test_no_file_no_rows(tmp_path: Path) -> None:
    assert read_ledger(tmp_path / "ledger.parquet") == []


def test_a_stopped_process_is_seen_and_weighed() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not loop_state(process.pid)[0]
        psutil.Process(process.pid).suspend()
        deadline_s = time.monotonic() + 60
        while not loop_state(process.pid)[0] and time.monotonic() < deadline_s:
            time.sleep(0.01)
        stopped, cpu_s = loop_state(process.pid)
        assert stopped
        assert 0 <= cpu_s < 60
        pss = tree_pss_bytes([process.pid])
        assert (pss or 0) > 0 if sys.platform == "linux" else pss is None
    finally:
        process.kill()
        process.communicate()
    assert loop_state(process.pid) == (False, 0.0)
    assert tree_pss_bytes([process.pid]) is None
