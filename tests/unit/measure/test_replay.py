import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.measure.replay import cpu_floor_s, replay, replay_thread, steady_step_s

seconds = st.floats(0.0, 5.0)
loads = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        st.lists(seconds, min_size=n, max_size=n), st.lists(seconds, min_size=n, max_size=n)
    )
)


def test_without_workers_service_and_step_alternate():
    delivery = replay([1, 2, 3], [10, 10, 10], workers=0)
    assert delivery.delivered_s == [1, 13, 26]
    assert delivery.wait_s == [1, 2, 3]
    assert delivery.total_s == 36


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_closed_form_where_the_step_limits(workers, prefetch):
    # dyadic times, so that sums are exact; prefetch 1 needs a batch back before the next begins
    service, step, n = 0.25, 0.5, 64
    delivery = replay([service] * n, [step] * n, workers=workers, prefetch=prefetch)
    if workers * prefetch > 1:
        assert delivery.delivered_s == [service + i * step for i in range(n)]
        assert delivery.wait_s == [service] + [0.0] * (n - 1)
    else:  # one batch in flight, made while the step before it runs
        assert delivery.delivered_s == [service + i * step for i in range(n)]
    assert delivery.total_s == service + n * step


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_closed_form_where_the_loader_limits(workers, prefetch):
    service, n = 1.0, 64
    delivery = replay([service] * n, [0.0] * n, workers=workers, prefetch=prefetch)
    assert delivery.delivered_s == [service * (i // workers + 1) for i in range(n)]


@pytest.mark.parametrize(
    ("workers", "prefetch", "service", "step", "mean"),
    [
        (0, 1, 0.25, 0.5, 0.75),
        (1, 2, 0.25, 0.5, 0.5),
        (2, 2, 2.0, 0.5, 1.0),
        (4, 2, 2.0, 0.5, 0.5),
        (2, 1, 1.0, 0.75, 0.75),
    ],
)
def test_steady_step_leaves_out_the_prefilled_queue(workers, prefetch, service, step, mean):
    assert steady_step_s(service, [step], workers=workers, prefetch=prefetch) == mean


def test_steady_step_replays_a_varying_consumer():
    # the slow step hides the fetches of the fast ones only as far as the queue reaches
    mean = steady_step_s(1.0, [0.0, 0.0, 0.0, 4.0], workers=1, prefetch=8)
    assert mean == pytest.approx(1.0, rel=0.05)
    assert steady_step_s(1.0, [0.0, 4.0], workers=0, prefetch=1) == pytest.approx(3.0)


def test_a_worker_that_is_ready_late_delays_its_batches_only():
    delivery = replay([1.0] * 4, [0.0] * 4, workers=2, prefetch=2, ready_s=[0.0, 5.0])
    assert delivery.delivered_s == [1, 6, 6, 7]


def test_overhead_is_paid_once_a_message_and_not_when_it_was_taken_before():
    # batch 0 is late; batch 1 is taken while waiting for it, and is there at once afterwards
    delivery = replay([4.0, 1.0], [0.0, 0.0], workers=2, prefetch=1, overhead_s=0.5)
    assert delivery.delivered_s == [4.5, 4.5]
    in_order = replay([1.0, 4.0], [0.0, 0.0], workers=2, prefetch=1, overhead_s=0.5)
    assert in_order.delivered_s == [1.5, 4.5]


@given(loads, st.integers(0, 4), st.integers(1, 4), st.data())
def test_slower_service_never_delivers_earlier(load, workers, prefetch, data):
    service, step = load
    slower = [s + data.draw(st.floats(0, 2)) for s in service]
    before = replay(service, step, workers=workers, prefetch=prefetch).delivered_s
    after = replay(slower, step, workers=workers, prefetch=prefetch).delivered_s
    assert all(b <= a + 1e-9 for b, a in zip(before, after, strict=True))


@given(loads, st.integers(0, 4), st.integers(1, 4), st.floats(0, 1))
def test_delivery_is_in_order_and_never_before_it_is_made(load, workers, prefetch, overhead):
    service, step = load
    delivery = replay(
        service, step, workers=workers, prefetch=prefetch, overhead_s=overhead if workers else 0.0
    )
    delivered = delivery.delivered_s
    assert all(a <= b for a, b in itertools.pairwise(delivered))
    assert all(d >= s - 1e-9 for d, s in zip(delivered, service, strict=True))
    assert all(w >= 0 for w in delivery.wait_s)
    assert delivery.total_s == pytest.approx(sum(delivery.wait_s) + sum(step))
    assert delivery.total_s >= max(sum(step), sum(service) / max(1, workers)) - 1e-9


@given(loads, st.integers(1, 4), st.integers(1, 4))
def test_more_prefetch_never_hurts_and_workers_never_lose_to_none(load, workers, prefetch):
    service, step = load
    some = replay(service, step, workers=workers, prefetch=prefetch).total_s
    more = replay(service, step, workers=workers, prefetch=prefetch + 1).total_s
    assert more <= some + 1e-9
    assert some <= replay(service, step, workers=0).total_s + 1e-9


def queue_of_a_thread(service, step, queue):
    """The thread loader told plainly: make, block while the queue is full, go on."""
    put, taken, now, free = [], [], 0.0, 0.0
    for i, (s, c) in enumerate(zip(service, step, strict=True)):
        made = free + s
        free = max(made, taken[i - queue]) if i >= queue else made
        put.append(free)
        now = max(now, put[i])
        taken.append(now)
        now += c
    return taken


@given(loads, st.integers(1, 4))
def test_a_thread_is_a_worker_with_one_more_in_flight(load, queue):
    service, step = load
    expected = queue_of_a_thread(service, step, queue)
    assert replay_thread(service, step, queue=queue).delivered_s == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"service_s": [1.0], "consumer_s": [], "workers": 1},
        {"service_s": [1.0], "consumer_s": [1.0], "workers": -1},
        {"service_s": [1.0], "consumer_s": [1.0], "workers": 1, "prefetch": 0},
        {"service_s": [1.0], "consumer_s": [1.0], "workers": 2, "ready_s": [0.0]},
    ],
)
def test_what_makes_no_sense_is_an_error(wrong):
    service, step = wrong.pop("service_s"), wrong.pop("consumer_s")
    with pytest.raises(ValueError):
        replay(service, step, **wrong)


def test_the_cores_bound_a_step_on_the_cpu():
    assert cpu_floor_s(step_cpu_s=4.0, fetch_cpu_s=1.0, effective_cores=2) == 2.5
