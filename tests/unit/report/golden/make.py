"""Rewrites the run folders of the golden tests, and their expected output.

`python -m tests.unit.report.golden.make` writes the run folders and the expected texts beside them;
`... expected` only the texts. Look at the difference before you keep it.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from ctrkit.core.config import WorkloadSpec, encode
from ctrkit.core.files import write_json, write_table
from ctrkit.core.records import Finding, Option, Recommendation, TrialRecord
from ctrkit.core.trial_tables import trials_table
from ctrkit.ctr.phase import EPOCH_COLUMNS
from ctrkit.ctr.plugin import load_phase
from ctrkit.report.compare_view import compare_view
from ctrkit.report.comparison import compare
from ctrkit.report.contents import RunContents
from ctrkit.report.markdown import markdown_text
from ctrkit.report.run_reader import read_contents
from ctrkit.report.status import status_update
from ctrkit.report.terminal import report_text
from ctrkit.report.views import report_view
from tests.unit.report.conftest import (
    BATCHES,
    ROWS,
    ROWS_0,
    SIZES,
    STAGES_S,
    THREAD,
    cell,
    epoch_row,
    info,
    measured,
    trial,
)

HERE = Path(__file__).parent
RUNS = ("probe", "probe-new", "train")
PRINTS = {"machine_fingerprint": "a" * 16, "workload_fingerprint": "b" * 16,
          "data_fingerprint": "c" * 16}  # fmt: skip

RECOMMENDATION = Recommendation(
    cell=THREAD,
    reason="the fastest of 2 cells that were run together; no processes, so nothing to lock",
    tied=[BATCHES],
    projected_epoch_s=6100.0, projected_epoch_s_low=5800.0, projected_epoch_s_high=6400.0,
    projected_total_s=91_500.0, projected_total_s_low=87_000.0, projected_total_s_high=96_000.0,
    projected_startup_s=2.1,
    findings=[
        Finding(stage="backward", share=0.58, worth_x=2.4, confidence="high",
                text="the backward pass takes most of a step; the loader hardly matters"),
    ],
    options=[Option(text="5 epochs instead of 15", projected_total_s=32_400.0)],
    dataloader_kwargs={"batch_size": 2048, "num_workers": 0, "pin_memory": False},
)  # fmt: skip


def probe_trials(thread_s: float, batches_s: float, torch_rows: str) -> list[TrialRecord]:
    """A matrix with every kind of row; both finalists were launched three times."""
    rows = [
        trial(THREAD, kind="compute", step_s=11.0, rows_per_s=186.0, peak_rss_bytes=2_100_000_000),
        trial(THREAD, kind="loader", step_s=0.02, rows_per_s=102_400.0),
        measured(ROWS_0, 11.4, kind="predicted", verdict="skipped", launch=0),
    ]
    for launch, factor in ((1, 0.998), (2, 1.003), (3, 0.999)):
        rows.append(
            measured(THREAD, thread_s * factor, launch=launch, stage_s=STAGES_S, startup_s=2.1,
                     data_wait_share=0.004, validation_s=400.0, checkpoint_s=0.8,
                     peak_rss_bytes=2_300_000_000)
        )  # fmt: skip
        rows.append(measured(BATCHES, batches_s * factor, launch=launch, data_wait_share=0.011))
    rows.append(
        measured(ROWS, 11.9) if torch_rows == "ok"
        else trial(ROWS, verdict=torch_rows, reason="4 workers wait for a lock that nobody holds",
                   evidence="evidence/009-full-cpu-rows-w4-fork-p2-t2-b2048")
    )  # fmt: skip
    rows.append(
        trial(cell(device="mps", loader="rows", workers=2, start_method="fork"), verdict="refused",
              reason="fork with MPS hangs or crashes", launch=0)
    )  # fmt: skip
    return rows


def write_runs() -> None:
    """The run folders: two probes of one workload with different torch, and a run that stopped."""
    probe = {"budget_s": 120.0, "argv": ["probe", "--budget", "120s"], **PRINTS}
    _write("probe", info("probe", **probe), probe_trials(11.1, 11.2, "ok"), RECOMMENDATION)
    environment = {**info("probe").environment, "versions": {"torch": "2.14.0", "python": "3.11.9"}}
    new = info("probe", environment=environment, **(probe | {"created": "2026-02-28T12:00:00"}))
    best = dataclasses.replace(RECOMMENDATION, projected_total_s=110_000.0)
    _write("probe-new", new, probe_trials(13.4, 11.3, "deadlock"), best)
    train = info(
        "train",
        argv=["train", "--auto-device", "--phase", "phase3-revised", "--set", "dropout=0.3"],
        workload=WorkloadSpec(settings=encode(load_phase("phase3-revised", {"dropout": "0.3"}))),
        sizes=dataclasses.replace(SIZES, epochs=5), projection=RECOMMENDATION, cell=THREAD,
        status="interrupted", status_reason="stopped by the user", wall_s=19_000.0, **PRINTS,
    )  # fmt: skip
    _write("train", train)
    rows = [
        epoch_row(n, wall_s=6100.0 + 40 * n, val_auc=0.56 + n * (6 - n) / 500) for n in (1, 2, 3)
    ]
    with open(HERE / "train" / "epochs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, EPOCH_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    incident = {"number": 1, "at": "2026-01-31T13:00:00+00:00", "verdict": "deadlock",
                "reason": "2 workers wait for a lock", "epoch": 2, "step": 23, "stage": "step",
                "action": "restarted", "resumed_from": {"epoch": 2, "batch": 20},
                "evidence": "evidence/train-1", "lost_steps": 3, "lost_s": 61.0}  # fmt: skip
    (HERE / "train" / "incidents.jsonl").write_text(json.dumps(incident) + "\n")


def _write(
    name: str, values: Any, trials: list[TrialRecord] | None = None,
    recommendation: Recommendation | None = None,
) -> None:  # fmt: skip
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_json(folder / "run.json", values)
    if trials is not None:
        write_table(folder / "trials.parquet", trials_table(trials))
        columns = ("asked_s", "delivered_s", "done_s")
        stamps = {"trial": ["004"], "cell_id": [THREAD.cell_id], "kind": ["full"],
                  "window": ["throughput"], **{column: [1.0] for column in columns}}  # fmt: skip
        write_table(folder / "stamps.parquet", pa.table(stamps))
    if recommendation is not None:
        write_json(folder / "recommendation.json", recommendation)


def stored(name: str) -> RunContents:
    """A stored run folder, as if it lay in `/runs`: its own place must not be in the texts."""
    return dataclasses.replace(read_contents(HERE / name), path=Path("/runs") / name)


def texts() -> dict[str, str]:
    """What is expected, by file name."""
    found = {}
    for name in RUNS:
        contents = stored(name)
        view = report_view(contents)
        found[f"{name}-80.txt"] = report_text(view, 80)
        found[f"{name}-120.txt"] = report_text(view, 120)
        found[f"{name}.md"] = markdown_text(status_update(view, contents))
    view = compare_view(compare(stored("probe"), stored("probe-new"), 0.05))
    found["compare-80.txt"] = report_text(view, 80)
    found["compare.md"] = markdown_text(view)
    return found


if __name__ == "__main__":
    if "expected" not in sys.argv:
        write_runs()
    for file_name, text in texts().items():
        (HERE / file_name).write_text(text, "utf-8")
