"""The run folder."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ctrkit.core.child_files import load_measurement, save_measurement
from ctrkit.core.child_records import STAGES, ChildError, Measurement
from ctrkit.core.config import RunSizes, WorkloadSpec, make_cell
from ctrkit.core.errors import UsageError
from ctrkit.core.records import Finding, Option, Recommendation, TrialRecord
from ctrkit.core.runs import Incident, RunFolder, known_runs, newest_run

CONTRACT_COLUMNS = (
    "cell_id launch kind device loader workers start_method prefetch persistent pin threads "
    "batch_size nproc verdict reason rows_per_s step_s step_s_low step_s_high data_wait_share "
    "startup_s first_batch_s epoch_restart_s validation_s checkpoint_s peak_rss_bytes "
    "peak_device_bytes projected_epoch_s projected_epoch_s_low projected_epoch_s_high "
    "projected_total_s projected_total_s_low projected_total_s_high wall_s"
).split()


def make_run(path: Path) -> RunFolder:
    return RunFolder.create("probe", ["probe"], WorkloadSpec(), path)


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    cell = make_cell(loader="batches", workers=2)
    run.update(cell=cell, sizes=RunSizes(epochs=15, train_rows=100), status="done")
    records = [
        TrialRecord(
            cell_id=cell.cell_id, launch=1, kind="full", cell=cell, verdict="ok", step_s=0.5,
            stage_s={"forward": 0.2}, flags=["provisional"],
        ),
        TrialRecord(
            cell_id="x", launch=2, kind="loader", cell=make_cell(), verdict="deadlock", reason="r"
        ),
    ]  # fmt: skip
    run.save_trials(records)
    recommendation = Recommendation(
        cell=cell, reason="fastest", tied=[make_cell()], projected_total_s=3600.0,
        findings=[Finding(stage="forward", share=0.4, worth_x=1.5, text="t", confidence="low")],
        options=[Option(text="fewer epochs", projected_total_s=10.0)],
        dataloader_kwargs={"num_workers": 2},
    )  # fmt: skip
    run.save_recommendation(recommendation)
    again = RunFolder.open(tmp_path / "run")
    assert again.info == run.info
    assert again.trials() == records
    assert again.recommendation() == recommendation


def test_the_trials_file_has_the_columns_of_the_contract(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.save_trials([])
    names = pq.read_schema(run.path / "trials.parquet").names
    assert set(CONTRACT_COLUMNS) | {f"{stage}_s" for stage in STAGES} <= set(names)


def test_out_folders(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UsageError, match="not empty"):
        make_run(tmp_path / "full")
    with pytest.raises(UsageError, match="is a file"):
        make_run(tmp_path / "full" / "x")
    (tmp_path / "empty").mkdir()
    assert make_run(tmp_path / "empty").path == tmp_path / "empty"


def test_runs_are_found_newest_first(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    assert list(known_runs()) == [second.path, first.path]
    (second.path / "run.json").unlink()
    assert list(known_runs()) == [first.path]


def test_the_newest_run_is_one_of_this_folder_where_it_has_any(tmp_path: Path) -> None:
    assert newest_run(tmp_path) is None
    mine, other = make_run(tmp_path / "mine" / "a"), make_run(tmp_path / "other" / "b")
    assert newest_run(tmp_path / "mine") == mine.path
    assert newest_run(tmp_path) == other.path
    assert newest_run(tmp_path / "elsewhere") == other.path


def test_unknown_schema_version_is_one_clear_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    values = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**values, "schema_version": 99}))
    with pytest.raises(UsageError, match="schema version 99"):
        RunFolder.open(run.path)
    with pytest.raises(UsageError, match="not a run folder, it has no run.json; ctrkit report"):
        RunFolder.open(tmp_path)
    with pytest.raises(UsageError, match="there is no such folder; ctrkit report --list"):
        RunFolder.open(tmp_path / "typo")
    with pytest.raises(UsageError, match="not a run folder, but a file"):
        RunFolder.open(run.path / "run.json")


def test_measurements_survive(tmp_path: Path) -> None:
    measured = Measurement(
        kind="full", startup_s=1.0, stages={"forward": [0.1]}, sizes=RunSizes(epochs=2),
        error=ChildError(verdict="crashed", stage="step", message="m", traceback="t"),
    )  # fmt: skip
    save_measurement(tmp_path / "m.json", measured)
    assert load_measurement(tmp_path / "m.json") == measured
    assert load_measurement(tmp_path / "none.json") is None


def test_secrets_of_the_environment_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run = make_run(tmp_path / "run")
    text = (run.path / "run.json").read_text()
    assert "hunter2" not in text
    assert run.info.environment["variables"]["OMP_NUM_THREADS"] == "3"


def incident(number: int, **values: Any) -> Incident:
    defaults: dict[str, Any] = {
        "at": "2026-01-31T12:00:00+00:00", "verdict": "deadlock", "reason": "two\nlines",
        "cell_before": make_cell(workers=2, loader="rows"), "action": "stopped",
    }  # fmt: skip
    return Incident(number=number, **(defaults | values))


def test_incidents_are_a_line_each(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run.incidents() == []
    run.append_incident(incident(1, lost_s=float("nan")))
    run.append_incident(incident(2, resumed_from={"epoch": 2, "batch": 7}))
    text = (run.path / "incidents.jsonl").read_text()
    assert text.count("\n") == 2
    first, second = run.incidents()
    assert (first["number"], first["reason"], first["lost_s"]) == (1, "two\nlines", None)
    assert first["cell_before"]["workers"] == 2
    assert second["resumed_from"] == {"epoch": 2, "batch": 7}


def test_half_a_line_costs_no_other_incident(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.append_incident(incident(1))
    with open(run.path / "incidents.jsonl", "a") as file:
        file.write('{"number": 2, "ver')
    assert [line["number"] for line in run.incidents()] == [1]
    run.append_incident(incident(3))
    assert [line["number"] for line in run.incidents()] == [1, 3]


def test_incidents_are_numbered_in_turn_and_evidence_has_a_place_of_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert run.next_incident() == 1
    run.append_incident(incident(1))
    (run.path / "evidence" / "train-1").mkdir(parents=True)
    assert run.next_incident() == 2
    assert run.new_evidence("train") == run.path / "evidence" / "train-2"
    assert run.new_evidence("inspect") == run.path / "evidence" / "inspect-1"


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunFolder.create("probe", [], WorkloadSpec()), range(24)))
    assert len({run.path for run in runs}) == 24


def test_only_one_of_two_that_begin_at_once_gets_the_folder_of_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctrkit.core.runs.check_out_folder", lambda path: None)  # both found it so
    make_run(tmp_path / "run")
    with pytest.raises(UsageError, match="another run has just begun there"):
        make_run(tmp_path / "run")
