import dataclasses
from dataclasses import dataclass

from ctrkit.core.config import Cell
from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.report.charts.matrix_chart import heat_map
from ctrkit.report.charts.scales import cell_labels
from ctrkit.report.matrix_view import (
    cell_results,
    failure_lines,
    matrix_table,
    not_run_lines,
    varying_axes,
)
from ctrkit.report.words import cell_words
from tests.unit.report.conftest import BATCHES, ROWS, ROWS_0, THREAD, cell, measured, trial


def test_a_real_launch_beats_a_prediction_whatever_the_order() -> None:
    predicted = measured(THREAD, 9.0, kind="predicted", verdict="skipped")
    ran = measured(THREAD, 11.0)
    for records in ([predicted, ran], [ran, predicted]):
        (result,) = cell_results(records)
        assert (result.record.step_s, result.verdict) == (11.0, "ok")


def test_several_launches_are_their_mean_with_the_interval_of_that_mean() -> None:
    def of(*steps_s: float) -> TrialRecord:
        records = [measured(THREAD, step_s, launch=i) for i, step_s in enumerate(steps_s, start=1)]
        (result,) = cell_results(records)
        return result.record

    def half(*steps_s: float) -> float:
        record = of(*steps_s)
        assert record.step_s_high is not None
        assert record.step_s is not None
        return record.step_s_high - record.step_s

    assert of(10.0, 12.0).step_s == 11.0
    # more launches that agree make it narrower, and launches that differ wider
    assert half(10.0, 10.1, 9.9) < half(10.0, 10.1)
    assert half(10.0, 14.0) > half(10.0, 10.1)


def test_a_launch_that_failed_is_not_hidden_by_one_that_did_not() -> None:
    records = [measured(ROWS, 11.0), trial(ROWS, verdict="deadlock"), measured(ROWS, 11.2)]
    (result,) = cell_results(records)
    assert (result.verdict, result.failed) == ("deadlock 1/3", True)
    table = matrix_table(records)
    assert "11.1 s ±0.2" in table.rows[0]
    assert table.tones == ("bad",)


def test_ceilings_are_no_cells_but_their_failures_are() -> None:
    assert cell_results([trial(THREAD, kind="compute", step_s=1.0)]) == []
    (result,) = cell_results([trial(ROWS, kind="loader", verdict="deadlock")])
    assert result.verdict == "deadlock"


def test_order_fastest_then_predicted_then_failed_then_not_run(trials: list[TrialRecord]) -> None:
    verdicts = [result.verdict for result in cell_results(trials)]
    assert verdicts == ["ok", "ok", "predicted", "deadlock", "refused", "skipped"]


def test_the_table_has_only_axes_that_vary(
    trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    assert varying_axes([THREAD, BATCHES]) == ["loader", "workers", "start_method", "prefetch"]
    table = matrix_table(trials, recommendation)
    assert [c.name for c in table.columns] == [
        "device", "loader", "workers", "start", "prefetch", "verdict", "a step", "rows/s",
        "data wait", "whole run",
    ]  # fmt: skip
    assert table.rows[0] == (
        "cpu", "thread", "0", "", "", "ok (best)", "11.1 s ±0.3", "184", "0.4 %", "1 d 1 h",
    )  # fmt: skip
    assert table.rows[1][5] == "ok (tied)"


def test_many_cells_that_were_not_run_are_not_in_the_table(trials: list[TrialRecord]) -> None:
    """The list below the table has them with their reasons."""
    few = [trial(cell(workers=n), launch=0, verdict="skipped") for n in range(1, 5)]
    more = [trial(cell(workers=n), launch=0, verdict="skipped") for n in range(5, 9)]
    assert len(matrix_table([*trials, *few]).rows) == len(cell_results(trials)) + 4
    shown = {text for row in matrix_table([*trials, *few, *more]).rows for text in row}
    assert "predicted" in shown
    assert not {"skipped", "refused"} & shown
    assert any("5 more" in line for line in not_run_lines([*few, *more]))


def test_one_cell_alone_is_named_and_a_step_without_projection_ranks_by_rate() -> None:
    slow, fast = trial(THREAD, rows_per_s=10.0), trial(ROWS_0, rows_per_s=20.0)
    assert [r.record for r in cell_results([slow, fast])] == [fast, slow]
    assert matrix_table([slow]).rows[0][:2] == ("cpu", "thread")
    assert "whole run" not in [c.name for c in matrix_table([slow]).columns]


def test_failures_say_why_and_where_the_evidence_is(trials: list[TrialRecord]) -> None:
    assert failure_lines(trials) == [
        "cpu-rows-w4-fork-p2-t2-b2048: deadlock. 4 workers wait for a lock that nobody holds. "
        "Evidence: evidence/7-cpu-rows-w4-fork-p2-t2-b2048"
    ]
    alone = failure_lines([trial(ROWS, kind="loader", verdict="crashed")])
    assert alone == [
        "cpu-rows-w4-fork-p2-t2-b2048 (loader alone): crashed. No reason was recorded."
    ]


def test_cells_not_run_are_grouped_by_reason() -> None:
    records = [
        trial(cell(workers=n, loader="rows"), verdict="skipped", reason="budget")
        for n in (1, 2, 3, 4, 5)
    ]
    (line,) = not_run_lines(records)
    assert line.startswith("skipped: cpu-rows-w1-")
    assert line.endswith(" and 2 more. Budget.")


def test_a_launch_that_the_budget_cut_after_some_steps_beats_a_prediction() -> None:
    predicted = measured(THREAD, 9.0, kind="predicted", verdict="skipped")
    cut = measured(THREAD, 11.0, verdict="skipped", reason="budget")
    (result,) = cell_results([predicted, cut])
    assert (result.record.step_s, result.verdict, result.failed) == (11.0, "cut short", False)
    assert not_run_lines([cut]) == []


@dataclass(frozen=True, kw_only=True)
class Wider(Cell):
    """A cell with axes that the report has no words for."""

    layout: str = "rows"
    fused: bool = False
    depth: int = 1


def test_axes_that_are_added_show_where_they_vary() -> None:
    cells = [Wider(), Wider(layout="columns", fused=True)]
    trials = [
        dataclasses.replace(measured(one, 1.0 + i), cell_id=f"c{i}") for i, one in enumerate(cells)
    ]
    table = matrix_table(trials)
    assert [column.name for column in table.columns][:2] == ["layout", "fused"]
    assert [row[:2] for row in table.rows] == [("rows", "no"), ("columns", "yes")]
    assert cell_labels(cells) == ["rows, no fused", "columns, fused"]
    assert cell_words(cells[1]).endswith("batch 2,048, columns, fused")
    assert cell_words(Wider(depth=3)).endswith("batch 2,048, depth 3")
    chart = heat_map(trials, None)
    assert chart is not None
    assert "columns fused yes" in chart.wide
