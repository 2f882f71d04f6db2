"""The answer of a search after each trial, before it is over."""

from __future__ import annotations

from typing import Any

import pytest

from ctrkit.core.errors import CtrkitError
from ctrkit.core.records import AnswerSoFar
from ctrkit.probe.recommend import recommend

Answers = list[tuple[float, AnswerSoFar]]


def answers_of(machine: Any, **options: Any) -> tuple[Answers, Any]:
    """Each answer with the seconds that had passed, and what the search came to."""
    found: Answers = []
    result = machine.search(
        on_answer=lambda answer: found.append((machine.spent_s, answer)), **options
    )
    return found, result


@pytest.mark.parametrize("step_s", [0.02, 0.3, 2.5])
def test_there_is_an_answer_with_its_interval_within_half_a_minute(
    machine: Any, step_s: float
) -> None:
    simulated = machine(step_s={"cpu": step_s})
    answers, _ = answers_of(simulated)
    early = [answer for at_s, answer in answers if at_s < 30 and answer.basis == "predicted"]
    assert early
    assert early[0].projected_total_s is not None
    low_s, high_s = early[0].projected_total_s_low, early[0].projected_total_s_high
    assert low_s is not None
    assert high_s is not None
    assert low_s < early[0].projected_total_s < high_s


def test_it_gets_better_and_ends_as_the_recommendation(machine: Any, inspection: Any) -> None:
    answers, result = answers_of(machine())
    bases = [answer.basis for _, answer in answers]
    assert list(dict.fromkeys(bases)) == ["bound", "predicted", "measured"]
    last, found = answers[-1][1], recommend(result, inspection())
    assert last.cell == found.cell
    assert last.projected_total_s == found.projected_total_s
    assert last.projected_total_s_high == found.projected_total_s_high
    assert last.launches == len(result.full_trials(last.cell))


def test_the_bound_is_one_and_names_no_middle(machine: Any) -> None:
    simulated = machine()
    answers, _ = answers_of(simulated)
    bound = next(answer for _, answer in answers if answer.basis == "bound")
    assert bound.projected_total_s is bound.projected_epoch_s is bound.step_s is None
    assert bound.projected_epoch_s_low == pytest.approx(514 * (bound.step_s_low or 0.0))
    assert bound.projected_total_s_low == pytest.approx(15 * (bound.projected_epoch_s_low or 0.0))
    true_s = min(simulated.epoch_s(r.cell) for r in simulated.requests if r.kind == "full")
    assert 0 < (bound.projected_epoch_s_low or 0.0) < true_s


def test_where_all_fails_there_is_none(machine: Any, inspection: Any) -> None:
    answers, result = answers_of(machine(ends={"compute": "crashed", "full": "crashed"}))
    assert not [answer for _, answer in answers if answer.basis == "measured"]
    with pytest.raises(CtrkitError):
        recommend(result, inspection())
