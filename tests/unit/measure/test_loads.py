import dataclasses

import numpy as np
import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import make_cell
from ctrkit.measure.loads import load_of
from ctrkit.measure.replay import replay, replay_epoch
from ctrkit.measure.steps import making_stages_s, sample_of_load

STEP_S = 0.1


def cell(workers=2, loader="batches", prefetch=2):
    return make_cell(
        loader=loader, workers=workers, prefetch=prefetch if workers else None, threads=1
    )


def launched(service_s, consumer_s, *, workers=2, prefetch=2, ready_s=1.0, pickle_s=0.0):
    """A launch as it would have been stamped: all of it replayed, and every moment written down."""
    delivery = replay(service_s, consumer_s, workers=workers, prefetch=prefetch, ready_s=ready_s)
    count = len(service_s)
    done = [d + c for d, c in zip(delivery.delivered_s, consumer_s, strict=True)]
    start, sent = [], []
    for i in range(count):
        asked = 0.0 if i < workers * prefetch else delivery.delivered_s[i - workers * prefetch]
        start.append(max(asked, ready_s if i < workers else sent[i - workers]))
        sent.append(start[i] + service_s[i])
    warmup = workers * prefetch
    return Measurement(
        kind="full",
        throughput_s=done[-1] - done[warmup - 1],
        throughput_steps=count - warmup,
        stamps=Stamps(
            epoch=[1] * count, step=list(range(1, count + 1)),
            window=["warmup"] * warmup + ["throughput"] * (count - warmup),
            asked_s=[0.0, *done[:-1]], delivered_s=delivery.delivered_s, done_s=done,
            rows=[1] * count, worker=[i % workers for i in range(count)],
            fetch_start_s=start, fetch_end_s=[s - pickle_s for s in sent],
            collate_end_s=[s - pickle_s for s in sent], sent_s=sent,
        ),
    )  # fmt: skip


def drawn(mean_s, count, seed=1, spread=0.2):
    random = np.random.default_rng(seed)
    return [float(s) for s in random.gamma(1 / spread**2, mean_s * spread**2, count)]


def test_the_load_of_a_launch_is_what_was_put_in():
    service, consumer = drawn(0.3, 40), drawn(STEP_S, 40, 2)
    load = load_of(launched(service, consumer), cell())
    assert load.service_s == pytest.approx(service)
    assert load.consumer_s == pytest.approx([consumer[0], *consumer[4:]])
    assert load.ready_s == pytest.approx([1.0, 1.0])
    assert (load.workers, load.prefetch, load.first_batches) == (2, 2, 2)


def test_a_whole_epoch_follows_from_a_window_whose_queue_was_full():
    # the workers are slower than the step, but the first step takes so long that they run ahead
    count, epoch = 60, 400
    service, consumer = drawn(8 * 0.15, epoch, 3), drawn(STEP_S, epoch, 4)
    consumer[0] = 15.0
    window = launched(service[:count], consumer[:count], workers=8, ready_s=0.5)
    load = load_of(window, cell(8))
    true = replay(service, consumer, workers=8, prefetch=2, ready_s=0.5)
    true_s = true.total_s - true.delivered_s[0]
    foretold_s = sample_of_load(load, epoch).mean * epoch
    assert foretold_s == pytest.approx(true_s, rel=0.05)
    plain_s = window.throughput_s / window.throughput_steps * epoch
    assert abs(plain_s / true_s - 1) > 2 * abs(foretold_s / true_s - 1)


def test_a_first_batch_that_is_slow_for_each_worker_counts_once():
    service = [5.0, 5.0, *drawn(0.05, 38)]
    load = load_of(launched(service, drawn(STEP_S, 40, 2)), cell())
    epoch = replay_epoch(load, 1000)
    assert epoch.total_s - epoch.delivered_s[0] == pytest.approx(1000 * STEP_S, rel=0.08)


@pytest.mark.parametrize(
    "changed",
    [
        {"sent_s": [None] * 20},
        {"sent_s": []},
        {"worker": [0] * 20},
        {"window": ["warmup"] * 20},
        {"epoch": [1, 1, 1] + [2] * 17},
    ],
    ids=["no stamps", "an older file", "out of turn", "no throughput", "too few"],
)
def test_what_cannot_be_replayed_has_no_load(changed):
    measurement = launched(drawn(0.3, 20), drawn(STEP_S, 20, 2))
    assert load_of(measurement, cell()) is not None
    stamps = dataclasses.replace(measurement.stamps, **changed)
    assert load_of(dataclasses.replace(measurement, stamps=stamps), cell()) is None


def test_a_replay_that_does_not_tell_what_was_measured_is_not_used():
    measurement = launched(drawn(0.3, 20), drawn(STEP_S, 20, 2))
    late = [at_s + 0.2 * i for i, at_s in enumerate(measurement.stamps.delivered_s)]
    done = [at_s + 0.2 * i for i, at_s in enumerate(measurement.stamps.done_s)]
    stamps = dataclasses.replace(
        measurement.stamps, delivered_s=late, done_s=done, asked_s=[0.0, *done[:-1]]
    )
    assert load_of(dataclasses.replace(measurement, stamps=stamps), cell()) is None


def test_without_workers_a_mean_of_steps_has_all_there_is():
    measurement = launched(drawn(0.3, 20), drawn(STEP_S, 20, 2))
    assert load_of(measurement, cell(0)) is None


def test_what_the_device_had_yet_to_do_belongs_to_the_steps():
    measurement = launched(drawn(0.05, 40), drawn(STEP_S, 40, 2))
    behind = dataclasses.replace(measurement, throughput_s=measurement.throughput_s + 3.6)
    plain, late = (load_of(m, cell()) for m in (measurement, behind))
    assert sum(late.consumer_s) == pytest.approx(sum(plain.consumer_s) + 3.6)


def test_making_a_batch_is_told_apart_by_its_stamps():
    measurement = launched([0.3] * 12, [STEP_S] * 12, pickle_s=0.1)
    stages = making_stages_s(measurement.stamps)
    assert stages["fetch"] == pytest.approx([0.2] * 8)
    assert stages["ipc"] == pytest.approx([0.1] * 8)
    assert "collate" not in stages, "it took no time"
    assert making_stages_s(Stamps()) == {}
