"""What to change in a script: only what differs from its own settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ctrkit.core.config import Cell, ScriptSpec, encode, make_cell
from ctrkit.core.script_records import ScriptAnswer, ScriptLoader, ScriptSeen
from ctrkit.probe.scripts.answer import change_of, later_epochs_finding
from ctrkit.probe.scripts.as_written import as_written_cell

TEXT = "import x\nloader = DataLoader(rows, batch_size=8)\n"


@pytest.fixture
def script(tmp_path: Path) -> ScriptSpec:
    (tmp_path / "train.py").write_text(TEXT)
    return ScriptSpec(command=["python", "train.py"], folder=str(tmp_path))


def seen(workers: int = 0, file: str = "train.py") -> ScriptSeen:
    loader = ScriptLoader(
        number=0, dataset="Rows", workers=workers, prefetch=2 if workers else None,
        start_method="fork" if workers else None, file=file, line=2, batch_size=8,
    )  # fmt: skip
    return ScriptSeen(
        pid=1, clock="loader", loaders=[loader], train_loader=0, default_start_method="fork"
    )


def changed(script: ScriptSpec, what: ScriptSeen, **axes: object) -> tuple[Cell, str, str]:
    own = as_written_cell(script, what, {})
    cell = replace(own, **axes)  # type: ignore[arg-type]
    return (cell, *change_of(script, what, cell, own))


def test_defaults_of_the_loader_are_not_written_down(script: ScriptSpec) -> None:
    _, diff, _ = changed(script, seen(), workers=4, start_method="fork", prefetch=2)
    assert "+loader = DataLoader(rows, batch_size=8, num_workers=4)" in diff


def test_what_differs_is_written_down(script: ScriptSpec) -> None:
    _, diff, _ = changed(
        script, seen(), workers=4, start_method="spawn", prefetch=4, persistent=True
    )
    for argument in ('multiprocessing_context="spawn"', "prefetch_factor=4", "persistent_workers"):
        assert argument in diff


def test_flags_alone_change_nothing_of_the_text(script: ScriptSpec) -> None:
    flagged = replace(script, command=["python", "train.py", "-j", "{workers}"])
    _, diff, words = changed(flagged, seen(), workers=4, start_method="fork", prefetch=2)
    assert diff == ""
    assert "flags" in words


def test_as_written_needs_no_change(script: ScriptSpec) -> None:
    own = as_written_cell(script, seen(), {})
    words = "the script as written is recommended, so there is no change"
    assert change_of(script, seen(), own, own) == ("", words)


@pytest.mark.parametrize("file", ["", "/usr/lib/site-packages/pkg/data.py", "missing.py"])
def test_where_no_diff_can_be_made_the_settings_are_said(script: ScriptSpec, file: str) -> None:
    _, diff, words = changed(script, seen(file=file), workers=4, start_method="fork", prefetch=2)
    assert diff == ""
    assert "num_workers=4" in words


@pytest.mark.parametrize(
    ("sampler", "persistent", "why", "said"),
    [
        ("RandomSampler", True, "", "one seed less"),
        ("WeightedRandomSampler", True, "", "one seed less"),
        ("DistributedSampler", True, "", None),
        ("SequentialSampler", True, "", None),
        ("RandomSampler", False, "", None),
        ("RandomSampler", True, "the script is not seeded: two launches differ", None),
    ],
)
def test_written_into_the_script_persistent_workers_change_later_epochs(
    script: ScriptSpec, sampler: str, persistent: bool, why: str, said: str | None
) -> None:
    loaders = [replace(one, sampler=sampler) for one in seen().loaders]
    what = replace(seen(), loaders=loaders)
    own = as_written_cell(script, what, {})
    axes = {"workers": 2, "start_method": "fork", "prefetch": 2, "persistent": persistent}
    cell = make_cell(**{**encode(own), **axes})
    answer = ScriptAnswer(as_written=own, experiment_why=why)
    found = later_epochs_finding(what, answer, cell)
    assert (found is None) == (said is None)
    assert found is None or (said or "") in found.text
