"""The report of a checkup: worst first, unknowns named, and it fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctrkit.core.checkup import Checkup, Hazard, HazardFinding, MachineLimits, StageAllowance
from ctrkit.core.child_records import Examination, Inspection, LoaderNeeds, LoaderPart
from ctrkit.core.config import make_cell
from ctrkit.report.doctor_view import doctor_view
from ctrkit.report.terminal import report_text

PLAIN = make_cell(threads=2)
SPAWN, FORK = (
    make_cell(loader="rows", workers=2, start_method=method, threads=2)
    for method in ("spawn", "fork")
)
INSPECTION = Inspection(
    devices=["cpu"], device_names={}, torch_version="2", workload_name="own.py:make_loader",
    workload_fingerprint="", data_fingerprint="", axes=["workers", "start_method"],
    loaders=["rows"], default_batch_size=8, has_task=False, sizes=None,
)  # fmt: skip
WARNING = Hazard(name="a lock", text="it hangs", advice="use spawn", references=("https://a/1",))
REFUSAL = replace(WARNING, name="no memory", level="refusal", text="it does not fit")
CLEAN = Checkup(
    inspection=INSPECTION,
    examination=Examination(
        loader="DataLoader",
        parts=[LoaderPart(name="dataset", kind="Rows", pickled_bytes=2_000, shared_bytes=4_000)],
        needs=LoaderNeeds(worker_bytes=150_000_000, row_bytes=400, tensors_per_batch=9),
        start_method="fork",
        sharing_strategy="file_descriptor",
    ),
    limits=MachineLimits(cores=2, memory_bytes=10**9, shm_bytes=10**8, open_files=1024),
    cells=(PLAIN, SPAWN, FORK),
    rules=19,
    versions={"torch": "2.13.0"},
    allowances=(
        StageAllowance(stage="first batch", idle_s=60, burning_s=600, reason="with its workers"),
    ),
)


def text(checkup, width=80):
    return report_text(doctor_view(checkup), width)


def test_nothing_wrong_is_one_line():
    shown = text(CLEAN)

    assert "none of 19 rules on known hazards applies to these configurations." in " ".join(
        shown.split()
    )
    assert "Warning" not in shown
    assert "Refused" not in shown


def test_refusals_come_before_warnings_with_advice_cells_and_sources():
    found = (
        HazardFinding(hazard=REFUSAL, cells=(SPAWN, FORK)),
        HazardFinding(hazard=WARNING, cells=(FORK,)),
    )
    shown = text(replace(CLEAN, findings=found, invalid=((SPAWN, "thread has no workers"),)))
    assert "2 refusals, and 1 warning." in shown
    order = [
        shown.index(words) for words in ("no such cell", "no memory", "a lock", "This machine")
    ]
    assert order == sorted(order)
    assert "loader rows; workers 2\n" in shown
    assert "start method fork" in shown
    assert shown.count("https://a/1") == 2
    assert "Use spawn." in shown


def test_facts_of_machine_and_workload_are_said_and_the_unknown_too():
    shown = text(CLEAN)
    for words in (
        "torch 2.13.0", "1 GB available", "100 MB free in /dev/shm", "1,024 a process",
        "by file_descriptor", "2 kB pickled, 4 kB of tensors in shared memory", "150 MB",
        "400 B in a batch of 9 tensors", "60 s", "600 s", "with its workers",
    ):  # fmt: skip
        assert words in shown
    assert "workers start" not in shown
    limits = MachineLimits(memory_bytes=5, memory_is_capped=True)
    examination = Examination(problem="it raised", start_method="fork")
    inspection = replace(INSPECTION, axes=["workers"])
    shown = text(replace(CLEAN, limits=limits, examination=examination, inspection=inspection))
    for words in (
        "control group",
        "no limit",
        "no /dev/shm",
        "could not be made",
        "unknown before a batch",
    ):
        assert words in shown
    assert "by fork: the loader names no start method" in shown


def test_a_failed_part_names_its_place_once():
    parts = [
        LoaderPart(name="dataset", kind="Rows", place="dataset.lock", error="x"),
        LoaderPart(name="collate_fn", kind="<lambda>", place="collate_fn", error="x"),
    ]
    shown = text(replace(CLEAN, examination=replace(CLEAN.examination, parts=parts)))
    assert "Rows: cannot be pickled (dataset.lock)" in shown
    assert "<lambda>: cannot be pickled\n" in shown


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width):
    found = tuple(
        HazardFinding(hazard=replace(WARNING, name=f"n{i}", text="word " * 40), cells=(FORK,))
        for i in range(3)
    )
    notes = ("--pin is ignored: own.py does not take it",)
    shown = text(replace(CLEAN, findings=found, notes=notes), width)
    assert max(map(len, shown.splitlines())) <= width
    assert "--pin is ignored" in shown


def test_text_of_the_workload_cannot_steer_the_terminal():
    part = LoaderPart(name="dataset", kind="Ro\x1b[2Jws")
    examination = replace(CLEAN.examination, parts=[part])
    hazard = replace(WARNING, text="a\x1b[31mb")
    found = (HazardFinding(hazard=hazard, cells=(FORK,)),)
    assert "\x1b" not in text(replace(CLEAN, examination=examination, findings=found))
