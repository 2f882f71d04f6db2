"""The summary of calibrations against hand-made rows."""

import dataclasses
import json

import pytest

from ctrkit.core.calibration import CalibrationRow
from ctrkit.report.blocks import Paragraph, Table
from ctrkit.report.calibration_view import (
    NOTHING_YET,
    calibration_json,
    calibration_report,
    summarize,
)

HERE = "this machine"
BASE = CalibrationRow(
    when="2030-01-01T00:00:00+00:00", run="r", machine_fingerprint=HERE, workload_fingerprint="w",
    data_fingerprint="d", phase="phase3", cell_id="cpu-thread-w0-t1-b64", cell={"workers": 0},
    probe="p", launches=2, projected_epoch_s=100.0, projected_epoch_s_low=90.0,
    projected_epoch_s_high=110.0, projected_total_s=210.0, projected_total_s_low=190.0,
    projected_total_s_high=230.0, actual_epoch_s=100.0, actual_total_s=None, epochs=2, incidents=0,
    outcome="finished",
)  # fmt: skip


def took(actual_s, **changes):
    return dataclasses.replace(BASE, actual_epoch_s=actual_s, **changes)


def test_errors_and_coverage_by_flags():
    rows = [took(100.0), took(80.0), took(125.0, flags=["drift"]), took(None, outcome="failed: x")]
    found = summarize(rows, HERE)
    assert found.epoch.runs == 3
    assert found.epoch.error_median == pytest.approx(0.2)
    assert found.epoch.error_p95 == pytest.approx(0.245)
    assert found.epoch.covered == pytest.approx(1 / 3)
    assert (found.epoch_unflagged.covered, found.epoch_flagged.covered) == (0.5, 0.0)
    assert (found.runs, found.finished, found.failed) == (4, 3, 1)
    assert found.failures == {"x": 1}
    assert found.total.runs == 0


def test_totals_count_where_a_run_ended():
    found = summarize([took(100.0, actual_total_s=200.0)], HERE).total
    assert (found.runs, found.covered) == (1, 1.0)
    assert found.error_median == pytest.approx(0.05)
    assert found.error_p95 == found.error_median


def test_other_machines_are_left_out_and_told():
    rows = [took(50.0, machine_fingerprint="another")]
    found = summarize(rows, HERE)
    assert (found.runs, found.elsewhere, found.epoch.runs) == (0, 1, 0)
    (section,) = calibration_report(rows, found, HERE).sections
    words = [block.text for block in section.blocks if isinstance(block, Paragraph)]
    assert words[0] == NOTHING_YET
    assert words[1].startswith("1 run of another machine")


def test_the_newest_runs_come_first_and_their_text_is_made_safe():
    rows = [took(100.0), took(110.0, when="2031", phase="my\x1b[2Jphase", outcome="failed: oom")]
    report = calibration_report(rows, summarize(rows, HERE), HERE)
    table = report.sections[1].blocks[0]
    assert isinstance(table, Table)
    first = table.rows[0]
    assert first[0] == "2031"
    assert "\x1b" not in " ".join(first)
    assert "-9.1 %" in first
    assert first[-1] == "failed: oom"


def test_the_json_has_every_row():
    rows = [took(100.0), took(None)]
    document = calibration_json(rows, summarize(rows, HERE))
    assert [run["epoch_error"] for run in document["runs"]] == [0.0, None]
    assert json.loads(json.dumps(document, allow_nan=False))["summary"]["runs"] == 2
