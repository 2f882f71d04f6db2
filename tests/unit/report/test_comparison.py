import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ctrkit.commands.compare import compare as compare_command
from ctrkit.commands.compare import parse_threshold
from ctrkit.core.config import ScriptSpec, WorkloadSpec, encode
from ctrkit.core.errors import InconclusiveError, RegressionError, UsageError
from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.ctr.plugin import load_phase
from ctrkit.report.comparable import Change, changes
from ctrkit.report.comparison import Comparison, compare
from ctrkit.report.contents import RunContents
from ctrkit.report.run_reader import read_contents
from tests.unit.report.conftest import (
    BATCHES,
    ENVIRONMENT,
    ROWS,
    SIZES,
    THREAD,
    MakeRun,
    cell,
    epoch_row,
    measured,
    trial,
)

PRINTS = {"workload_fingerprint": "w", "data_fingerprint": "d"}


def thrice(of: object, step_s: float, scatter: float = 0.002) -> list[TrialRecord]:
    return [
        measured(of, step_s * (1 + scatter * k), launch=k + 2)  # type: ignore[arg-type]
        for k in (-1, 0, 1)
    ]


Make = Callable[..., Path]


@pytest.fixture
def probe(make_run: MakeRun, recommendation: Recommendation) -> Make:
    def make(name: str, trials: list[TrialRecord], **changes: object) -> Path:
        changes = {**PRINTS, "argv": ["probe", name], **changes}
        best = changes.pop("best", dataclasses.replace(recommendation, tied=[]))
        return make_run("probe", name=name, trials=trials, recommendation=best, **changes).path

    return make


@pytest.fixture
def train(make_run: MakeRun) -> Make:
    def make(name: str, walls_s: list[float], **changes: object) -> Path:
        epochs = [epoch_row(n + 1, wall_s=wall_s) for n, wall_s in enumerate(walls_s)]
        changes = {**PRINTS, "argv": ["train", name], "cell": THREAD, **changes}
        return make_run("train", name=name, epochs=epochs, **changes).path

    return make


def compared(base: Path, new: Path, threshold: float = 0.05) -> Comparison:
    return compare(read_contents(base), read_contents(new), threshold)


@pytest.mark.parametrize(
    ("factor", "verdict", "gate"),
    [
        (1.0, "indistinguishable", "passed"),
        (1.2, "slower", "regression"),
        (0.8, "faster", "passed"),
        (1.04, "slower", "inconclusive"),
        (1.06, "slower", "inconclusive"),
    ],
)
def test_a_probe_against_a_probe(probe: Make, factor: float, verdict: str, gate: str) -> None:
    found = compared(probe("a", thrice(THREAD, 11)), probe("b", thrice(THREAD, 11 * factor)))
    assert (found.verdict, found.gate) == (verdict, gate)
    (row,) = found.rows
    assert row.ratio is not None
    assert row.ratio.mean == pytest.approx(factor)
    assert (row.base_count, row.new_count) == (3, 3)


def test_one_launch_each_is_not_enough_to_pass_but_shows_a_large_regression(probe: Make) -> None:
    wide = {"step_s_low": 10.1, "step_s_high": 11.9}
    base = probe("a", [measured(THREAD, 11, **wide)])
    assert compared(base, probe("b", [measured(THREAD, 11, **wide)])).gate == "inconclusive"
    far = [measured(THREAD, 22, step_s_low=20.2, step_s_high=23.8)]
    assert compared(base, probe("c", far)).gate == "regression"


def test_the_threshold_decides_what_counts(probe: Make) -> None:
    base, new = probe("a", thrice(THREAD, 11)), probe("b", thrice(THREAD, 12.1))
    assert compared(base, new, 0.05).gate == "regression"
    assert compared(base, new, 0.2).gate == "passed"
    assert compared(base, new, 0.2).verdict == "slower"
    assert compared(base, new, 0.1).gate == "inconclusive"


def test_the_gate_goes_by_the_cell_that_the_base_recommends(probe: Make) -> None:
    wide = measured(BATCHES, 11, step_s_low=5, step_s_high=17)
    found = compared(
        probe("a", [*thrice(THREAD, 11), wide]), probe("b", [*thrice(THREAD, 11), wide])
    )
    assert found.gate == "passed"
    assert [row.base_cell for row in found.deciding] == [THREAD]
    assert len(found.rows) == 2


def test_a_regression_of_any_cell_is_one(probe: Make) -> None:
    base = probe("a", [*thrice(THREAD, 11), *thrice(BATCHES, 11)])
    new = probe("b", [*thrice(THREAD, 11), *thrice(BATCHES, 14)])
    found = compared(base, new)
    assert (found.verdict, found.gate) == ("slower", "regression")
    assert [row.base_cell for row in found.regressions] == [BATCHES]


def test_what_worked_and_fails_now_is_a_regression(probe: Make) -> None:
    base = probe("a", [*thrice(THREAD, 11), measured(ROWS, 12)])
    new = probe("b", [*thrice(THREAD, 11), trial(ROWS, verdict="deadlock", reason="x")])
    found = compared(base, new)
    assert (found.verdict, found.gate) == ("fails now", "regression")
    assert [row.detail for row in found.regressions] == ["deadlock"]
    back = compared(new, base)
    assert back.gate == "passed"
    assert "works now" in [row.verdict for row in back.rows]


def test_cells_that_were_only_predicted_or_not_run_are_not_compared(probe: Make) -> None:
    predicted = measured(BATCHES, 30, kind="predicted", verdict="skipped")
    skipped = trial(ROWS, verdict="skipped", reason="budget")
    base = probe("a", [*thrice(THREAD, 11), measured(BATCHES, 11), measured(ROWS, 11)])
    found = compared(base, probe("b", [*thrice(THREAD, 11), predicted, skipped]))
    assert found.gate == "passed"
    assert sorted(row.verdict for row in found.rows) == [
        "indistinguishable", "only in base", "only in base",
    ]  # fmt: skip


def test_another_machine_has_other_threads_and_a_caution(
    probe: Make, recommendation: Recommendation
) -> None:
    theirs = cell(loader="thread", threads=8)
    machine = {**ENVIRONMENT["machine"], "processor": "Other", "physical_cores": 8}
    new = probe(
        "b", thrice(theirs, 5), environment={**ENVIRONMENT, "machine": machine},
        best=dataclasses.replace(recommendation, cell=theirs),
    )  # fmt: skip
    found = compared(probe("a", thrice(THREAD, 11)), new)
    assert (found.verdict, found.gate) == ("faster", "passed")
    assert [(row.base_cell, row.new_cell) for row in found.rows] == [(THREAD, theirs)]
    assert any("The machines differ" in line for line in found.cautions)
    assert {"machine: processor", "machine: physical cores"} <= {c.what for c in found.changes}


def test_without_a_common_cell_the_recommended_ones_are_compared(
    probe: Make, recommendation: Recommendation
) -> None:
    best = dataclasses.replace(recommendation, cell=BATCHES)
    found = compared(probe("a", thrice(THREAD, 11)), probe("b", thrice(BATCHES, 15), best=best))
    assert [row.what for row in found.deciding] == ["best"]
    assert (found.verdict, found.gate) == ("slower", "regression")


def test_nothing_in_common_cannot_be_told(probe: Make) -> None:
    found = compared(probe("a", thrice(THREAD, 11)), probe("b", [], best=None))
    assert (found.verdict, found.gate) == ("not known", "inconclusive")


def test_a_run_against_its_own_copy_has_no_chance_in_it(probe: Make) -> None:
    base = probe("a", [measured(THREAD, 11, step_s_low=8, step_s_high=14)])
    found = compared(base, base)
    assert (found.verdict, found.gate) == ("indistinguishable", "passed")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"data_fingerprint": "other"}, "other data, fingerprint d"),
        ({"workload": WorkloadSpec(settings=encode(load_phase("phase1")))},
         r"other phase, phase3 against phase1 \(dropout 0.3 -> 0.2"),
        ({"workload": WorkloadSpec(target="/x/loop.py:make")}, "other workload, mdaf against"),
        ({"sizes": dataclasses.replace(SIZES, train_rows=5)}, "1,052,081 training rows against 5"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_refused_with_the_reason(
    probe: Make, changes: dict[str, object], reason: str
) -> None:
    base, new = probe("a", thrice(THREAD, 11)), probe("b", thrice(THREAD, 11), **changes)
    with pytest.raises(UsageError, match=f"not comparable: .*{reason}"):
        compared(base, new)


def test_a_probe_and_a_training_run_are_not_comparable(probe: Make, train: Make) -> None:
    with pytest.raises(UsageError, match="a probe and a train; name two of a kind"):
        compared(probe("a", thrice(THREAD, 11)), train("b", [100.0]))


def test_a_branch_has_its_workload_elsewhere_or_edited(probe: Make) -> None:
    base, new = (
        probe(name, thrice(THREAD, 11), data_fingerprint="", workload_fingerprint=name,
              workload=WorkloadSpec(target=f"/{name}/loop.py:make"))
        for name in ("main", "branch")
    )  # fmt: skip
    found = compared(base, new)
    assert found.gate == "passed"
    assert any("file is a different one, or it was changed" in line for line in found.cautions)
    assert any("cannot tell whether both used the same data" in line for line in found.cautions)


def test_epochs_and_seeds_of_a_phase_do_not_hinder(probe: Make) -> None:
    phase = dataclasses.replace(load_phase("phase3"), epochs=2, seed=1, name="mine")
    other = probe("b", thrice(THREAD, 11), workload=WorkloadSpec(settings=encode(phase)))
    found = compared(probe("a", thrice(THREAD, 11)), other)
    assert {"phase: epochs", "phase: seed", "phase: name"} <= {c.what for c in found.changes}


@pytest.mark.parametrize(
    ("factor", "verdict", "gate"),
    [(1.5, "slower", "regression"), (0.5, "faster", "passed"),
     (1.01, "indistinguishable", "inconclusive")],
)  # fmt: skip
def test_a_training_run_against_another(
    train: Make, factor: float, verdict: str, gate: str
) -> None:
    walls_s = [100.0, 101, 99, 100]
    base = train("a", [*walls_s, 5000.0])  # the fifth epoch is not common: it does not count
    found = compared(base, train("b", [w * factor for w in walls_s]))
    assert (found.verdict, found.gate) == (verdict, gate)
    (row,) = found.rows
    assert (row.base_s, row.base_count) == (pytest.approx(100.0), 4)


def test_a_training_run_that_broke_is_a_regression(train: Make) -> None:
    found = compared(train("a", [100.0]), train("b", [100.0], status="ended"))
    assert found.gate == "regression"
    found = compared(train("c", [100.0]), train("d", [], status="interrupted"))
    assert found.gate == "inconclusive"
    assert "The new run is not finished: interrupted." in found.cautions


# ---- the command ---------------------------------------------------------------------------------


def run_compare(base: Path, new: Path, **options: object) -> None:
    defaults = {"threshold": "5%", "other_runs": [], "list_runs": False, "as_json": False,
                "markdown": None, "html": None}  # fmt: skip
    compare_command(base, new, **{**defaults, **options})  # type: ignore[arg-type]


def test_exits_and_json(probe: Make, capsys: pytest.CaptureFixture[str]) -> None:
    base, slow = probe("a", thrice(THREAD, 11)), probe("b", thrice(THREAD, 14))
    unsure = probe("c", thrice(THREAD, 11.5))
    run_compare(base, base, as_json=True)
    document = json.loads(capsys.readouterr().out)["compare"]
    assert (document["gate"], document["exit_code"]) == ("passed", 0)
    with pytest.raises(RegressionError, match="beyond 5 % among 1 comparison; slower: "):
        run_compare(base, slow, as_json=True)
    document = json.loads(capsys.readouterr().out)["compare"]
    assert (document["gate"], document["verdict"], document["exit_code"]) == (
        "regression", "slower", 5,
    )  # fmt: skip
    (row,) = document["rows"]
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["ratio"] == pytest.approx(14 / 11)
    assert row["decides"]
    assert row["regression"]
    with pytest.raises(InconclusiveError, match="cannot tell: the interval reaches beyond 5 %"):
        run_compare(base, unsure)
    assert "Comparison of two probes" in capsys.readouterr().out
    assert (RegressionError.exit_code, InconclusiveError.exit_code) == (5, 3)


def test_the_report_of_a_comparison_can_be_written_to_files(
    train: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = train("a", [100.0, 101]), train("b", [50.0, 51])
    run_compare(base, new, markdown=tmp_path / "c.md", html=tmp_path / "c.html")
    assert "### Epoch by epoch" in (tmp_path / "c.md").read_text()
    assert "Comparison of two runs" in (tmp_path / "c.html").read_text()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "share"), [("5%", 0.05), (" 7.5 % ", 0.075), ("0.05", 0.05), ("0", 0), ("100%", 1)]
)
def test_thresholds(text: str, share: float) -> None:
    assert parse_threshold(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "-1%", "five", "", "%", "5%x", "nan", "inf%"])
def test_bad_thresholds(text: str) -> None:
    with pytest.raises(UsageError, match="is not a share; write for example 5%"):
        parse_threshold(text)


def test_wrong_use_of_compare(probe: Make, tmp_path: Path) -> None:
    base = probe("a", thrice(THREAD, 11))
    for options in ({"other_runs": [base]}, {"list_runs": True}):
        with pytest.raises(UsageError, match="takes two runs and nothing else"):
            run_compare(base, base, **options)
    with pytest.raises(UsageError, match="not a run folder"):
        run_compare(base, tmp_path)
    damaged = probe("b", thrice(THREAD, 11))
    (damaged / "run.json").write_text("{")
    with pytest.raises(UsageError, match="run.json: cannot be read"):
        run_compare(base, damaged)


def test_a_changed_argument_of_a_script_is_named(make_run: MakeRun) -> None:
    def run(name: str, *words: str) -> RunContents:
        script = ScriptSpec(command=["python", "train.py", *words], folder="/x")
        workload = WorkloadSpec(target="script", script=script)
        return read_contents(make_run("probe", name=name, workload=workload).path)

    found = changes(run("a", "--lr", "0.1"), run("b", "--lr", "0.2"))
    assert Change("command", "python train.py --lr 0.1", "python train.py --lr 0.2") in found
