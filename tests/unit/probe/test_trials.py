from dataclasses import replace

import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes, make_cell
from ctrkit.core.trial_tables import records_of_table, trials_table
from ctrkit.measure.diagnosis import Ceilings, diagnose
from ctrkit.measure.projection import project
from ctrkit.measure.statistics import interval
from ctrkit.probe.cell_failures import failure_of
from ctrkit.probe.trials import (
    Trial,
    TrialRequest,
    TrialResult,
    compute_key,
    loader_key,
    not_run_record,
    predicted_record,
    record_of,
    told_of_place,
)

CELL = make_cell(loader="batches", workers=2, batch_size=100, threads=2)
MEASURED = Measurement(
    kind="full", startup_s=4.0, first_batch_s=2.0, restart_s=1.5, throughput_s=4.0,
    throughput_steps=2, throughput_rows=200, stages={"forward": [0.5, 1.5]},
    validation_batch_s=[0.5, 0.5], validation_restart_s=1.0, checkpoint_s=[1.0, 3.0],
    peak_device_bytes=7, sizes=RunSizes(epochs=2, train_batches=10, validation_batches=6),
    stamps=Stamps(
        epoch=[1, 1], step=[5, 6], window=["throughput"] * 2, asked_s=[0.0, 2.0],
        delivered_s=[0.5, 2.5], done_s=[2.0, 4.0], rows=[100, 100],
    ),
)  # fmt: skip


def trial(verdict="ok", measurement=MEASURED, **result):
    return Trial(
        request=TrialRequest(kind="full", cell=CELL),
        result=TrialResult(verdict=verdict, measurement=measurement, **result),
        launch=2,
    )


def test_a_record_holds_what_was_measured():
    record = record_of(trial(wall_s=20.0, peak_rss_bytes=9), project([MEASURED], None))
    assert (record.cell_id, record.launch, record.kind) == (CELL.cell_id, 2, "full")
    assert record.step_s == 2.0
    assert record.step_s_low < 2.0 < record.step_s_high
    assert record.rows_per_s == 50.0
    assert record.data_wait_share == pytest.approx(0.25)
    assert record.stage_s == {"forward": 1.0}
    assert record.validation_s == pytest.approx(1 + 6 * 0.5)
    assert record.checkpoint_s == 2.0
    assert (record.startup_s, record.first_batch_s, record.epoch_restart_s) == (4.0, 2.0, 1.5)
    assert (record.peak_rss_bytes, record.peak_device_bytes, record.wall_s) == (9, 7, 20.0)
    assert record.projected_epoch_s == pytest.approx(10 * 2 - 0.5 + 1.5 + 4 + 2)
    # the first epoch begins half a second later than one after a restart
    assert record.projected_total_s == pytest.approx(4.5 + 2 * record.projected_epoch_s)
    assert "provisional" in record.flags


def test_the_rate_fits_the_step_when_the_window_ends_within_a_turn_of_the_workers():
    # two workers: each second step waits; the fifth step begins a turn that was not finished
    ends = [1.0, 2.0, 3.0, 4.0, 14.0]
    stamps = Stamps(
        epoch=[1] * 5, step=[1, 2, 3, 4, 5], window=["throughput"] * 5,
        asked_s=[0.0, *ends[:-1]], delivered_s=[0.0, *ends[:-1]], done_s=ends, rows=[100] * 5,
    )  # fmt: skip
    measured = Measurement(
        kind="full", throughput_s=14.0, throughput_steps=5, throughput_rows=500, stamps=stamps
    )
    record = record_of(trial(measurement=measured))
    assert record.step_s == pytest.approx(1.0)
    assert record.rows_per_s == pytest.approx(100.0)
    (finding,) = diagnose(CELL, [measured], Ceilings(compute_step_s=1.0))[:1]
    assert "of a step of 1 s" in finding.text


def test_a_record_of_a_failure_has_its_verdict_and_no_numbers():
    record = record_of(trial("deadlock", None, reason="waits", evidence="evidence/3"))
    assert (record.verdict, record.reason, record.evidence) == ("deadlock", "waits", "evidence/3")
    assert record.step_s is None
    assert record.projected_total_s is None


def test_records_survive_the_table():
    records = [
        record_of(trial()),
        predicted_record(CELL, None, interval(1.0, 0.2)),
        not_run_record(CELL, "refused", "a rule"),
    ]
    assert records_of_table(trials_table(records)) == records
    assert records[1].kind == "predicted"
    assert records[1].rows_per_s == 100.0


@pytest.mark.parametrize(
    ("verdict", "steps", "ok", "usable", "failed"),
    [
        ("ok", 2, True, True, False),
        ("ok", 0, False, False, False),
        ("skipped", 2, False, True, False),
        ("skipped", 1, False, False, False),
        ("crashed", 2, False, False, True),
        ("shutdown-hang", 2, True, True, False),
        ("shutdown-hang", 0, False, False, True),
    ],
)
def test_what_counts_as_a_measurement(verdict, steps, ok, usable, failed):
    measurement = Measurement(kind="full", throughput_s=float(steps), throughput_steps=steps)
    one = trial(verdict, measurement)
    assert (one.ok, one.usable, one.failed) == (ok, usable, failed)


def test_cells_share_ceilings_where_nothing_that_matters_differs():
    mps = make_cell(loader="batches", workers=2, batch_size=100, threads=2, device="mps")
    assert loader_key(CELL) == loader_key(mps)
    assert compute_key(CELL) != compute_key(mps)
    resident = [make_cell(loader="resident", device=device) for device in ("cpu", "mps")]
    assert loader_key(resident[0]) != loader_key(resident[1])
    more = make_cell(loader="batches", workers=4, batch_size=100, threads=2, prefetch=4)
    assert compute_key(CELL) == compute_key(more)
    assert loader_key(CELL) != loader_key(more)


@pytest.mark.parametrize(
    ("first_batch", "result", "elsewhere"),
    [
        (50, {"verdict": "crashed", "stage": "step"}, True),
        (0, {"verdict": "crashed", "stage": "step"}, False),
        (50, {"verdict": "crashed", "stage": "model"}, False),
        (50, {"verdict": "out-of-memory", "stage": "step"}, False),
        (50, {"verdict": "ok"}, False),
    ],
)
def test_an_error_after_batches_were_left_out_is_no_failure_of_its_cell(
    first_batch, result, elsewhere
):
    measured = replace(MEASURED, first_batch=first_batch)
    one = told_of_place(trial(measurement=measured, reason="OSError: not in order", **result))
    assert one.failed_elsewhere is elsewhere
    assert ("had left out 50 batches" in one.result.reason) is elsewhere
    has_failed = result["verdict"] != "ok" and not elsewhere
    assert (failure_of(CELL, [one]) is not None) is has_failed
