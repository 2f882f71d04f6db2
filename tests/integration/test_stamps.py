"""A real trial with real workers: its stamps, and the replay of its own batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.core.child_files import load_measurement
from ctrkit.core.child_records import Measurement
from ctrkit.core.config import ChildSpec, WindowPlan, WorkloadSpec, make_cell
from ctrkit.measure.loads import load_of
from ctrkit.measure.steps import stage_means_s
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import TimeLimits

#: Long beside what a busy machine adds to them: replay must come within a twentieth.
ROW_S, COLLATE_S = 0.01, 0.02
WORKLOAD = f"""
import time
import torch
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __len__(self):
        return 4000

    def __getitem__(self, index):
        time.sleep({ROW_S})
        return torch.zeros(4)


def collate(rows):
    time.sleep({COLLATE_S})
    return torch.stack(rows)


def make_loader(*, workers, start_method, batch_size):
    loader = DataLoader(
        Rows(), batch_size=batch_size, num_workers=workers, collate_fn=collate,
        multiprocessing_context=start_method if workers else None,
    )
    return loader


def make_pairs(*, workers, start_method, batch_size):
    # every second batch is left out: the loop's batches are not the workers' any more
    loader = make_loader(workers=workers, start_method=start_method, batch_size=batch_size)
    return (batch for number, batch in enumerate(loader) if number % 2)
"""


def measured(tmp_path: Path, name: str, workers: int, method: str | None) -> Measurement:
    (tmp_path / "sleepy.py").write_text(WORKLOAD)
    outcome = run_child(
        ChildSpec(
            kind="full",
            folder=str(tmp_path / "trial"),
            workload=WorkloadSpec(target=f"{tmp_path / 'sleepy.py'}:{name}"),
            cell=make_cell(
                loader="custom", workers=workers, start_method=method, batch_size=4, threads=1
            ),
            windows=WindowPlan(window_s=0.2, min_steps=24, max_steps=24, boundary_steps=2),
        ),
        time_limits=TimeLimits(),
        evidence_folder=tmp_path / "evidence",
    )
    assert outcome.verdict == "ok", outcome.reason
    measurement = load_measurement(tmp_path / "trial" / "measurement.json")
    assert measurement is not None
    return measurement


# each spawned worker imports torch anew, and it is not for their number that they are tried
@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_stamp_the_batches_of_a_trial(tmp_path: Path, method: str, workers: int) -> None:
    measurement = measured(tmp_path, "make_loader", workers, method)
    stamps = measurement.stamps
    assert set(stamps.window) == {"warmup", "throughput", "boundary"}
    assert stamps.worker[:4] == ([0, 1, 0, 1] if workers == 2 else [0] * 4)
    assert None not in stamps.worker, "those of the second epoch, made by new workers, too"
    for start_s, fetched_s, made_s, sent_s, delivered_s in zip(
        stamps.fetch_start_s, stamps.fetch_end_s, stamps.collate_end_s, stamps.sent_s,
        stamps.delivered_s, strict=True,
    ):  # fmt: skip
        assert start_s < fetched_s < made_s <= sent_s <= delivered_s
    stages = stage_means_s([measurement])
    assert stages["fetch"] >= 4 * ROW_S
    assert stages["collate"] >= COLLATE_S
    assert stages["ipc"] > 0
    cell = make_cell(loader="custom", workers=workers, start_method=method, batch_size=4)
    load = load_of(measurement, cell)
    assert load is not None, "the replay of its own batches comes close to what they took"
    assert sum(load.service_s) >= 0.99 * (4 * ROW_S + COLLATE_S) * len(load.service_s)


def test_batches_that_are_not_those_of_the_workers_are_not_matched(tmp_path: Path) -> None:
    measurement = measured(tmp_path, "make_pairs", 2, "fork")
    assert set(measurement.stamps.worker) == {None}
    assert "fetch" not in stage_means_s([measurement])
