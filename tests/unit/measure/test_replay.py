import itertools
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctrkit.measure.replay import (
    Contention,
    Load,
    cpu_floor_s,
    fit_contention,
    message_overhead_s,
    replay,
    replay_epoch,
    replay_thread,
    steady_step_s,
)

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


dyadic = st.integers(0, 64).map(lambda i: i / 16)  # so that sums are exact


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("prefetch", [1, 2, 4])
@given(service=dyadic, step=dyadic, count=st.integers(1, 64))
def test_closed_form_of_constant_times_is_exact(workers, prefetch, service, step, count):
    # whoever limits: the queue of `prefetch` cannot matter while nothing varies
    delivery = replay([service] * count, [step] * count, workers=workers, prefetch=prefetch)
    if workers == 0:
        expected = [(i + 1) * service + i * step for i in range(count)]
    else:
        lag = max(0.0, service - workers * step)
        expected = [service + i * step + i // workers * lag for i in range(count)]
    assert delivery.delivered_s == expected
    assert delivery.total_s == expected[-1] + step


@given(st.integers(1, 4), st.integers(2, 4), dyadic, dyadic, st.integers(1, 40))
def test_closed_form_of_messages_that_wait_costs_each_step_its_overhead(
    workers, prefetch, step, overhead, count
):
    # batches are there at once, so that each is taken when it is asked for and not earlier
    delivery = replay(
        [0.0] * count, [step] * count, workers=workers, prefetch=prefetch, overhead_s=overhead
    )
    assert delivery.delivered_s == [overhead + i * (step + overhead) for i in range(count)]
    assert delivery.wait_s == [overhead] * count


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


def test_a_pinning_thread_takes_messages_while_the_consumer_is_busy():
    taken = replay([0.0] * 4, [1.0] * 4, workers=2, prefetch=2, overhead_s=0.5)
    pinned = replay([0.0] * 4, [1.0] * 4, workers=2, prefetch=2, overhead_s=0.5, pinned=True)
    assert taken.wait_s == [0.5, 0.5, 0.5, 0.5]
    assert pinned.wait_s == [0.5, 0.0, 0.0, 0.0]
    # where the thread is the slowest of all, it sets the pace
    slow = replay([0.0] * 4, [0.25] * 4, workers=2, prefetch=2, overhead_s=0.5, pinned=True)
    assert slow.delivered_s == [0.5, 1.0, 1.5, 2.0]


@given(loads, st.integers(1, 4), st.integers(1, 4), st.floats(0, 1))
def test_pinning_never_delivers_later(load, workers, prefetch, overhead):
    service, step = load
    options = {"workers": workers, "prefetch": prefetch, "overhead_s": overhead}
    taken = replay(service, step, **options).total_s
    assert replay(service, step, **options, pinned=True).total_s <= taken + 1e-9


@given(loads, st.integers(1, 4), st.integers(1, 4), st.floats(0, 1), st.floats(0, 1))
def test_dearer_messages_and_later_workers_never_end_earlier(load, workers, prefetch, cost, late):
    service, step = load
    free = replay(service, step, workers=workers, prefetch=prefetch).total_s
    dear = replay(service, step, workers=workers, prefetch=prefetch, overhead_s=cost).total_s
    later = replay(service, step, workers=workers, prefetch=prefetch, ready_s=late).total_s
    assert free - 1e-9 <= dear <= free + len(service) * cost + 1e-9
    assert free - 1e-9 <= later <= free + late + 1e-9


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


@given(st.integers(1, 8), st.integers(1, 8), st.floats(1, 8), st.floats(0.01, 5), st.floats(0, 5))
@example(few=1, more=7, cores=7.999999999999999, cpu=3.0, waiting=0.0)
def test_contention_is_found_again_from_two_worker_counts(few, more, cores, cpu, waiting):
    true = Contention(waiting_s=waiting, cpu_s=cpu, cores=cores)
    many = few + more
    points = [(w, true.service_s(w)) for w in (few, many)]
    fit = fit_contention(*points, cores, cpu_s=cpu)
    for workers in (1, few, many, 2 * many):
        assert fit.service_s(workers) == pytest.approx(true.service_s(workers), rel=1e-6)


def test_contention_that_was_not_seen_is_feared_and_noise_is_not_believed():
    # neither count exceeds the cores: without processor seconds, all of it is taken to share them
    assert fit_contention((1, 1.0), (4, 1.0), 4).service_s(8) == 2.0
    assert fit_contention((1, 1.0), (4, 1.0), 4, cpu_s=0.25).service_s(8) == 1.25
    assert fit_contention((2, 1.0), (8, 0.9), 2).service_s(32) == pytest.approx(0.95)
    steep = fit_contention((4, 1.0), (8, 4.0), 2)
    assert steep.service_s(1) > 0
    assert steep.service_s(8) == 2 * steep.service_s(4)


@pytest.mark.parametrize(
    ("fewer", "more", "cores"),
    [((2, 1.0), (2, 1.0), 2), ((1, 0.0), (2, 1.0), 2), ((1, 1.0), (2, 1.0), 0)],
)
def test_contention_needs_two_counts_times_and_cores(fewer, more, cores):
    with pytest.raises(ValueError, match="contention"):
        fit_contention(fewer, more, cores)


def test_an_epoch_repeats_what_was_measured_but_for_its_first_step():
    load = Load(service_s=[0.0, 0.0, 0.0], consumer_s=[9.0, 1.0, 2.0], workers=0)
    assert replay_epoch(load, 6).total_s == 9 + 1 + 2 + 1 + 2 + 1
    assert replay_epoch(load, 2).total_s == 10
    assert replay_epoch(load, 6, consumer_x=2).total_s == 32
    with pytest.raises(ValueError, match="no batches"):
        replay_epoch(Load(service_s=[], consumer_s=[], workers=1), 3)


def test_overhead_is_read_from_batches_that_nobody_waited_for():
    # the second was waited for; the third and fourth were made before the step in front of them
    asked, delivered = [0.0, 3.0, 6.0, 9.0], [1.0, 5.0, 6.5, 9.25]
    assert message_overhead_s(asked, delivered, [1.0, 5.0, 4.0, 2.0]) == 0.375
    assert message_overhead_s(asked, delivered, [1.0, 5.0, 6.5, 9.0]) == 0.0


class Sleeper:
    """Batch i says when it was made, after a sleep."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __len__(self):
        return len(self.seconds)

    def __getitem__(self, index):
        time.sleep(self.seconds[index])
        return index, time.monotonic()


@pytest.mark.skipif(sys.platform == "darwin", reason="fork with torch loaded is unsafe there")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_real_dataloader_never_delivers_before_its_replay():
    # a busy machine is late, but nothing makes it early; that it is not late either: bench/replay
    from torch.utils.data import DataLoader

    service = [0.02 + 0.01 * (i % 3) for i in range(16)]
    step = [0.01 * (i % 4) for i in range(16)]
    replayed = replay(service, step, workers=2, prefetch=1).delivered_s
    loader = DataLoader(
        Sleeper(service), batch_size=None, num_workers=2, prefetch_factor=1,
        multiprocessing_context="fork",
    )  # fmt: skip
    began, indices, delivered = time.monotonic(), [], []
    for index, made_s in loader:
        delivered.append(time.monotonic() - began)
        assert made_s - began <= delivered[-1]
        indices.append(index)
        time.sleep(step[index])
    assert indices == list(range(16))
    assert all(real >= told - 1e-3 for real, told in zip(delivered, replayed, strict=True))
