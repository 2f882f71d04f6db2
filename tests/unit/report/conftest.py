"""Records for the report's tests, and run folders with them."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctrkit.core.config import Cell, RunSizes, WorkloadSpec, encode, make_cell
from ctrkit.core.records import (
    Finding,
    Option,
    Recommendation,
    RunInfo,
    TrialRecord,
)
from ctrkit.core.runs import RunFolder
from ctrkit.ctr.phase import EPOCH_COLUMNS, Phase

SIZES = RunSizes(
    epochs=15, train_rows=1_052_081, train_batches=514, validation_rows=225_446,
    validation_batches=111, patience=5,
)  # fmt: skip
ENVIRONMENT = {
    "machine": {
        "system": "Linux", "machine": "x86_64", "processor": "Example CPU @ 2.50GHz",
        "physical_cores": 2, "logical_cores": 2, "memory_bytes": 16_000_000_000,
    },
    "versions": {"torch": "2.13.0", "python": "3.11.9"},
}  # fmt: skip


def cell(**axes: Any) -> Cell:
    return make_cell(**({"threads": 2} | axes))


def trial(of: Cell, kind: str = "full", verdict: str = "ok", **values: Any) -> TrialRecord:
    values.setdefault("launch", 1)
    return TrialRecord(cell_id=of.cell_id, kind=kind, cell=of, verdict=verdict, **values)


def measured(of: Cell, step_s: float, **values: Any) -> TrialRecord:
    total_s = step_s * 514 * 15 + 600
    defaults: dict[str, Any] = {
        "step_s": step_s, "step_s_low": step_s * 0.97, "step_s_high": step_s * 1.03,
        "rows_per_s": of.batch_size / step_s, "projected_epoch_s": total_s / 15,
        "projected_total_s": total_s, "projected_total_s_low": total_s * 0.95,
        "projected_total_s_high": total_s * 1.05,
    }  # fmt: skip
    return trial(of, **(defaults | values))


THREAD = cell(loader="thread")
BATCHES = cell(loader="batches", workers=2)
ROWS = cell(loader="rows", workers=4, start_method="fork")
ROWS_0 = cell(loader="rows")
STAGES_S = {
    "fetch": 0.031, "collate": 0.004, "transfer": 0.0001, "forward": 4.2, "backward": 6.5,
    "optimizer": 0.4,
}  # fmt: skip


@pytest.fixture
def trials() -> list[TrialRecord]:
    """A matrix with every kind of row."""
    return [
        trial(THREAD, kind="compute", step_s=11.0, rows_per_s=186.0, peak_rss_bytes=2_100_000_000),
        trial(THREAD, kind="loader", step_s=0.02, rows_per_s=102_400.0),
        measured(ROWS_0, 11.4, kind="predicted", verdict="skipped", reason="predicted by replay"),
        measured(BATCHES, 11.3, kind="predicted", verdict="skipped", reason="predicted by replay"),
        measured(
            THREAD, 11.12, data_wait_share=0.004, stage_s=STAGES_S, startup_s=2.1,
            first_batch_s=0.3, epoch_restart_s=0.1, validation_s=400.0, checkpoint_s=0.8,
            peak_rss_bytes=2_300_000_000, launch=5,
        ),
        measured(BATCHES, 11.2, data_wait_share=0.011, launch=6),
        trial(
            ROWS, verdict="deadlock", reason="4 workers wait for a lock that nobody holds",
            evidence="evidence/7-cpu-rows-w4-fork-p2-t2-b2048", launch=7,
        ),
        trial(cell(device="mps", loader="rows", workers=2, start_method="fork"), verdict="refused",
              reason="fork with MPS hangs or crashes"),
        trial(cell(loader="resident"), verdict="skipped", reason="budget", launch=9),
    ]  # fmt: skip


@pytest.fixture
def recommendation() -> Recommendation:
    return Recommendation(
        cell=THREAD,
        reason="the fastest of 2 cells that were run together; no processes, so nothing to lock",
        tied=[BATCHES],
        projected_epoch_s=6100.0, projected_epoch_s_low=5800.0, projected_epoch_s_high=6400.0,
        projected_total_s=91_500.0, projected_total_s_low=87_000.0,
        projected_total_s_high=96_000.0,
        projected_startup_s=2.1,
        findings=[
            Finding(stage="backward", share=0.58, worth_x=2.4,
                    text="the backward pass takes most of a step; the loader hardly matters",
                    confidence="high"),
        ],
        options=[
            Option(text="5 epochs instead of 15", projected_total_s=32_400.0),
            Option(text="a deadline of 6 h: 3 epochs fit", projected_total_s=19_400.0),
        ],
        flags=["provisional"],
        dataloader_kwargs={"num_workers": 0, "batch_size": None},
    )  # fmt: skip


def info(command: str, **changes: Any) -> RunInfo:
    values: dict[str, Any] = {
        "argv": [command], "created": "2026-01-31T12:00:00+00:00", "environment": ENVIRONMENT,
        "machine_fingerprint": "0" * 16, "workload": WorkloadSpec(settings=encode(Phase())),
        "sizes": SIZES, "status": "done", "wall_s": 118.0,
    }  # fmt: skip
    return RunInfo(command=command, **(values | changes))


def epoch_row(epoch: int, **values: float) -> dict[str, float | None]:
    figures = {
        "train_loss": 0.3812 - epoch / 100, "train_auc": 0.51 + epoch / 100, "train_logloss": 0.21,
        "val_loss": 0.31, "val_auc": 0.56 + epoch / 100, "val_logloss": 0.2, "train_val_gap": 0.05,
        "gate_mean": 0.21, "gate_std": 0.1, "learning_rate": 1.5e-4, "rows": 1_052_081,
        "wall_s": 6200.0, "train_gauc": 0.5, "val_gauc": 0.51,
    }  # fmt: skip
    return {"epoch": epoch, **(figures | values)}


MakeRun = Callable[..., RunFolder]


@pytest.fixture
def make_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Writes a run folder through the run folder's own code."""
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path / "home"))

    def make(
        command: str,
        *,
        name: str = "run",
        trials: list[TrialRecord] | None = None,
        recommendation: Recommendation | None = None,
        epochs: list[dict[str, float | None]] | None = None,
        **changes: Any,
    ) -> RunFolder:
        run = RunFolder.create(command, [command], WorkloadSpec(), tmp_path / name)
        run.info = dataclasses.replace(info(command, **changes), schema_version=1)
        run.save_info()
        if trials is not None:
            run.save_trials(trials)
        if recommendation is not None:
            run.save_recommendation(recommendation)
        if epochs is not None:
            with open(run.path / "epochs.csv", "w", newline="") as file:
                writer = csv.DictWriter(file, EPOCH_COLUMNS)
                writer.writeheader()
                writer.writerows(epochs)
        return run

    return make
