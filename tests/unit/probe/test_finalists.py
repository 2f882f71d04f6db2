from dataclasses import replace

import pytest

from ctrkit.core.config import make_cell
from ctrkit.probe.finalists import CellStanding, next_finalists, relation

A, B, C, D = (make_cell(loader="batches", workers=w) for w in (0, 1, 2, 3))


def standing(cell, measured=None, predicted=None, launches=0, last=-1, half=0.05):
    return CellStanding(
        cell=cell, measured=measured, predicted=predicted, relative_half=half, launches=launches,
        last=last,
    )  # fmt: skip


def test_the_best_predicted_runs_first_and_the_unpredicted_last():
    order = next_finalists(
        [standing(A), standing(B, predicted=9.0), standing(C, predicted=5.0)],
    )
    assert order == [C, B, A]


def test_among_predictions_that_tie_the_simplest_runs_first():
    order = next_finalists([standing(A, predicted=10.1), standing(B, predicted=10.0)])
    assert order == [A, B]


def test_a_rival_that_may_win_runs_before_the_leader_runs_again():
    order = next_finalists(
        [standing(A, 10.0, launches=1, last=0), standing(B, predicted=10.1)],
    )
    assert order == [B]


def test_a_rival_that_cannot_win_is_left_alone():
    order = next_finalists(
        [standing(A, 10.0, launches=1, last=0), standing(B, predicted=11.0)],
    )
    assert order == []


def test_cells_that_differ_for_certain_are_not_run_again():
    close = [standing(A, 10.0, launches=1, last=0), standing(B, 10.6, launches=1, last=1)]
    assert next_finalists(close) == [B, A]
    apart = [standing(A, 10.0, launches=1, last=0), standing(B, 14.0, launches=1, last=1)]
    assert next_finalists(apart) == []
    exact = [
        standing(A, 10.0, launches=1, last=0, half=0.001),
        standing(B, 10.1, launches=1, last=1, half=0.001),
    ]
    assert next_finalists(exact) == [], "known to be tied"


@pytest.mark.parametrize(
    ("ratio", "half", "what"),
    [(1.0, 0.01, "tied"), (1.01, 0.02, "undecided"), (1.05, 0.02, "different"),
     (0.9, 0.05, "different"), (1.02, 0.01, "undecided")],
)  # fmt: skip
def test_an_interval_of_a_ratio_says_tied_different_or_nothing(ratio, half, what):
    assert relation(ratio, half) == what


def test_finalists_alternate_a_b_b_a():
    run = []
    launches = {A: 0, B: 0}
    for place in range(6):
        standings = [
            standing(
                cell, 10.0 if launches[cell] else None, 10.0, launches[cell],
                max((i for i, c in enumerate(run) if c == cell), default=-1),
            )
            for cell in (A, B)
        ]  # fmt: skip
        chosen = next_finalists(standings)[0]
        run.append(chosen)
        launches[chosen] += 1
        assert len(run) == place + 1
    assert run == [A, B, B, A, A, B]


def test_it_ends_when_more_would_not_change_the_answer():
    done = [standing(A, 10.0, launches=3, last=4), standing(B, 20.0, launches=1, last=2)]
    assert next_finalists(done) == []
    assert next_finalists([]) == []


def test_a_third_cell_runs_only_if_it_promises_more():
    two = [standing(A, 10.0, launches=1, last=0), standing(B, 10.1, launches=1, last=1)]
    assert next_finalists([*two, standing(C, predicted=8.0)])[0] == C
    assert next_finalists([*two, standing(C, predicted=10.0)])[:2] == [B, A]
    three = [*two, standing(C, 10.2, launches=1, last=2)]
    assert D not in next_finalists([*three, standing(D, predicted=5.0)])


def test_of_rivals_that_tie_the_one_least_like_what_was_run_comes_first():
    run = standing(B, 10.0, launches=1, last=0)
    twin = make_cell(loader="batches", workers=1, prefetch=4)
    rivals = [standing(cell, predicted=10.0) for cell in (twin, C, D)]
    assert next_finalists([run, *rivals]) == [D, C, twin]
    better = standing(C, predicted=9.0)
    assert next_finalists([run, better, standing(D, predicted=10.0)]) == [C, D]


def test_the_leaders_twin_with_pinned_memory_runs_first_since_no_prediction_knows_it():
    leader = make_cell(device="cuda", loader="batches", workers=2)
    pinned, other = replace(leader, pin=True), make_cell(device="cuda", loader="thread")
    waiting = [standing(other, predicted=10.0), standing(pinned, predicted=10.0)]
    assert next_finalists([standing(leader, 10.0, launches=1, last=0), *waiting])[0] == pinned
    faster = [standing(other, predicted=5.0), standing(pinned, predicted=10.0)]
    assert next_finalists([standing(leader, 10.0, launches=1, last=0), *faster])[0] == other
    slower = [standing(other, predicted=10.0), standing(pinned, predicted=11.0)]
    assert next_finalists([standing(leader, 10.0, launches=1, last=0), *slower]) == [other]
