import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrkit.core.config import RunSizes
from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.ctr.plugin import MdafPlugin
from ctrkit.report.charts.epochs_chart import curves_chart, times_chart
from ctrkit.report.charts.matrix_chart import grid_of, heat_map
from ctrkit.report.charts.projection_chart import parts_of_run, projection_chart, ranges_of
from ctrkit.report.charts.scales import cell_labels
from ctrkit.report.charts.steps_chart import (
    making_of,
    parts_of,
    stage_chart,
    stage_rows,
    step_chart,
    step_rows,
)
from ctrkit.report.charts.svg import TOKENS, Canvas, Chart, draw, fitting
from ctrkit.report.charts.timeline_chart import Step, bins_of, close_up, lanes_of, timeline_chart
from ctrkit.report.matrix_view import cell_results
from ctrkit.report.pictures import incident_epochs
from tests.unit.report.conftest import (
    BATCHES,
    ROWS,
    ROWS_0,
    SIZES,
    STAGES_S,
    THREAD,
    cell,
    epoch_row,
    measured,
    trial,
)

METRICS = MdafPlugin.metrics
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert(1)</script>"&\u202e\x07$x_1$ ' + "long" * 60


def parsed(svg: str) -> ET.Element:
    """The SVG as a browser's parser would see it, with its namespaces declared."""
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return ET.fromstring(svg.replace("<svg", f"<svg {names}", 1))


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()).strip() for element in parsed(svg).iter(f"{SVG}text")]


def a_chart(text: str, name: str = "x") -> Chart:
    def paint(width: float) -> Canvas:
        canvas = Canvas(width, 100)
        axes = canvas.panel(50, 10, width - 60, 60)
        axes.plot([0, 1], [0, 1], color=TOKENS["accent"])
        axes.text(0.5, 0.5, fitting(text, 400), color=TOKENS["bad"])
        return canvas

    return draw(name, paint, title="t", alt=text)


def test_an_svg_has_nothing_that_leads_outside_and_colours_of_the_page_only() -> None:
    for svg in (a_chart("plain").wide, a_chart("plain").narrow):
        assert "http" not in svg
        assert "<!" not in svg
        assert "<?" not in svg
        assert "metadata" not in svg
        assert set(re.findall(r"#[0-9a-f]{6}", svg)) <= {"#000000"}
        assert "var(--accent)" in svg
        assert "var(--bad)" in svg
        assert "DejaVu" not in svg


def test_ids_of_two_charts_in_one_page_never_meet() -> None:
    ids: list[str] = []
    for name in ("r0-a", "r1-a"):
        chart = a_chart("same", name)
        for svg in (chart.wide, chart.narrow):
            found = re.findall(r' id="([^"]+)"', svg)
            assert found
            assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(found)
            ids += found
    assert len(ids) == len(set(ids))


def test_hostile_text_is_text_in_an_svg() -> None:
    chart = a_chart(HOSTILE)
    for svg in (chart.wide, chart.narrow):
        root = parsed(svg)
        assert not list(root.iter(f"{SVG}script"))
        assert "\u202e" not in svg
        assert "\x07" not in svg
        shown = max(texts(svg), key=len)
        assert shown.startswith('<script>alert(1)</script>"&\\x202e\\x07$x_1$ long')
        assert shown.endswith("…")
        assert root.get("aria-label", "").startswith("<script>")


def test_the_user_s_own_matplotlib_settings_neither_matter_nor_change() -> None:
    import matplotlib

    plain = a_chart("x").wide
    with matplotlib.rc_context({"svg.fonttype": "path", "font.size": 30, "axes.grid": True}):
        assert a_chart("x").wide == plain
        assert matplotlib.rcParams["svg.fonttype"] == "path"


def test_the_heat_map_has_a_tile_for_every_cell(trials: list[TrialRecord]) -> None:
    results = cell_results(trials)
    grid = grid_of(results, THREAD)
    assert len(grid.tiles) == len(results)
    assert len({(tile.row, tile.column) for tile in grid.tiles}) == len(results)
    assert [tile.text for tile in grid.tiles if tile.best] == ["184"]
    failed = [tile for tile in grid.tiles if tile.failed]
    assert [(tile.text, tile.detail) for tile in failed] == [("deadlock", "")]
    assert sorted(t.text for t in grid.tiles if t.faint) == ["180", "refused", "skipped"]
    assert [column.split("\n")[0] for column in grid.columns] == ["0", "2", "2", "4"]


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 14))
def test_a_huge_matrix_says_what_found_no_room(rows: int, columns: int) -> None:
    cells = [cell(threads=t + 1, workers=w) for t in range(rows) for w in range(columns)]
    grid = grid_of(cell_results([measured(c, 1.0) for c in cells]), None)
    assert len(grid.tiles) + grid.left_out == len(cells)
    assert all(t.row < len(grid.rows) and t.column < len(grid.columns) for t in grid.tiles)


def test_the_heat_map_marks_what_failed(
    trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    chart = heat_map(trials, recommendation)
    assert chart is not None
    assert "✕ deadlock" in texts(chart.wide)
    assert "1 deadlock" in chart.alt
    assert THREAD.cell_id in chart.alt
    assert "failed" in [key.label for key in chart.keys]


def test_steps_have_intervals_launches_and_what_was_only_predicted(
    trials: list[TrialRecord],
) -> None:
    again = [*trials, measured(THREAD, 11.4, launch=9)]
    rows = {row.label: row for row in step_rows(again, THREAD.cell_id)}
    thread = next(row for row in rows.values() if row.best)
    assert thread.launches_s == (11.12, 11.4)
    assert thread.low_s < 11.12 < 11.4 < thread.high_s
    assert [row.measured for row in rows.values()].count(False) == 1
    chart = step_chart(again, THREAD.cell_id)
    assert chart is not None
    assert "11.3 s" in chart.alt
    assert any("ms" in text or "s" in text for text in texts(chart.wide))


def test_steps_that_differ_by_far_are_on_a_logarithmic_axis() -> None:
    chart = step_chart([measured(THREAD, 0.002), measured(ROWS_0, 283.0)], None)
    assert chart is not None
    ticks = [text for text in texts(chart.wide) if re.fullmatch(r"[\d.e+-]+ \S+", text)]
    assert len(ticks) >= 3


@given(
    st.floats(1e-6, 1e5), st.floats(0, 1),
    st.dictionaries(st.sampled_from(sorted(STAGES_S)), st.floats(0, 1e4)),
)  # fmt: skip
def test_the_parts_of_a_step_add_up_to_it(
    step_s: float, share: float, stage_s: dict[str, float]
) -> None:
    parts = parts_of(measured(THREAD, step_s, data_wait_share=share, stage_s=stage_s))
    assert sum(seconds for _, seconds in parts) == pytest.approx(step_s)
    assert parts[0][0] == "wait"
    assert all(seconds >= 0 for _, seconds in parts)


def test_stages_stand_beside_the_ceilings_of_the_same_cell(trials: list[TrialRecord]) -> None:
    rows = stage_rows(trials)
    assert [(row.compute_s, row.loader_s) for row in rows] == [(11.0, 0.02), (11.0, None)]
    chart = stage_chart(trials)
    assert chart is not None
    assert "backward 58 %" in chart.alt
    assert {"computing alone", "loading alone"} <= {key.label for key in chart.keys}
    other = cell(threads=1)
    beside = stage_rows([*trials, measured(other, 12.0, data_wait_share=0.1)])
    assert [row.compute_s for row in beside][-1] is None


def test_the_parts_of_a_run_add_up_to_the_projection(
    trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    parts = dict(parts_of_run(trials, recommendation, 15))
    assert sum(parts.values()) == pytest.approx(91_500.0)
    assert parts["validation"] == pytest.approx(15 * 400.0)
    assert parts_of_run([], Recommendation(cell=THREAD, reason=""), 15) == []
    ranges = ranges_of(trials, recommendation)
    assert (ranges[0].low_s, ranges[0].total_s, ranges[0].high_s) == (87_000, 91_500, 96_000)
    assert len(ranges) == 2
    chart = projection_chart(trials, recommendation, 15)
    assert chart is not None
    assert "1 d 1 h" in chart.alt
    assert projection_chart(trials, Recommendation(cell=THREAD, reason=""), 15) is None


def steps(count: int, wait_s: float = 0.2, work_s: float = 0.8) -> list[Step]:
    whole_s = wait_s + work_s
    return [
        Step(i * whole_s, i * whole_s + wait_s, (i + 1) * whole_s, "throughput")
        for i in range(count)
    ]


@given(st.integers(1, 60), st.floats(0, 3), st.floats(0.001, 3), st.integers(1, 300))
def test_slices_keep_every_second_of_waiting_and_working(
    count: int, wait_s: float, work_s: float, slices: int
) -> None:
    made = steps(count, wait_s, work_s)
    bins = bins_of(made, slices)
    width_s = (made[-1].done_s - made[0].asked_s) / slices
    assert sum(b.wait for b in bins) * width_s == pytest.approx(count * wait_s, abs=1e-6)
    assert sum(b.work for b in bins) * width_s == pytest.approx(count * work_s, abs=1e-6)


def test_the_close_up_is_around_the_longest_step() -> None:
    made = steps(200)
    late = made[:150] + [
        Step(s.asked_s + 9, s.delivered_s + 9, s.done_s + 9, s.window) for s in made[150:]
    ]
    late[150] = Step(150.0, 159.2, 160.0, "throughput")
    near = close_up(late)
    assert len(near) == 24
    assert late[150] in near
    assert close_up(made[:5]) == made[:5]


def test_a_lane_per_worker_where_the_stamps_tell_it() -> None:
    plain = steps(6)
    assert [name for name, _ in lanes_of(plain, plain)] == ["data wait", "step"]
    told = [Step(s.asked_s, s.delivered_s, s.done_s, s.window, i % 2) for i, s in enumerate(plain)]
    lanes = lanes_of(told, told)
    assert [name for name, _ in lanes] == ["worker 0", "worker 1", "the loop"]
    assert [len(bars) for _, bars in lanes] == [3, 3, 12]


def test_a_worker_s_lane_has_what_it_did_and_gaps_between() -> None:
    """Two workers, one batch ahead: a worker is idle from sending a batch to its next one."""
    made = [
        Step(i, i + 0.1, i + 1.0, "throughput", i % 2, (i - 1.5, i - 0.9, i - 0.8, i - 0.7))
        for i in range(10)
    ]
    near = made[4:8]
    lanes = dict(lanes_of(made, near))
    begin_s, end_s = near[0].asked_s, near[-1].done_s
    assert all(begin_s <= a <= b <= end_s for bars in lanes.values() for _, a, b in bars)
    # batches 6 and 8 whole, 10 is not there; of batch 4 nothing is left by then
    assert lanes["worker 0"] == [
        ("fetch", 4.5, 5.1), ("collate", 5.1, 5.2), ("ipc", 5.2, 5.3),
        ("fetch", 6.5, 7.1), ("collate", 7.1, 7.2), ("ipc", 7.2, 7.3),
    ]  # fmt: skip
    assert [token for token, _, _ in lanes["worker 1"]][:3] == ["fetch", "collate", "ipc"]
    chart = timeline_chart("t", "two workers", made)
    assert chart is not None
    labels = [key.label for key in chart.keys]
    assert labels == [
        "waiting for data", "the step itself", "fetching samples", "collating",
        "pickling and sending", "nothing to do",
    ]  # fmt: skip
    assert {"worker 0", "worker 1", "the loop"} <= set(texts(chart.wide))


def test_a_loop_that_loads_itself_has_a_lane_of_loading() -> None:
    made = [Step(i, i + 0.5, i + 1.0, "throughput", None, (i, i + 0.4, i + 0.5)) for i in range(4)]
    lanes = dict(lanes_of(made, made))
    assert list(lanes) == ["loading", "the loop"]
    assert [token for token, _, _ in lanes["loading"]] == ["fetch", "collate"] * 4


def test_a_timeline_of_a_long_trial_stays_small() -> None:
    made = steps(20_000, 0.001, 0.001)
    chart = timeline_chart("t", "many", made)
    assert chart is not None
    assert len(chart.wide) + len(chart.narrow) < 60_000
    assert "20,000 batches" in chart.alt
    assert "50 % of the measured time" in chart.alt
    assert timeline_chart("t", "none", []) is None
    backwards = [Step(3.0, 2.0, 1.0, "throughput")]
    assert timeline_chart("t", "damaged", backwards) is None


def test_curves_beside_known_epochs() -> None:
    rows = [epoch_row(1), epoch_row(2), epoch_row(3, val_auc=float("nan"))]
    rows[2]["val_auc"] = None
    chart = curves_chart(rows, METRICS, MdafPlugin.known_epochs, [2.0])
    assert chart is not None
    assert {"Loss, as optimised", "AUC", "Gate mean"} <= set(texts(chart.wide))
    assert "val auc from 0.5700 to 0.5800" in chart.alt
    labels = [key.label for key in chart.keys]
    assert "◇ phase1, known: epoch 1" in labels
    assert "incident" in labels
    empty = dict.fromkeys(rows[0]) | {"epoch": 1.0}
    assert curves_chart([empty], METRICS, (), []) is None


def test_times_beside_the_projection(recommendation: Recommendation) -> None:
    rows = [epoch_row(1), epoch_row(2, wall_s=9000.0), epoch_row(3, rows=10)]
    chart = times_chart(rows, recommendation, SIZES, [])
    assert chart is not None
    labels = [key.label for key in chart.keys]
    assert labels[:3] == ["an epoch", "longer than projected", "cut, not a whole epoch"]
    assert "Projected: 1 h 42 min" in chart.alt
    alone = times_chart(rows[:1], None, None, [])
    assert alone is not None
    assert "Nothing was projected" in alone.alt
    assert times_chart([], recommendation, RunSizes(epochs=1), []) is None


def test_incidents_that_tell_their_epoch_are_marked() -> None:
    found = incident_epochs([{"epoch": 2}, {"epoch": "x"}, {}, {"epoch": 0}, {"epoch": True}])
    assert found == [2.0]


def test_labels_say_only_what_differs() -> None:
    assert cell_labels([THREAD, BATCHES]) == [
        "thread, no workers", "batches, 2 workers, spawn, prefetch 2",
    ]  # fmt: skip
    assert cell_labels([ROWS]) == ["cpu, rows, 4 workers"]


@pytest.mark.parametrize(
    "make", [lambda t: heat_map(t, None), lambda t: step_chart(t, None), stage_chart]
)
def test_charts_of_nothing_are_none(
    make: Callable[[list[TrialRecord]], Chart | None],
) -> None:
    assert make([]) is None
    assert stage_chart([trial(THREAD, verdict="deadlock")]) is None


def test_a_wait_for_the_loop_s_own_loading_is_cut_into_it() -> None:
    stage_s = {"fetch": 0.3, "collate": 0.1, "forward": 0.4, "backward": 0.2}
    own = measured(ROWS_0, 1.0, data_wait_share=0.5, stage_s=stage_s)
    assert dict(parts_of(own)) == pytest.approx(
        {"fetch": 0.3, "collate": 0.1, "wait": 0.1, "forward": 1 / 3, "backward": 1 / 6}
    )
    # other steps than those of the wait: they are cut to it
    less = measured(ROWS_0, 1.0, data_wait_share=0.2, stage_s=stage_s)
    assert dict(parts_of(less))["fetch"] == pytest.approx(0.15)
    for loader in (THREAD, BATCHES):  # made beside the loop, not in it
        parts = dict(parts_of(measured(loader, 1.0, data_wait_share=0.5, stage_s=stage_s)))
        assert "fetch" not in parts
        assert parts["wait"] == pytest.approx(0.5)


def test_what_workers_spend_on_a_batch_stands_under_the_step() -> None:
    stage_s = {"fetch": 1.6, "collate": 0.2, "ipc": 0.2, "forward": 0.4}
    record = measured(BATCHES, 1.0, data_wait_share=0.6, stage_s=stage_s)
    assert dict(making_of(record)) == {"fetch": 0.8, "collate": 0.1, "ipc": 0.1}
    assert making_of(measured(ROWS_0, 1.0, stage_s=stage_s)) == ()
    chart = stage_chart([record])
    assert chart is not None
    assert {"fetch", "collate", "ipc"} <= {key.label for key in chart.keys}
    assert "workers' fetch 800 ms" in chart.alt


def test_a_loop_that_only_takes_batches_has_no_chart_of_stages() -> None:
    assert stage_chart([measured(ROWS_0, 1.0, data_wait_share=1.0)]) is None


def test_what_was_only_predicted_sets_no_scale() -> None:
    results = cell_results([
        measured(THREAD, 10.0), measured(BATCHES, 5.0, kind="predicted", verdict="skipped"),
    ])  # fmt: skip
    heats = {tile.text: tile.heat for tile in grid_of(results, THREAD).tiles}
    assert heats == {"205": "heat-4", "410": "heat-4"}
