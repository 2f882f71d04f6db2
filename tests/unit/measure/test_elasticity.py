"""Laws of elasticities, and what the model reads from a measurement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.config import make_cell
from ctrkit.measure.elasticity import EpochModel, epoch_model
from ctrkit.measure.replay import Load

seconds = st.floats(min_value=0.01, max_value=10)


def model(service, consumer, *, workers=0, startup=0.0, message=0.0, batches=50):
    load = Load(
        service_s=[service], consumer_s=[consumer], workers=workers, overhead_s=message, prefetch=2
    )
    return EpochModel(
        load=load, batches=batches, startup_s=startup, making={"fetch": 0.25, "collate": 0.75},
        stepping={"forward": 0.4, "backward": 0.6}, measured_step_s=service + consumer,
        has_loader_stages=True,
    )  # fmt: skip


@given(service=seconds, consumer=seconds, startup=seconds)
def test_without_workers_elasticities_are_shares_and_add_up_to_one(service, consumer, startup):
    one = model(service, consumer, startup=startup)
    found = one.elasticities()
    whole_s = startup + 50 * (service + consumer)
    assert one.epoch_s() == pytest.approx(whole_s)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["collate"] == pytest.approx(0.75 * 50 * service / whole_s)
    assert found["startup"] == pytest.approx(startup / whole_s)
    assert list(found.values()) == sorted(found.values(), reverse=True)


@given(service=seconds, consumer=seconds, workers=st.integers(1, 6), message=st.floats(0, 1))
def test_no_elasticity_is_negative_and_removal_never_costs(service, consumer, workers, message):
    one = model(service, consumer, workers=workers, message=message, startup=1.0)
    assert min(one.elasticities().values()) >= 0
    for stage in one.stages():
        assert one.without(stage) <= one.epoch_s() + 1e-9


def test_beside_workers_only_the_slower_side_counts():
    slow_loader = model(8.0, 1.0, workers=2, batches=400).elasticities()
    assert slow_loader["collate"] == pytest.approx(0.75, abs=0.02)
    assert slow_loader["backward"] == pytest.approx(0.0, abs=0.02)
    slow_step = model(0.5, 2.0, workers=2, batches=400).elasticities()
    assert slow_step["backward"] == pytest.approx(0.6, abs=0.02)
    assert slow_step["collate"] == pytest.approx(0.0, abs=0.02)


def test_equal_sides_both_count():
    even = model(4.0, 2.0, workers=2, batches=400).elasticities()
    assert even["fetch"] + even["collate"] == pytest.approx(0.5, abs=0.05)
    assert even["forward"] + even["backward"] == pytest.approx(0.5, abs=0.05)


def test_a_long_epoch_goes_on_at_the_pace_it_had_reached():
    exact = model(0.5, 2.0, workers=2, batches=600).epoch_s()
    assert model(0.5, 2.0, workers=2, batches=6000).epoch_s() == pytest.approx(10 * exact, rel=0.01)


def test_the_steady_step_leaves_out_what_was_made_ahead():
    one = model(8.0, 1.0, workers=2)
    assert one.steady_step_s() == pytest.approx(4.0)
    assert one.loader_step_s() == pytest.approx(4.0)


def test_stages_of_the_loader_make_its_service(measured):
    stages = {"fetch": [0.3], "collate": [0.1], "ipc": [0.02], "forward": [1.0]}
    cell = make_cell(loader="rows", workers=2)
    found = epoch_model(cell, [measured([1.0] * 5, wait_s=0.02, stages=stages, restart_s=3.42)],
                        batches=20)  # fmt: skip
    assert found.load.service_s == [pytest.approx(0.4)]
    assert found.load.overhead_s == pytest.approx(0.02)
    assert found.making == {"fetch": pytest.approx(0.75), "collate": pytest.approx(0.25)}
    assert found.consumer_s == pytest.approx(0.98)
    assert found.startup_s == pytest.approx(3.0)
    assert found.has_loader_stages


def test_the_loader_alone_serves_where_its_stages_were_not_measured(measured):
    cell = make_cell(loader="batches", workers=3)
    found = epoch_model(cell, [measured([1.0] * 5, wait_s=0.1)], loader_step_s=0.2)
    assert found.load.service_s == [pytest.approx(0.6)]
    assert found.load.workers == 3
    assert not found.has_loader_stages


def test_without_either_only_the_waiting_is_known(measured):
    found = epoch_model(make_cell(workers=3), [measured([1.0] * 5, wait_s=0.1)])
    assert (found.load.workers, found.load.service_s) == (0, [pytest.approx(0.1)])
    assert found.stepping == {"compute": 1.0}


def test_a_thread_makes_batches_beside_the_step(measured):
    stages = {"fetch": [0.3], "forward": [1.0]}
    found = epoch_model(make_cell(loader="thread"), [measured([1.0] * 5, stages=stages)])
    assert (found.load.workers, found.load.prefetch) == (1, 3)


def test_nothing_measured_no_model(measured):
    assert epoch_model(make_cell(), [measured([])]) is None
