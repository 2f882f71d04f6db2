"""`train --auto-device` of a script: a known probe, a brief one, or as written."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands import script_choice
from ctrkit.commands.options import Axes
from ctrkit.commands.script_choice import choose_or_probe
from ctrkit.commands.script_probe import BRIEF, Budget
from ctrkit.core.config import Cell, ScriptSpec, make_cell
from ctrkit.core.errors import (
    CtrkitError,
    InconclusiveError,
    InterruptedRunError,
    NoViableCellError,
    UsageError,
)
from ctrkit.core.records import Recommendation
from ctrkit.core.script_records import ScriptAnswer
from ctrkit.core.script_sources import sources_of

FAST = make_cell(loader="script", workers=4, start_method="fork", prefetch=2)


def recommendation(cell: Cell = FAST, sources: dict[str, str] | None = None) -> Recommendation:
    return Recommendation(
        cell=cell, reason="fastest", tied=[], runner_up=None, projected_epoch_s=10.0,
        projected_epoch_s_low=9.0, projected_epoch_s_high=11.0, projected_total_s=30.0,
        projected_total_s_low=27.0, projected_total_s_high=33.0, probe="20260101-probe",
        script=ScriptAnswer(as_written=make_cell(loader="script"), sources=sources or {}),
    )  # fmt: skip


class Probe:
    """In place of the real one: gives what it is told to, and counts."""

    def __init__(self, result: Recommendation | CtrkitError) -> None:
        self.result, self.asked = result, []  # type: ignore[var-annotated]

    def __call__(self, script: ScriptSpec, axes: Axes, stop: Any, **more: Any) -> Any:
        self.asked.append(more)
        if isinstance(self.result, CtrkitError):
            raise self.result
        return self.result, Path("results/runs/x-probe")


def choose(
    monkeypatch: pytest.MonkeyPatch,
    probe: Probe,
    command: Sequence[str] = ("python", "train.py"),
    known: Recommendation | None = None,
    wanted: dict[str, Any] | None = None,
    folder: Path = Path("/u"),
    **more: Any,
) -> Any:
    monkeypatch.setattr("ctrkit.commands.script_probe.brief_script_probe", probe)
    monkeypatch.setattr(script_choice, "recommended_for", lambda *_: known)
    monkeypatch.setattr(script_choice, "known_runs", list)
    monkeypatch.setattr(
        script_choice, "handle_interrupts", lambda **_: contextlib.nullcontext(object())
    )
    axes = {axis: (value,) for axis, value in (wanted or {}).items()}
    script = ScriptSpec(command=list(command), folder=str(folder))
    return choose_or_probe(script, axes, wanted or {}, config=None, auto_device=True, **more)


def test_a_known_probe_is_taken_and_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(recommendation())
    choice = choose(monkeypatch, probe, known=recommendation())
    assert not probe.asked
    assert choice.cell.workers == 4


def test_without_a_known_probe_one_is_made_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = Probe(recommendation())
    choice = choose(monkeypatch, probe, most_s=7.0)
    assert (choice.cell.workers, choice.projection) == (4, probe.result)
    assert choice.why == "recommended by a brief probe (fastest)"
    assert probe.asked[0]["most_s"] == 7.0
    said = capsys.readouterr().err
    assert "probes it briefly first" in said
    assert "x-probe" in said


@pytest.mark.parametrize(
    "error",
    [
        InconclusiveError("no step was seen"), NoViableCellError("it crashed"),
        UsageError("the script ended with exit code 2"),
    ],
)  # fmt: skip
def test_where_nothing_can_be_measured_it_trains_as_written_and_says_why(
    monkeypatch: pytest.MonkeyPatch, error: CtrkitError
) -> None:
    choice = choose(monkeypatch, Probe(error), wanted={"workers": 2})
    assert choice.put_in == ["workers"]
    assert str(error) in choice.why
    assert choice.projection is None


def test_a_placeholder_that_nothing_gives_a_value_is_bad_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["python", "train.py", "-j", "{workers}"]
    assert choose(monkeypatch, Probe(recommendation()), command).cell.workers == 4
    with pytest.raises(UsageError, match=r"no step.*--workers VALUE"):
        choose(monkeypatch, Probe(InconclusiveError("no step")), command)


def test_an_interrupted_probe_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterruptedRunError):
        choose(monkeypatch, Probe(InterruptedRunError("interrupted")))


def test_what_cannot_be_chosen_fails_before_the_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(recommendation())
    with pytest.raises(UsageError, match="cannot be changed"):
        choose(monkeypatch, probe, wanted={"loader": "rows"})
    assert not probe.asked


def test_a_script_that_was_edited_since_its_probe_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("import net\n")
    (tmp_path / "net.py").write_text("WIDTH = 8\n")
    script = ScriptSpec(command=["python", "train.py"], folder=str(tmp_path))
    known = recommendation(sources=sources_of(script))
    probe = Probe(recommendation())
    choice = choose(monkeypatch, probe, known=known, folder=tmp_path)
    assert (choice.warning, choice.projection) == ("", known)
    (tmp_path / "net.py").write_text("WIDTH = 4096\n")
    choice = choose(monkeypatch, probe, known=known, folder=tmp_path)
    assert "net.py was edited since the probe (20260101-probe)" in choice.warning
    assert (choice.projection, choice.cell.workers) == (None, 4)


def test_a_brief_budget_grows_with_the_first_launch_and_ends_with_the_job() -> None:
    assert BRIEF.after_first(2.0) == 60.0
    assert BRIEF.after_first(100.0) == 400.0
    assert dataclasses.replace(BRIEF, most_s=90.0).after_first(100.0) == 90.0
    assert Budget(least_s=20.0).after_first(100.0) == 20.0
