import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrkit.core.checkup import MachineLimits
from ctrkit.core.config import RunSizes, WindowPlan, make_cell
from ctrkit.core.errors import InconclusiveError, NoViableCellError
from ctrkit.probe.hazards.facts import known_facts
from ctrkit.probe.matrix import build_matrix
from ctrkit.probe.recommend import recommend
from ctrkit.probe.search import run_search
from ctrkit.probe.trials import Trial, TrialRequest


def rows_of(result):
    return {record.cell_id for record in result.records}


def full_cells(machine):
    return [r.cell.cell_id for r in machine.requests if r.kind == "full"]


def test_every_cell_gets_a_row_and_only_what_ran_is_recommended(machine, inspection):
    fast = machine()
    result = fast.search()
    assert rows_of(result) == {cell.cell_id for cell in result.plan.cells}
    chosen = recommend(result, inspection()).cell
    assert chosen.cell_id in full_cells(fast)
    assert fast.spent_s <= 120 * 1.1


def test_the_order_is_step_then_loaders_then_both_together(machine):
    fast = machine()
    fast.search()
    order = {"compute": 0, "loader": 1, "full": 2}
    kinds = [order[kind] for kind in fast.kinds()]
    assert kinds == sorted(kinds)
    assert fast.kinds().count("compute") == 1
    assert fast.kinds().count("full") >= 2


def test_every_record_is_handed_over_as_it_is_known(machine):
    fast = machine()
    result = fast.search()
    assert tuple(record for record, _ in fast.rows) == result.records
    launched = [trial for _, trial in fast.rows if trial is not None]
    assert tuple(launched) == result.trials
    assert len(launched) == len(fast.requests)


def test_predicted_rows_have_numbers_and_say_that_they_were_not_run(machine):
    result = machine().search()
    predicted = [r for r in result.records if r.kind == "predicted"]
    assert predicted
    for record in predicted:
        assert record.verdict == "skipped"
        assert record.step_s_low < record.step_s < record.step_s_high
        assert record.projected_total_s > record.projected_epoch_s > 0


def test_a_slow_machine_answers_in_time_from_a_real_run(machine, inspection):
    slow = machine(step_s={"cpu": 10.0}, launch_s=5.0)
    result = slow.search()
    recommendation = recommend(result, inspection())
    assert slow.spent_s <= 120 * 1.1
    assert recommendation.cell.workers == 0
    assert recommendation.cell.cell_id in full_cells(slow)
    launches = result.launches(recommendation.cell)
    assert launches[0].throughput_steps >= 2
    assert launches[0].restart_s is not None
    assert recommendation.projected_total_s == pytest.approx(
        15 * (514 * 10 + 111 * 10 / 3), rel=0.02
    )
    assert "provisional" in recommendation.flags


@settings(max_examples=60, deadline=None)
@given(
    step_s=st.floats(0.002, 20),
    launch_s=st.floats(1, 9),
    rows_s=st.floats(0.001, 2),
    budget_s=st.floats(30, 400),
)
def test_the_budget_is_kept_whatever_the_machine(machine, step_s, launch_s, rows_s, budget_s):
    any_machine = machine(
        step_s={"cpu": step_s},
        launch_s=launch_s,
        fetch_s={"rows": rows_s, "batches": rows_s / 9, "thread": rows_s / 9, "resident": 0.001},
    )
    result = any_machine.search(budget_s=budget_s)
    assert any_machine.spent_s <= budget_s * 1.1
    assert rows_of(result) == {cell.cell_id for cell in result.plan.cells}


@settings(max_examples=40, deadline=None)
@given(
    step_s=st.floats(0.005, 2),
    rows_s=st.floats(0.01, 3),
    batches_s=st.floats(0.005, 1),
)
def test_what_is_recommended_is_near_the_best_there_is(
    machine, inspection, step_s, rows_s, batches_s
):
    fetch_s = {"rows": rows_s, "batches": batches_s, "thread": batches_s, "resident": batches_s}
    some = machine(step_s={"cpu": step_s}, fetch_s=fetch_s)
    result = some.search()
    chosen = recommend(result, inspection()).cell
    truth = {cell: some.epoch_s(cell) for cell in result.plan.cells}
    assert truth[chosen] <= min(truth.values()) * 1.05


def test_workers_that_pay_are_found(machine, inspection):
    bound = machine(
        cores=8,
        step_s={"cpu": 0.05},
        fetch_s={"rows": 0.4, "batches": 0.2, "thread": 0.2, "resident": 9.0},
    )
    result = bound.search(axes={"workers": (0, 2, 4)})
    recommendation = recommend(result, inspection())
    assert recommendation.cell.loader == "batches"
    assert recommendation.cell.workers == 4
    assert recommendation.runner_up is not None


def test_a_deadlocking_loader_is_one_row_and_the_matrix_goes_on(machine, inspection):
    hung = machine(ends={"cpu-batches-w0-t2-b2048": "deadlock"})
    result = hung.search()
    verdicts = {r.cell_id: r.verdict for r in result.records if r.kind in ("loader", "full")}
    assert verdicts["cpu-batches-w0-t2-b2048"] == "deadlock"
    assert rows_of(result) == {cell.cell_id for cell in result.plan.cells}
    assert recommend(result, inspection()).cell.loader != "batches"


def test_a_cell_that_hangs_only_with_the_step_is_left_for_the_next(machine, inspection):
    ends = {"full:cpu-thread-w0-t2-b2048": "deadlock"}
    hung = machine(ends=ends, hang_s=30.0)
    result = hung.search()
    assert full_cells(hung).count("cpu-thread-w0-t2-b2048") == 1
    assert recommend(result, inspection()).cell.cell_id != "cpu-thread-w0-t2-b2048"


def test_a_hang_may_outlast_the_budget_and_the_rest_is_skipped(machine, inspection):
    hung = machine(ends={"loader:cpu-thread-w0-t2-b2048": "deadlock"}, hang_s=300.0)
    result = hung.search()
    assert hung.requests[-1].kind == "loader", "nothing is launched after the budget is gone"
    skipped = [r for r in result.records if r.verdict == "skipped"]
    assert len(skipped) == len(result.plan.cells) - 1
    with pytest.raises(InconclusiveError, match="deadlock"):
        recommend(result, inspection())


def test_when_everything_fails_the_reasons_are_given(machine, inspection):
    broken = machine(ends={"compute": "out-of-memory"})
    result = broken.search()
    assert broken.kinds() == ["compute"]
    assert rows_of(result) == {cell.cell_id for cell in result.plan.cells}
    others = [r for r in result.records if r.verdict == "skipped"]
    assert all("training step, run alone, failed (out-of-memory)" in r.reason for r in others)
    with pytest.raises(NoViableCellError, match="out-of-memory"):
        recommend(result, inspection())


def test_a_device_that_fails_leaves_the_other_one(machine, inspection):
    ends = {f"compute:mps-{loader}-w0-t2-b2048": "crashed" for loader in ("thread", "rows")}
    two = machine(step_s={"mps": 0.1, "cpu": 1.0}, ends=ends)
    result = two.search()
    assert recommend(result, inspection(devices=["mps", "cpu"])).cell.device == "cpu"
    assert not any(r.kind == "full" and r.cell.device == "mps" for r in two.requests)


def test_the_faster_device_wins_and_the_other_is_an_option(machine, inspection):
    two = machine(step_s={"mps": 0.2, "cpu": 2.0})
    recommendation = recommend(two.search(), inspection(devices=["mps", "cpu"]))
    assert recommendation.cell.device == "mps"
    (option,) = [o for o in recommendation.options if "on cpu instead" in o.text]
    assert option.projected_total_s > 5 * recommendation.projected_total_s


@pytest.mark.parametrize("budget_s", [5.0, 12.0, 20.0])
def test_a_tiny_budget_tries_the_simplest_cell_at_once(machine, inspection, budget_s):
    fast = machine(launch_s=2.0)
    result = fast.search(budget_s=budget_s)
    assert set(fast.kinds()) == {"full"}
    assert fast.requests[0].cell.loader == "thread"
    assert fast.spent_s <= budget_s * 1.1
    assert recommend(result, inspection()).cell.loader == "thread"


def test_a_budget_too_small_for_anything_is_inconclusive(machine, inspection):
    slow = machine(step_s={"cpu": 60.0})
    result = slow.search(budget_s=30.0)
    assert slow.spent_s <= 33
    with pytest.raises(InconclusiveError, match="--budget"):
        recommend(result, inspection())


def test_an_interrupt_stops_at_once_and_keeps_what_was_measured(machine):
    stopped = machine(interrupt_at=3)
    result = stopped.search()
    assert result.interrupted
    assert len(stopped.requests) == 3
    assert len(result.trials) == 3
    assert rows_of(result) == {cell.cell_id for cell in result.plan.cells}


def test_an_interrupt_during_the_finals_still_recommends(machine, inspection):
    counted = machine()
    counted.search()
    stopped = machine(interrupt_at=len(counted.requests))
    result = stopped.search()
    assert result.interrupted
    assert recommend(result, inspection()).cell.cell_id in full_cells(stopped)


def test_thorough_really_runs_every_cell_whatever_it_takes(machine):
    slow = machine(step_s={"cpu": 5.0})
    result = slow.search(thorough=True, budget_s=60.0)
    assert set(full_cells(slow)) == {cell.cell_id for cell in result.plan.cells}
    assert all(r.verdict == "ok" for r in result.records)


def test_refused_cells_come_first_and_are_not_launched(machine):
    refused = machine(step_s={"mps": 0.1})
    result = refused.search(axes={"start_method": ("fork", "spawn")})
    assert result.records[0].verdict == "refused"
    assert "hang" in result.records[0].reason
    assert all(r.cell.start_method != "fork" for r in refused.requests)


def test_launches_of_a_cell_are_numbered_and_interleaved(machine):
    fast = machine(launch_s=1.0)
    result = fast.search(budget_s=200)
    full = [r for r in result.records if r.kind == "full"]
    by_cell = {}
    for record in full:
        by_cell.setdefault(record.cell_id, []).append(record.launch)
    assert all(n == list(range(1, len(n) + 1)) for n in by_cell.values())
    assert max(map(len, by_cell.values())) > 1
    first, second = list(by_cell)[:2]
    assert [r.cell_id for r in full][:3] == [first, second, second]


def test_what_does_not_matter_to_a_loader_is_not_measured_twice(machine):
    two = machine(step_s={"mps": 0.1, "cpu": 0.2})
    two.search(axes={"workers": (0,), "loader": ("batches", "resident")})
    alone = [r.cell for r in two.requests if r.kind == "loader"]
    assert sorted(c.loader for c in alone) == ["batches", "resident", "resident"]


def test_workers_are_not_measured_where_they_cannot_gain(machine):
    compute_bound = machine(step_s={"cpu": 3.0})
    compute_bound.search()
    assert all(r.cell.workers == 0 for r in compute_bound.requests if r.kind == "loader")


def only_loader(inspection, **changes):
    values = {
        "loaders": ["custom"], "axes": ["workers", "start_method", "batch_size"],
        "has_task": False, "workload_name": "loader.py:make_loader",
        "sizes": RunSizes(epochs=1, train_batches=400),
    }  # fmt: skip
    return inspection(**(values | changes))


def test_a_loader_alone_is_run_in_every_cell(machine, inspection):
    loader = machine(cores=8, step_s={"cpu": 0.0}, fetch_s={"custom": 0.2})
    asked = only_loader(inspection)
    result = loader.search(asked, axes={"workers": (0, 1, 2, 4)})
    assert set(loader.kinds()) == {"full"}
    assert set(full_cells(loader)) == {cell.cell_id for cell in result.plan.cells}
    assert loader.spent_s <= 132
    assert len(full_cells(loader)) > 4, "the best is launched again"
    recommendation = recommend(result, asked)
    assert recommendation.cell.workers == 4
    assert recommendation.dataloader_kwargs["num_workers"] == 4


def test_a_fork_that_deadlocks_does_not_stop_the_matrix(machine, inspection):
    ends = {"cpu-custom-w2-fork-p2-t2-b2048": "deadlock"}
    hung = machine(step_s={"cpu": 0.0}, fetch_s={"custom": 0.05}, ends=ends, hang_s=40)
    asked = only_loader(inspection)
    result = hung.search(asked, axes={"workers": (0, 2), "start_method": ("fork", "spawn")})
    verdicts = [r.verdict for r in result.records if r.kind == "full"]
    assert verdicts.count("deadlock") == 1
    assert hung.requests[2].cell.start_method == "fork", "what is safe comes first"
    assert recommend(result, asked).cell.start_method != "fork"


def test_an_endless_loader_is_ranked_by_rows_per_second(machine, inspection):
    endless = machine(cores=8, step_s={"cpu": 0.0}, fetch_s={"custom": 0.2}, endless=True)
    asked = only_loader(inspection, sizes=None)
    recommendation = recommend(endless.search(asked, axes={"workers": (0, 4)}), asked)
    assert recommendation.cell.workers == 4
    assert recommendation.projected_total_s is None
    assert recommendation.projected_epoch_s is None
    assert recommendation.options == []
    assert any(finding.stage == "epoch" for finding in recommendation.findings)


def test_a_matrix_too_large_for_the_budget_still_has_all_its_rows(machine, inspection):
    many = machine(cores=8, step_s={"cpu": 0.0}, fetch_s={"custom": 0.2})
    asked = only_loader(inspection)
    result = many.search(asked, axes={"workers": tuple(range(40))}, budget_s=60)
    assert many.spent_s <= 66
    assert rows_of(result) == {cell.cell_id for cell in result.plan.cells}
    assert any("budget" in r.reason for r in result.records if r.verdict == "skipped")


def test_deadlines_lie_within_the_budget(machine, inspection):
    seen = []

    fast = machine()
    real = fast.launch

    def launch(request, deadline_s):
        seen.append(deadline_s)
        return real(request, deadline_s)

    fast.launch = launch
    fast.search()
    assert max(seen) <= 1000 + 120
    fast.search(thorough=True)
    assert seen[-1] == math.inf


def test_the_winner_is_launched_again_and_projected_from_these_launches(machine, inspection):
    fast = machine(launch_s=1.0)
    result = fast.search(budget_s=300)
    chosen = recommend(result, inspection()).cell
    confirming = [t for t in result.trials if t.request.confirms]
    assert {t.cell for t in confirming} == {chosen}
    others = [t for t in result.trials if t.request.kind == "full" and t.cell != chosen]
    assert others
    assert len(confirming) == 2


def test_a_lone_cell_needs_no_confirming(machine):
    fast = machine(launch_s=1.0)
    result = fast.search(axes={"loader": ("thread",)})
    full = [t for t in result.trials if t.request.kind == "full"]
    assert len(full) == 3
    assert not any(t.request.confirms for t in full)


def test_the_cell_that_ran_first_runs_last(machine):
    # the one predicted to be best turns out to be slow beside its step
    slow = machine(launch_s=1.0)
    real = slow.step_of
    slow.step_of = lambda kind, cell: (
        (0.9, 0.0) if kind == "full" and cell.loader == "thread" else real(kind, cell)
    )
    result = slow.search(budget_s=300)
    full = full_cells(slow)
    assert full[0] != full[1]
    assert full[-1] == full[0]
    assert not any("drift" in p.flags for p in (r for r in result.records))


def test_a_machine_that_slows_down_is_flagged(machine, inspection):
    slow = machine(launch_s=1.0)
    real = slow.step_of

    def slower(kind, cell):
        step_s, wait_s = real(kind, cell)
        pace = 1 + slow.spent_s / 1000
        return step_s * pace, wait_s * pace

    slow.step_of = slower
    result = slow.search(budget_s=300)
    assert "drift" in recommend(result, inspection()).flags


def test_what_would_not_fit_is_refused_and_the_rest_goes_on(machine, inspection):
    known = inspection()
    small = machine(
        cores=8, step_s={"cpu": 0.02},
        fetch_s={"rows": 0.4, "batches": 0.4, "thread": 0.4, "resident": 0.4},
    )  # fmt: skip
    facts = known_facts(known, MachineLimits(memory_bytes=8 * 10**9))
    plan = build_matrix(known, {"loader": ("batches",), "workers": (0, 2, 7, 8)}, facts=facts)
    result = run_search(
        plan, known, launch=small.launch, clock=small.clock, budget_s=300.0, cores=8
    )  # a worker takes 1 GB in the simulated machine
    refused = [r for r in result.records if r.verdict == "refused"]
    assert [r.cell.workers for r in refused] == [7, 8]
    assert all("8 GB" in r.reason for r in refused)
    assert {r.cell.workers for r in small.requests if r.kind == "full"} <= {0, 2}
    assert recommend(result, known).cell.workers == 2
    assert len({r.cell_id for r in result.records}) == 4


def test_a_batch_that_ran_out_of_memory_keeps_larger_ones_from_being_tried(machine, inspection):
    axes = {"loader": ("thread",), "batch_size": (512, 1024, 2048, 4096)}
    ends = {"compute:cpu-thread-w0-t2-b1024": "out-of-memory"}
    small = machine(launch_s=1.0, ends=ends)
    result = small.search(axes=axes)
    assert {r.cell.batch_size for r in small.requests} == {512, 1024}
    refused = [r for r in result.records if r.verdict == "refused"]
    assert [r.cell.batch_size for r in refused] == [2048, 4096]
    assert recommend(result, inspection()).cell.batch_size == 512


def test_two_cells_that_are_the_same_are_seldom_called_different(machine_bench):
    told = [machine_bench.null_once("queue", seed) for seed in range(25)]
    both = [different for different in told if different is not None]
    assert len(both) >= 15
    assert sum(both) <= 0.05 * len(both) + 1


@pytest.mark.parametrize("form", ["queue", "smooth"])
def test_a_sixth_of_the_cost_finds_a_cell_near_the_best(machine_bench, form):
    rows = [machine_bench.search_once(form, seed) for seed in range(6)]
    assert all(row["share"] <= 0.16 for row in rows)
    regrets = sorted(row["regret"] for row in rows)
    assert sum(regrets) / len(regrets) <= 0.06
    assert regrets[len(regrets) // 2] <= 0.02


def test_more_workers_than_cores_are_tried_where_the_loader_waits(machine, inspection):
    axes = {"loader": ("rows",)}
    waiting = machine(fetch_s={"rows": 2.0}, waiting=frozenset({"rows"}))
    found = waiting.search(axes=axes)
    assert {cell.workers for cell in found.plan.cells} == {0, 2, 4, 8}
    recommendation = recommend(found, inspection())
    assert recommendation.cell.workers == 8
    busy = machine(fetch_s={"rows": 2.0})
    found = busy.search(axes=axes)
    assert {cell.workers for cell in found.plan.cells} == {0, 2}
    assert rows_of(found) == {cell.cell_id for cell in found.plan.cells}


def test_workers_that_were_named_are_all_that_is_tried(machine, inspection, monkeypatch):
    monkeypatch.setattr("ctrkit.probe.findings.physical_cores", lambda: 2)
    waiting = machine(fetch_s={"rows": 2.0}, waiting=frozenset({"rows"}))
    found = waiting.search(axes={"loader": ("rows",), "workers": (0, 2)})
    assert {cell.workers for cell in found.plan.cells} == {0, 2}
    stages = [finding.stage for finding in recommend(found, inspection()).findings]
    assert "workers" in stages, "more would help, and that is said"


def test_a_script_without_a_loader_has_no_ceilings_to_measure(machine, inspection):
    """What would be served and drained are its loader's batches."""
    bare = machine(fetch_s={"none": 0.0})
    cells = [make_cell("test", loader="none", batch_size=n) for n in (2048, 4096)]
    plan = replace(build_matrix(inspection(), {"loader": ("rows",)}), cells=tuple(cells))
    run_search(plan, inspection(), launch=bare.launch, clock=bare.clock, budget_s=120.0, cores=2)
    assert set(bare.kinds()) == {"full"}


def test_a_first_launch_that_took_most_of_the_time_leaves_none_for_ceilings(machine, inspection):
    """The cell without workers waits for its batches: one with workers is run next."""
    slow = machine(launch_s=12.0, step_s={"cpu": 0.02}, fetch_s={"rows": 0.2})
    axes = {"loader": ("rows",), "workers": (0, 2), "start_method": ("fork",)}
    plan = build_matrix(inspection(), axes, cores=2, system="Linux")
    first = next(c for c in plan.cells if not c.workers)
    request = TrialRequest(kind="full", cell=first, windows=WindowPlan(window_s=8.0))
    known = Trial(request=request, result=slow.launch(request, math.inf), launch=1)
    slow.search(axes=axes, budget_s=60.0, known=[known])
    assert slow.kinds()[:2] == ["full", "full"]
    assert slow.requests[1].cell.workers == 2
