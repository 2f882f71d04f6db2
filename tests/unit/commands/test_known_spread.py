"""A projection for a run that starts hours or days after its probe."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ctrkit.commands.known_spread import of_its_age
from ctrkit.core.config import make_cell
from ctrkit.core.launch_spread import SHIPPED
from ctrkit.core.records import Recommendation
from tests.unit.commands.test_probe import calibration_row

NOW = datetime(2030, 1, 10, tzinfo=UTC)
PROJECTION = Recommendation(
    cell=make_cell(), reason="", projected_epoch_s=100.0, projected_epoch_s_low=95.0,
    projected_epoch_s_high=105.0, projected_total_s=1000.0, projected_total_s_low=950.0,
    projected_total_s_high=1050.0, launches=3, launch_spread=SHIPPED,
)  # fmt: skip


def aged(hours, rows, projection=PROJECTION):
    made = replace(projection, projected_at=(NOW - timedelta(hours=hours)).isoformat())
    return made, *of_its_age(made, rows, NOW, machine=rows[0].machine_fingerprint if rows else "m",
                             workload="w")  # fmt: skip


def rows(apart_h, error, count=8):
    """Runs that took longer and shorter in turn than their probe projected."""
    return [
        replace(
            calibration_row(f"run{i}", actual_s=10.0 * (1 + error) ** (-1) ** i),
            apart_s=3600.0 * apart_h, workload_fingerprint="w",
        )
        for i in range(count)
    ]  # fmt: skip


def test_within_an_hour_nothing_changes():
    made, found, words = aged(0.5, rows(0.5, 0.3))
    assert (found, words) == (made, "")
    unknown = replace(PROJECTION, projected_at=None)
    assert of_its_age(unknown, [], NOW, machine="m", workload=None) == (unknown, "")


@pytest.mark.parametrize(("hours", "apart"), [(5, "within a day"), (72, "later")])
def test_runs_that_started_as_late_widen_the_range(hours, apart):
    made, found, words = aged(hours, rows(hours, 0.3))
    assert found.projected_total_s == made.projected_total_s
    assert found.projected_total_s_high > 1300
    assert 0 < found.projected_total_s_low < 800
    assert found.projected_epoch_s_high > 130
    assert f"learned from 8 runs of this machine ({apart})" in words
    assert "the range is wider" in words


def test_runs_of_another_delay_tell_nothing_and_that_is_said():
    made, found, words = aged(5, rows(72, 0.3))
    assert found == made
    assert "the probe is 5 h 00 min old" in words
    assert "right after the probe" in words


def test_what_differs_no_more_leaves_the_range():
    made, found, words = aged(5, rows(5, 0.001))
    assert found == made
    assert "the range stays" in words


def test_an_open_range_stays_open():
    _, found, _ = aged(5, rows(5, 0.3), replace(PROJECTION, projected_total_s_high=None))
    assert found.projected_total_s_high is None
