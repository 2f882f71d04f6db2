import math

import pytest

from ctrkit.core.config import RunSizes, WindowPlan
from ctrkit.probe.guess import Guess, guessed_objectives
from ctrkit.probe.matrix import build_matrix
from ctrkit.probe.recommend import recommend
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult


@pytest.mark.parametrize(
    ("wait_share", "workers", "cores", "shares_cores", "step"),
    [
        (0.9, 2, 4, False, 0.45),  # two workers halve what is waited for
        (0.9, 8, 4, False, 0.225),  # no more of them than cores
        (0.5, 4, 8, False, 0.5),  # the step itself stays
        (0.9, 2, 2, True, 0.5),  # two cores cannot do more than two cores' work
        (0.0, 2, 2, False, 1.0),  # nothing is waited for
        (0.9, 2, 1, True, 1.0),
        (0.9, 8, math.inf, False, 0.1125),  # workers that wait themselves need no cores
    ],
)
def test_a_step_with_workers_is_at_best(wait_share, workers, cores, shares_cores, step):
    guess = Guess(workers=0, wait_share=wait_share, cores=cores, shares_cores=shares_cores)
    assert guess.step(workers) == pytest.approx(step)


@pytest.mark.parametrize(
    ("wait_share", "workers", "cores", "shares_cores", "step"),
    [
        (0.75, 4, 16, False, 0.5),  # twice the workers make a batch in half the time
        (0.75, 16, 16, False, 0.25),  # but the step itself stays
        (0.75, 4, 2, False, 1.0),  # more workers than cores make no more
        (0.75, 2, 1, False, 1.0),
        (0.5, 1, 16, False, 2.0),
        (0.5, 0, 16, False, 2.5),  # no batch is made beside a step
        (0.75, 4, 2, True, 1.0),
        (0.0, 4, 16, False, 1.0),
        (0.0, 1, 16, False, None),  # how long these workers take for a batch is unknown
        (0.0, 0, 16, False, None),
    ],
)
def test_of_two_workers_other_numbers_are_guessed(wait_share, workers, cores, shares_cores, step):
    guess = Guess(workers=2, wait_share=wait_share, cores=cores, shares_cores=shares_cores)
    assert guess.step(workers) == (None if step is None else pytest.approx(step))


def test_more_workers_than_cores_are_as_good_as_the_cores():
    crowd = Guess(workers=4, wait_share=0.8, cores=2, shares_cores=True)
    assert crowd.step(2) == pytest.approx(1.0)  # the simpler cell ties
    assert crowd.step(1) == pytest.approx(2.0)


AXES = {"loader": ("rows",), "workers": (0, 2), "start_method": ("fork",)}


def full_cells(machine):
    return [r.cell.workers for r in machine.requests if r.kind == "full"]


def test_with_little_time_workers_are_tried_before_the_first_cell_again(machine):
    waits = machine(step_s={"cpu": 0.02}, fetch_s={"rows": 0.2})
    waits.search(axes=AXES, budget_s=24.0)
    assert waits.kinds() == ["full"] * len(waits.kinds())
    assert full_cells(waits)[:2] == [0, 2]


def test_workers_that_can_gain_nothing_are_not_tried(machine):
    computes = machine(step_s={"cpu": 0.5}, fetch_s={"rows": 0.0}, cores=1)
    computes.search(axes=AXES, budget_s=24.0)
    assert set(full_cells(computes)) == {0}


def test_a_cell_with_workers_that_was_run_ends_all_guesses(machine):
    waits = machine(step_s={"cpu": 0.02}, fetch_s={"rows": 0.2})
    result = waits.search(axes=AXES, budget_s=24.0)
    plain, *_, fast = sorted(result.plan.cells, key=lambda c: c.workers)
    cells = list(result.plan.cells)
    known = [t for t in result.trials if t.cell == plain]
    guessed = guessed_objectives(cells, {plain: 10.0}, known, 2)
    assert guessed[fast] == pytest.approx(5.0, rel=0.1)
    assert plain not in guessed
    assert guessed_objectives(cells, {plain: 10.0, fast: 7.0}, list(result.trials), 2) == {}


def after_a_launch(machine, inspected, axes, *, budget_s, **written):
    """A search after a whole launch of one cell, as for a script as written."""
    cells = build_matrix(inspected, axes, cores=machine.cores, system="Linux").cells
    own = {"prefetch": 2, "persistent": False, "pin": False} | written
    own |= {"prefetch": None} if not own["workers"] else {}
    first = next(c for c in cells if all(getattr(c, k) == v for k, v in own.items()))
    request = TrialRequest(kind="full", cell=first, windows=WindowPlan(min_steps=20, window_s=2.0))
    known = Trial(request=request, result=machine.launch(request, math.inf), launch=1)
    return machine.search(inspected, axes, budget_s=budget_s, known=[known])


def test_two_workers_that_do_not_keep_up_on_a_large_machine_are_compared_with_more(
    machine, inspection
):
    """As measured on a GPU: no cell without workers is tried in place of one with more."""
    large = machine(step_s={"cuda": 0.006}, fetch_s={"rows": 0.05}, cores=16, launch_s=7.0)
    axes = {
        "loader": ("rows",), "workers": (0, 2, 4, 8, 16), "start_method": ("fork",),
        "prefetch": (2, 4), "persistent": (False, True), "pin": (False, True),
    }  # fmt: skip
    inspected = inspection(devices=["cuda"])
    result = after_a_launch(large, inspected, axes, budget_s=45.0, workers=2, pin=True)
    assert large.kinds() == ["full"] * len(large.kinds())
    assert full_cells(large)[1] == 16
    assert 0 not in full_cells(large)
    assert recommend(result, inspected).cell.workers >= 8


def killed_above(machine, limit):
    """The machine's launch; workers beyond the limit find no room in /dev/shm."""

    def launch(request, deadline_s):
        if request.cell.workers <= limit or request.kind == "compute":
            return type(machine).launch(machine, request, deadline_s)
        machine.requests.append(request)
        machine.now_s += machine.launch_s
        return TrialResult(verdict="worker-died", reason="Bus error", stage="first batch")

    return launch


def test_what_kills_many_workers_does_not_eat_the_budget(machine, inspection):
    """Their twins with other prefetch, pin and persistence are not tried; fewer workers are."""
    small = machine(step_s={"cuda": 0.01}, fetch_s={"rows": 0.2}, cores=32, launch_s=7.0)
    small.launch = killed_above(small, 4)
    axes = {
        "loader": ("rows",), "workers": (2, 4, 8, 16, 32), "start_method": ("fork",),
        "prefetch": (2, 4), "persistent": (False, True), "pin": (False, True),
    }  # fmt: skip
    result = small.search(inspection(devices=["cuda"]), axes, budget_s=100.0)
    died = [r.cell.workers for r in small.requests if r.cell.workers > 4 and r.kind != "compute"]
    assert len(died) == len(set(died)), "each number of workers fails once"
    assert recommend(result, inspection(devices=["cuda"])).cell.workers == 4
    why = [r.reason for r in result.records if r.cell.workers == 32 and not r.launch]
    assert why
    assert all("worker-died): Bus error" in r or "failed (worker-died: Bus" in r for r in why)


def test_a_loader_that_waits_is_tried_with_more_workers_than_cores(machine, inspection):
    waits = machine(
        step_s={"cuda": 0.005}, fetch_s={"rows": 0.4}, waiting=frozenset({"rows"}), cores=4,
        launch_s=4.0,
    )  # fmt: skip
    result = waits.search(
        inspection(devices=["cuda"]),
        {"loader": ("rows",), "start_method": ("fork",)},
        budget_s=60.0,
    )
    assert max(r.cell.workers for r in waits.requests) > 4
    assert recommend(result, inspection(devices=["cuda"])).cell.workers > 4


def test_where_nothing_can_be_guessed_another_cell_is_tried_before_the_winner_is_confirmed(machine):
    axes = {"loader": ("rows",), "workers": (2, 4), "start_method": ("fork",)}
    waits = machine(step_s={"cpu": 0.02}, fetch_s={"rows": 0.1}, cores=4)
    waits.search(axes=axes, budget_s=24.0)
    assert waits.kinds() == ["full"] * len(waits.kinds())
    assert set(full_cells(waits)[:2]) == {2, 4}


def test_no_time_is_blamed_only_where_there_was_none(machine, inspection):
    axes = {"loader": ("rows",), "workers": (0, 1, 2, 4), "start_method": ("fork",)}
    epoch = RunSizes(
        epochs=1, train_rows=40960, train_batches=20, validation_rows=0, validation_batches=0
    )
    asked = {"inspection": inspection(sizes=epoch), "axes": axes, "budget_s": 24.0}
    computes = machine(
        step_s={"cpu": 0.02}, fetch_s={"rows": 0.0}, cores=1, launch_s=0.5, sizes=epoch
    )
    reasons = reasons_of(computes.search(**asked))
    assert len(reasons) == 3
    assert all("nothing says that it is faster" in reason for reason in reasons)
    slow = machine(step_s={"cpu": 0.02}, fetch_s={"rows": 0.0}, launch_s=11.0, sizes=epoch)
    late = reasons_of(slow.search(**asked))
    assert len(late) == 3
    assert all("no time was left" in reason for reason in late)


def reasons_of(result):
    return [r.reason for r in result.records if r.kind == "full" and r.verdict == "skipped"]
