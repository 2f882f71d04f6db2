"""Findings on workers that keep their cores busy."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ctrkit.core.child_records import FileUse, Measurement
from ctrkit.core.config import make_cell
from ctrkit.core.records import Finding
from ctrkit.measure.busy_workers import computing_finding, threads_finding

MB = 1e6


def launch(in_use: FileUse | None = None, **reads: float) -> Measurement:
    """Counters over a window of ten seconds."""
    known = {"read_bytes": 0.0, "storage_bytes": 0.0, "read_calls": 0.0, **reads}
    return Measurement(
        kind="full", throughput_s=10.0, throughput_steps=10, reads=known,
        in_use=in_use or FileUse(),
    )  # fmt: skip


def computing(
    measured: Any, *, busy: float, wait_s: float = 0.8, workers: int = 2, cores: int = 4,
    **reads: float,
) -> Finding | None:  # fmt: skip
    """Of steps of a second, in which each worker keeps `busy` cores busy."""
    run = measured([1.0] * 20, wait_s=wait_s)
    known = {"read_bytes": 0.0, "storage_bytes": 0.0, "read_calls": 0.0}
    known |= {"worker_cpu_s": busy * workers * run.throughput_s, **reads}
    run = dataclasses.replace(run, reads=known)
    return computing_finding(make_cell(workers=workers, loader="rows"), [run], cores)


def test_workers_that_compute_are_told_from_a_disk(measured: Any) -> None:
    found = computing(measured, busy=0.95, read_bytes=400 * MB)
    assert found is not None
    assert found.text.startswith(
        "the loop waits for data 80 % of its time, and each of 2 workers keeps 0.95 cores busy: "
        "decoding, decompression, or Python code for each row. 0 B/s come from storage"
    )
    alone = computing(measured, busy=0.9, workers=1)
    assert alone is not None
    assert "the worker keeps 0.90 cores busy" in alone.text
    assert computing(measured, busy=0.5, workers=8, cores=4) is not None  # all cores are busy


@pytest.mark.parametrize(
    "case",
    [
        {"busy": 0.95, "wait_s": 0.1},  # nobody waits for them
        {"busy": 0.3},
        {"busy": 0.95, "workers": 0},
        {"busy": 3.0},  # threads of a library: another finding
        {"busy": 0.95, "storage_bytes": 400 * MB, "disk_busy_s": 18.0},  # a disk, too
    ],
)
def test_what_may_be_something_else_is_not_called_computing(
    measured: Any, case: dict[str, Any]
) -> None:
    assert computing(measured, **case) is None


@pytest.mark.parametrize(("cpu_s", "told"), [(80.0, True), (26.0, True), (20.0, False)])
def test_workers_with_threads_of_a_library(cpu_s: float, told: bool) -> None:
    use = FileUse(worker_threads=9, libraries=["OpenCV", "OpenMP"])
    found = threads_finding(make_cell(workers=2), [launch(use, worker_cpu_s=cpu_s)])
    assert (found is not None) == told
    if found is not None:
        assert f"each of 2 workers keeps {cpu_s / 20:.1f} cores busy with 9 threads" in found.text
        assert "Loaded there: OpenCV, OpenMP" in found.text
    assert threads_finding(make_cell(workers=0), [launch(use, worker_cpu_s=cpu_s)]) is None
