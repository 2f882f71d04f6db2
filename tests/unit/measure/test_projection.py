import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import RunSizes
from ctrkit.measure.projection import LOW_CONFIDENCE, project
from ctrkit.measure.replay import Load, replay
from ctrkit.measure.statistics import PROVISIONAL
from ctrkit.measure.steps import samples_of

SIZES = RunSizes(epochs=10, train_batches=100, validation_batches=20)


def full(measured, **fields):
    values = {
        "startup_s": 5.0, "restart_s": 3.0, "teardown_s": 0.5, "first_batch_s": 9.0,
        "validation_batch_s": [0.5] * 20, "validation_restart_s": 1.0, "checkpoint_s": [2.0, 2.0],
        "metrics_s": [1.5],
    }  # fmt: skip
    return measured([1.0] * 30, wait_s=0.25, **(values | fields))


def test_every_term_is_counted_once(measured):
    projection = project([full(measured)] * 3, SIZES)
    means = {name: term.mean for name, term in projection.terms.items()}
    assert means == {
        "startup": 11.0,  # the first batch takes 6 s longer than one after a restart
        # the first batch's wait lies in the restart
        "training": pytest.approx(10 * (100 * 1.0 - 0.25)),
        "restart": pytest.approx(30.0),
        "teardown": pytest.approx(5.0),
        "within": 0.0,
        "validation": pytest.approx(10 * (1.0 + 20 * 0.5)),
        "metrics": pytest.approx(10 * 1.5),
        "checkpoint": pytest.approx(20.0),
    }
    assert projection.total.mean == pytest.approx(sum(means.values()))
    assert projection.epoch.mean == pytest.approx(99.75 + 3 + 0.5 + 11 + 1.5 + 2)
    assert projection.total.mean == pytest.approx(11 + 10 * projection.epoch.mean)
    assert projection.flags == []


def test_all_launches_that_tell_of_validation_count(measured):
    """One launch may have had a bad moment."""
    slow, quick = (full(measured, validation_batch_s=[s] * 20) for s in (1.0, 0.25))
    beside = project([slow], SIZES, beside=[slow, quick, quick]).terms["validation"]
    assert beside.mean == pytest.approx(10 * (1.0 + 20 * 0.5))


def test_workers_that_persist_start_once(measured):
    kept = project([full(measured, first_batch_s=9.0, restart_s=0.1)], SIZES)
    anew = project([full(measured, first_batch_s=9.0, restart_s=9.0)], SIZES)
    assert kept.startup.mean == pytest.approx(5 + 8.9)
    assert anew.startup.mean == pytest.approx(5)
    assert anew.total.mean - kept.total.mean == pytest.approx(9 * 8.9)


def test_the_interval_holds_the_mean_and_grows_with_the_noise(measured):
    calm = project([full(measured), full(measured)], SIZES)
    noisy = project([full(measured), measured([0.6, 1.4] * 15, restart_s=3.0)], SIZES)
    assert calm.total.low < calm.total.mean < calm.total.high
    assert noisy.epoch.relative_half > calm.epoch.relative_half


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"validation_batch_s": [0.5] * 10}, {"validation_batch_s": [0.5] * 9}),
        (
            {"validation_batch_s": [], "metrics_s": []},
            {"validation_batch_s": [], "metrics_s": []},
        ),
        ({"checkpoint_s": [2.0]}, {"checkpoint_s": []}),
        ({"restart_s": None}, {"restart_s": None}),
        ({"checkpoint_s": []}, {"checkpoint_s": [], "complete": False}),
    ],
)
def test_what_was_measured_too_little_is_provisional(measured, first, second):
    launches = [full(measured, **first), full(measured, **second)]
    assert project(launches, SIZES).flags == [PROVISIONAL]


def test_what_the_launches_measured_together_is_enough(measured):
    halves = {"validation_batch_s": [0.5] * 10, "checkpoint_s": [2.0]}
    assert project([full(measured, **halves)] * 3, SIZES).flags == []


@pytest.mark.parametrize("launches", [1, 2])
def test_a_launch_or_two_are_provisional(measured, launches):
    assert project([full(measured)] * launches, SIZES).flags == [PROVISIONAL]


def test_other_cells_do_not_make_up_for_a_third_launch(measured):
    peers = [samples_of([full(measured)] * 2)] * 2
    assert project([full(measured)] * 3, SIZES, peers=peers).flags == []
    assert project([full(measured)] * 2, SIZES, peers=peers).flags == [PROVISIONAL]


def test_a_validation_smaller_than_what_is_asked_for_is_enough(measured):
    sizes = RunSizes(epochs=1, train_batches=100, validation_batches=4)
    launch = full(measured, validation_batch_s=[0.5] * 4)
    assert project([launch] * 3, sizes).flags == []


def test_validation_and_checkpoints_of_the_step_alone_fill_in(measured):
    bare = measured([1.0] * 30, restart_s=3.0)
    alone = full(measured, kind="compute")
    projection = project([bare], SIZES, also=[alone])
    assert projection.terms["validation"].mean == pytest.approx(110.0)
    assert projection.terms["checkpoint"].mean == pytest.approx(20.0)


def test_a_validation_that_was_never_timed_is_guessed_widely_and_not_left_out(measured):
    bare = measured([1.0] * 30, restart_s=3.0, stages={"forward": [0.4]})
    validation = project([bare, bare], SIZES).terms["validation"]
    assert validation.mean == pytest.approx(10 * 20 * 0.4)
    assert 0 < validation.low < validation.mean / 3  # it takes some time, whatever is not known
    guessed = project([measured([1.5] * 9)], SIZES).terms["validation"]
    assert guessed.mean == pytest.approx(10 * 20 * 0.5)


def test_the_first_batch_stands_in_for_a_boundary_that_was_not_reached(measured):
    projection = project([measured([1.0] * 5, first_batch_s=7.0)], SIZES)
    assert projection.terms["restart"].mean == pytest.approx(70.0)


def test_a_whole_epoch_that_was_timed_is_worth_more_than_its_steps(measured):
    sizes = RunSizes(epochs=2, train_batches=12)
    launch = measured(
        [1.0] * 6, restart_s=3.0, first_batch_s=4.0, epoch_s=11.0, epoch_complete=True,
        epoch_batches=12,
    )  # fmt: skip
    # 7 s after the first batch, since a prefilled queue made half of the batches free
    assert project([launch], sizes).epoch.mean == pytest.approx(10.0)


@pytest.mark.parametrize("sizes", [None, RunSizes(epochs=3)])
def test_an_endless_loader_has_no_projection(measured, sizes):
    assert project([full(measured)], sizes) is None


def test_no_step_no_projection():
    assert project([Measurement(kind="full", startup_s=3.0)], SIZES) is None
    assert project([], SIZES) is None


def test_a_launch_knows_its_sizes_better_than_what_is_passed(measured):
    launch = full(measured, sizes=RunSizes(epochs=2, train_batches=10))
    assert project([launch], SIZES).sizes.train_batches == 10


def test_a_wide_interval_is_called_low_confidence(measured):
    assert LOW_CONFIDENCE in project([measured([1.0, 9.0, 2.0])], SIZES).flags


def test_stamped_batches_replay_the_epoch_after_its_first_batch(measured):
    service, step = [3.0] * 20, [1.0] * 20
    load = Load(service_s=service, consumer_s=step, workers=2, prefetch=4)
    launches = [full(measured, restart_s=3.0)] * 2
    projection = project(launches, SIZES, loads=[load, load])
    epoch = replay([3.0] * 100, [1.0] * 100, workers=2, prefetch=4)
    training = projection.terms["training"].mean / SIZES.epochs
    assert training == pytest.approx(epoch.total_s - epoch.delivered_s[0])


def test_means_are_taken_over_whole_turns_of_the_workers(measured):
    launches = [measured([0.5, 1.5] * 4 + [0.5], restart_s=3.0)] * 2
    assert project(launches, SIZES, cycle=2).step.mean == pytest.approx(1.0)
    assert project(launches, SIZES).step.mean < 0.96


@given(st.integers(1, 30), st.integers(1, 30))
def test_more_epochs_take_in_proportion_longer(one, more):
    from ctrkit.core.child_records import Stamps

    launch = Measurement(
        kind="full", startup_s=5.0, restart_s=1.0, throughput_s=10.0, throughput_steps=10,
        stamps=Stamps(),
    )  # fmt: skip
    projection = project([launch], RunSizes(epochs=one, train_batches=100))
    longer = projection.total_of(one + more)
    assert longer.mean - projection.total.mean == pytest.approx(more * projection.epoch.mean)
    assert projection.total_of(one).mean == pytest.approx(projection.total.mean)


def paced(measured, step_s):
    return measured([step_s] * 30, checkpoint_s=[2.0, 2.0], restart_s=3.0)


def test_launches_that_chose_the_cell_tell_its_spread_and_not_its_mean(measured):
    lucky, fresh = full(measured), paced(measured, 1.1)
    projection = project([fresh], SIZES, earlier=[lucky, fresh])
    assert projection.step.mean == pytest.approx(1.1)
    assert PROVISIONAL not in projection.flags
    assert PROVISIONAL in project([fresh], SIZES).flags


def test_other_cells_tell_how_far_launches_differ(measured):
    own = [full(measured), full(measured)]

    def peers(spread):
        return [
            samples_of([paced(measured, m), paced(measured, m * (1 + spread))])
            for m in (0.1, 3.0, 8.0)
        ]

    alone = project(own, SIZES).epoch
    steady = project(own, SIZES, peers=peers(0.0)).epoch
    uneven = project(own, SIZES, peers=peers(0.3)).epoch
    assert steady.mean == alone.mean == uneven.mean
    assert steady.half < alone.half < uneven.half


def test_without_a_number_of_epochs_an_epoch_is_projected_and_no_run(measured):
    launches = [full(measured), full(measured)]
    known = project(launches, SIZES)
    unknown = project(launches, RunSizes(train_batches=100, validation_batches=20))
    assert unknown.epoch.mean == pytest.approx(known.epoch.mean)
    assert (known.run, unknown.run) == (known.total, None)
    assert unknown.objective_s == unknown.epoch.mean
    assert unknown.total_of(10).mean == pytest.approx(known.total.mean)
