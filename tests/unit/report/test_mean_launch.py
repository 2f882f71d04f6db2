"""All figures of a cell with several launches are of all of them, and fit each other."""

import dataclasses

import pytest

from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.core.units import format_duration
from ctrkit.report.blocks import Table
from ctrkit.report.matrix_view import matrix_table
from ctrkit.report.mean_launch import mean_launch
from ctrkit.report.step_view import stage_sections
from tests.unit.report.conftest import BATCHES, THREAD, measured

FAST = measured(
    THREAD, 10.0, launch=1, data_wait_share=0.4, stage_s={"forward": 6.0, "fetch": 4.0},
    peak_rss_bytes=900, validation_s=20.0,
)  # fmt: skip
SLOW = measured(
    THREAD, 30.0, launch=2, data_wait_share=0.8, stage_s={"forward": 6.0, "fetch": 24.0},
    peak_rss_bytes=700, startup_s=3.0,
)  # fmt: skip


@pytest.mark.parametrize("launches", [(FAST, SLOW), (SLOW, FAST)])
def test_the_figures_do_not_depend_on_which_launch_was_last(
    launches: tuple[TrialRecord, TrialRecord],
) -> None:
    mean = mean_launch(launches)
    assert mean.step_s == 20.0
    assert mean.rows_per_s == pytest.approx(THREAD.batch_size / 20.0)
    assert mean.data_wait_share == pytest.approx((4 + 24) / (10 + 30))
    assert mean.stage_s == {"forward": 6.0, "fetch": 14.0}
    assert mean.projected_total_s == pytest.approx(20.0 * 514 * 15 + 600)
    assert mean.projected_total_s_high == pytest.approx(mean.projected_total_s * 1.05)
    assert (mean.peak_rss_bytes, mean.validation_s, mean.startup_s) == (900, 20.0, 3.0)


def test_a_launch_without_an_upper_end_leaves_none() -> None:
    open_ended = dataclasses.replace(SLOW, projected_total_s_high=None)
    mean = mean_launch([open_ended, FAST])
    assert (mean.projected_total_s_high, mean.projected_total_s_low is None) == (None, False)


def test_the_whole_run_of_a_row_fits_its_step() -> None:
    """Of a cell that is not recommended, which has no better projection than its launches'."""
    best = Recommendation(cell=BATCHES, reason="the fastest", projected_total_s=8000.0)
    table = matrix_table([measured(BATCHES, 1.0), FAST, SLOW], best)
    row = next(row for row in table.rows if "thread" in row)
    assert row[-1] == format_duration(20.0 * 514 * 15 + 600)


def test_the_parts_of_a_step_sum_to_the_mean_step() -> None:
    (section,) = stage_sections([FAST, SLOW], Recommendation(cell=THREAD, reason="alone"))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    times = [float(row[1].removesuffix(" s")) for row in table.rows]
    assert sum(times) == pytest.approx(20.0, rel=0.01)


def test_what_the_loop_does_beside_the_stages_is_a_row_of_its_own() -> None:
    logs = measured(THREAD, 10.0, data_wait_share=0.1, stage_s={"forward": 2.0, "backward": 3.0})
    (section,) = stage_sections([logs], Recommendation(cell=THREAD, reason="alone"))
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    assert [(row[0], row[2]) for row in table.rows] == [
        ("data wait", "10 %"), ("forward", "20 %"), ("backward", "30 %"), ("other", "40 %"),
    ]  # fmt: skip
