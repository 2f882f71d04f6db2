"""The terms of a run besides its steps: each counted once, with its uncertainty."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import RunSizes
from ctrkit.measure.projection import project
from ctrkit.measure.statistics import PROVISIONAL, ZERO, interval
from ctrkit.measure.terms import (
    NOT_MEASURED,
    every_epoch_finding,
    sizes_beside,
    terms_beside,
    validation_finding,
)
from ctrkit.report.words import FLAG_WORDS

SIZES = RunSizes(epochs=4, train_batches=100, validation_batches=200)


def launch(measured, **fields):
    values = {
        "startup_s": 5.0, "restart_s": 0.25, "first_batch_s": 0.25, "teardown_s": 0.0,
        "validation_batch_s": [0.5] * 20, "validation_restart_s": 1.0, "checkpoint_s": [2.0, 2.0],
        "metrics_s": [3.0],
    }  # fmt: skip
    return measured([1.0] * 30, wait_s=0.25, **(values | fields))


def each(launches, sizes=SIZES):
    return project(launches, sizes).each_epoch


@pytest.mark.parametrize(
    ("every_s", "saves"), [(None, 0), (600.0, 0), (99.0, 1), (30.0, 3), (0.001, 100)]
)
def test_an_epoch_is_saved_as_often_as_the_clock_says(measured, every_s, saves):
    sizes = replace(SIZES, checkpoint_every_s=every_s)
    assert each([launch(measured)], sizes)["within"].mean == pytest.approx(saves * 2.0)


def test_checkpoints_that_were_counted_go_before_the_clock(measured):
    sizes = replace(SIZES, checkpoint_every_s=1.0, checkpoints=3)
    found = each([launch(measured, sizes=sizes)], sizes)
    assert (found["within"].mean, found["checkpoint"].mean) == (4.0, 2.0)


def test_the_end_of_the_validation_loader_counts(measured):
    without = each([launch(measured)])["validation"].mean
    found = each([launch(measured, validation_teardown_s=4.0)])["validation"].mean
    assert found - without == pytest.approx(4.0)


def test_the_error_of_an_event_is_the_same_in_every_epoch_of_a_run(measured):
    """One or two restarts were timed, so their mean may be wrong, and stays so for all epochs."""

    def half_of_restarts(epochs):
        sizes = replace(SIZES, epochs=epochs)
        steady = [launch(measured, restart_s=1.0), launch(measured, restart_s=1.0)]
        uneven = [launch(measured, restart_s=0.5), launch(measured, restart_s=1.5)]
        without, found = project(steady, sizes).total, project(uneven, sizes).total
        assert found.mean == pytest.approx(without.mean, rel=0.01)
        return math.sqrt(found.half**2 - without.half**2)

    assert half_of_restarts(40) == pytest.approx(4 * half_of_restarts(10), rel=0.15)


def test_workers_of_the_validation_that_are_kept_start_once_a_run(measured):
    kept = launch(measured, validation_restart_s=9.0, validation_again_s=0.5)
    anew = launch(measured, validation_restart_s=9.0)
    sizes = replace(SIZES, epochs=10)
    found, other = project([kept], sizes), project([anew], sizes)
    assert found.startup.mean - other.startup.mean == pytest.approx(8.5)
    assert other.total.mean - found.total.mean == pytest.approx(9 * 8.5)


def test_a_validation_batch_that_compiles_counts_once_a_run(measured):
    """Half a minute of compiling in the first of 20 batches is not 1.5 s for each of 200."""
    plain, compiling = launch(measured), launch(measured, validation_batch_s=[30.5, *[0.5] * 19])
    found, other = project([compiling], SIZES), project([plain], SIZES)
    assert found.each_epoch["validation"].mean == pytest.approx(other.each_epoch["validation"].mean)
    assert found.startup.mean - other.startup.mean == pytest.approx(30.0)
    uneven = launch(measured, validation_batch_s=[0.5, *[0.25, 0.75] * 9, 0.5])
    assert project([uneven], SIZES).startup.mean == pytest.approx(other.startup.mean)


def test_metrics_of_a_part_may_take_longer_for_the_whole(measured):
    found = project([launch(measured)], SIZES)
    metrics = found.each_epoch["metrics"]
    assert metrics.mean == 3.0
    assert metrics.high == pytest.approx(3.0 * 200 / 20)
    assert PROVISIONAL in found.flags
    whole = launch(measured, validation_batch_s=[0.5] * 200)
    assert each([whole])["metrics"].high < 10.0


@pytest.mark.parametrize(("few_s", "whole_s"), [(3.0, 3.0), (0.3, 30.0)])
def test_two_parts_of_other_sizes_show_what_metrics_of_the_whole_take(measured, few_s, whole_s):
    few = launch(measured, validation_batch_s=[0.5] * 2, metrics_s=[few_s])
    metrics = project([launch(measured), few], SIZES).each_epoch["metrics"]
    assert metrics.mean == pytest.approx(whole_s)
    assert metrics.high < 2 * whole_s


def test_launches_at_other_places_tell_what_the_first_batches_do_not(measured):
    first = launch(measured, validation_from=0)
    later = launch(measured, validation_from=180, validation_batch_s=[1.5] * 20)
    alone, both = each([first, first])["validation"], each([first, later])["validation"]
    assert alone.mean == pytest.approx(1.0 + 200 * 0.5)
    assert both.mean == pytest.approx(1.0 + 200 * 1.0)
    # one place says little about the others
    assert alone.high > 1.0 + 200 * 0.5 * 1.2
    seen = each([launch(measured, validation_batch_s=[0.5] * 200)])["validation"]
    assert seen.half < 0.8 * alone.half


def test_a_validation_that_was_seen_in_part_is_said_so_where_it_matters(measured):
    one, two = launch(measured), launch(measured, validation_from=100)
    finding = validation_finding([one], SIZES, share=0.5)
    assert finding is not None
    assert "validation is 50 % of an epoch, and 21 of its 200 batches were timed, the first" in (
        finding.text
    )
    other = validation_finding([one, two], SIZES, share=0.5)
    assert other is not None
    assert "42 of its 200 batches were timed, at 2 places" in other.text
    assert validation_finding([one], SIZES, share=0.01) is None
    whole = launch(measured, validation_batch_s=[0.5] * 200)
    assert validation_finding([whole], SIZES, share=0.5) is None


def test_the_end_of_one_epoch_is_said_to_stand_for_all(measured):
    seen = launch(measured, restart_s=1.0)
    terms = each([seen])
    finding = every_epoch_finding([seen], terms, epochs=None)
    assert finding.text.startswith("validation and checkpoint (")
    assert "counts that in every epoch" in finding.text
    without = launch(measured, restart_s=1.0, validation_batch_s=[], validation_restart_s=None)
    some = every_epoch_finding([seen, without], terms, epochs=10)
    assert some.text.startswith("validation (in 1 of 2 launches) and checkpoint (")
    assert every_epoch_finding([seen], terms, epochs=1) is None
    assert every_epoch_finding([launch(measured, restart_s=None)], terms, epochs=10) is None


def test_an_epoch_that_ended_with_nothing_may_be_followed_by_others(measured):
    bare = launch(measured, validation_batch_s=[], validation_restart_s=None, checkpoint_s=[])
    finding = every_epoch_finding([bare], each([bare]), epochs=None)
    assert finding.text.startswith("neither validation nor checkpoint came")
    assert "the run takes longer" in finding.text


def test_what_takes_next_to_nothing_is_not_worth_a_word(measured):
    quick = launch(measured, restart_s=1.0, validation_batch_s=[1e-6] * 20, checkpoint_s=[1e-6])
    terms = each([quick]) | {"validation": ZERO, "checkpoint": ZERO, "within": ZERO}
    assert every_epoch_finding([quick], terms, epochs=None) is None


def test_what_comes_in_some_epochs_only_is_spread_over_all_of_them():
    sizes = RunSizes(epochs=12, train_batches=10, validation_batches=4, validations=1)
    timed = Measurement(
        kind="full", complete=True, restart_s=0.1, validation_restart_s=0.0,
        validation_batch_s=[0.5] * 4, checkpoint_s=[1.0, 1.0], sizes=sizes,
    )  # fmt: skip
    step = interval(0.1, 0.01)
    always = terms_beside([timed], sizes, step, [])[1]
    rare = replace(sizes, validation_share=0.25, checkpoint_share=0.5)
    some = terms_beside([timed], rare, step, [])[1]
    assert always["validation"].mean == pytest.approx(2.0)
    assert some["validation"].mean == pytest.approx(0.5)
    assert some["checkpoint"].mean == pytest.approx(always["checkpoint"].mean / 2)
    told = replace(timed, sizes=rare)
    assert sizes_beside(sizes, [told]).validation_share == 0.25
    assert every_epoch_finding([told], some, epochs=12) is None
    assert every_epoch_finding([timed], always, epochs=12) is not None


def test_what_no_trial_came_to_is_not_measured_and_not_nothing(measured):
    cut = launch(measured, checkpoint_s=[], metrics_s=[], complete=False)
    flags = []
    _, terms = terms_beside([cut] * 3, SIZES, interval(1.0, 0.0), flags)
    assert "checkpoint" not in terms
    assert "metrics" not in terms
    assert set(flags) == {PROVISIONAL, *NOT_MEASURED}
    projection = project([cut] * 3, SIZES)
    assert set(NOT_MEASURED) < set(projection.flags)
    assert "checkpoint" not in projection.terms
    assert all(flag in FLAG_WORDS for flag in NOT_MEASURED)


def test_one_trial_that_came_to_its_end_tells_for_all(measured):
    cut = launch(measured, checkpoint_s=[], metrics_s=[], complete=False)
    nothing = launch(measured, checkpoint_s=[], metrics_s=[])
    written = launch(measured)
    for other, checkpoint_s in ((nothing, 0.0), (written, 2.0)):
        flags = []
        _, terms = terms_beside([cut, other], SIZES, interval(1.0, 0.0), flags)
        assert terms["checkpoint"].mean == checkpoint_s
        assert not set(NOT_MEASURED) & set(flags)
