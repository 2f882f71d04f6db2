import pytest

from ctrkit.core.checkup import MachineLimits
from ctrkit.core.child_records import LoaderNeeds, Measurement
from ctrkit.core.config import make_cell
from ctrkit.probe.memory_needs import (
    MemoryLine,
    batch_memory_finding,
    device_bytes,
    host_bytes,
    host_line,
    largest_batch,
    least_risky_first,
    memory_refusal,
)
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

MB = 10**6
GB = 10**9


def cell(workers=0, batch_size=1000, **axes):
    return make_cell(loader="batches", workers=workers, batch_size=batch_size, threads=2, **axes)


def trial(kind, one, peak_bytes, *, verdict="ok", device_bytes=None, stage=""):
    measurement = Measurement(
        kind=kind, throughput_s=1.0, throughput_steps=10, peak_device_bytes=device_bytes
    )
    return Trial(
        request=TrialRequest(kind=kind, cell=one),
        result=TrialResult(
            verdict=verdict, measurement=measurement if verdict == "ok" else None,
            peak_rss_bytes=peak_bytes, stage=stage,
        ),
        launch=1,
    )  # fmt: skip


def limits(memory=10 * GB, shm=None):
    return MachineLimits(memory_bytes=memory, shm_bytes=shm)


def test_a_worker_counts_with_what_it_was_measured_to_take(inspection):
    trials = [
        trial("compute", cell(), 500 * MB),
        trial("full", cell(), 600 * MB),
        trial("full", cell(2), 1400 * MB),
    ]
    assert host_bytes(cell(8), trials, inspection()) == pytest.approx((600 + 8 * 400) * MB)


def test_two_numbers_of_workers_tell_what_one_more_takes(inspection):
    """Without a launch of the loop alone, as in a short probe of a script written with workers."""
    trials = [trial("full", cell(2), 10 * GB), trial("full", cell(4), 16 * GB)]
    assert host_bytes(cell(16), trials, inspection()) == pytest.approx(52 * GB)
    assert host_bytes(cell(3), trials, inspection()) == pytest.approx(13 * GB)
    assert host_bytes(cell(16), trials[:1], inspection()) is None
    assert "predicted to take 52 GB" in str(
        memory_refusal(cell(16), trials, inspection(), limits(memory=32 * GB))
    )


@pytest.mark.parametrize(
    ("free", "order"),
    [
        (1000 * GB, [32, 16, 8, 4]),  # any number fits
        (64 * GB, [8, 32, 16, 4]),  # at most 5 GB each: 8 of them fit for sure
        (20 * GB, [4, 32, 16, 8]),  # none for sure: the fewest tell the most for the least
    ],
)
def test_before_what_a_worker_takes_is_known_fewer_come_first(free, order):
    trials = [trial("full", cell(2), 10 * GB)]
    chosen = [cell(n) for n in (32, 16, 8, 4)]
    found = least_risky_first(chosen, [cell(2)], trials, limits(memory=free))
    assert [one.workers for one in found] == order
    twin = cell(2, prefetch=4)  # tells nothing of what one more takes
    found = least_risky_first([*chosen, twin], [cell(2)], trials, limits(memory=free))
    assert [one.workers for one in found] == [*order, 2]
    known = [*trials, trial("full", cell(8), 11 * GB)]
    assert least_risky_first(chosen, [], known, limits(memory=free)) == chosen
    assert least_risky_first(chosen, [], trials, None) == chosen


def test_before_that_with_what_the_workload_says_that_it_needs(inspection):
    known = inspection(needs=LoaderNeeds(worker_bytes=300 * MB, row_bytes=1000))
    trials = [trial("compute", cell(), 500 * MB)]
    expected = 500 * MB + 4 * (300 * MB + 2 * 1000 * 1000)
    assert host_bytes(cell(4), trials, known) == pytest.approx(expected)
    forked = host_bytes(cell(4, start_method="fork"), trials, known)
    assert forked == pytest.approx(500 * MB + 4 * 2 * 1000 * 1000)


def test_what_does_not_fit_into_four_fifths_of_the_memory_is_refused(inspection):
    trials = [trial("full", cell(), 600 * MB), trial("full", cell(2), 1400 * MB)]
    assert memory_refusal(cell(4), trials, inspection(), limits(3 * GB)) is None
    reason = memory_refusal(cell(6), trials, inspection(), limits(3 * GB))
    assert "3 GB of memory" in reason
    assert "80 %" in reason
    assert memory_refusal(cell(6), trials, inspection(), None) is None
    assert memory_refusal(cell(6), trials, inspection(), limits(None)) is None


def test_batches_that_wait_have_to_fit_into_shared_memory(inspection):
    known = inspection(needs=LoaderNeeds(row_bytes=1000))
    crowded = limits(shm=5 * MB)
    assert memory_refusal(cell(2), [], known, crowded) is None
    assert "/dev/shm" in memory_refusal(cell(4), [], known, crowded)
    elsewhere = MachineLimits(system="Darwin", memory_bytes=10 * GB, shm_bytes=5 * MB)
    assert memory_refusal(cell(4), [], known, elsewhere) is None


def test_two_batch_sizes_tell_of_a_third(inspection):
    trials = [
        trial("compute", cell(batch_size=1000), 2 * GB),
        trial("compute", cell(batch_size=2000), 3 * GB),
    ]
    line = host_line(cell(), trials)
    assert line.measured == (1000, 2000)
    assert line.at(4000) == pytest.approx(5 * GB)
    assert memory_refusal(cell(batch_size=4000), trials, inspection(), limits(6.5 * GB)) is None
    assert memory_refusal(cell(batch_size=4000), trials, inspection(), limits(6 * GB)) is not None
    assert host_line(cell(), trials[:1]) is None


def test_what_was_measured_to_fit_is_not_refused(inspection):
    trials = [
        trial("compute", cell(batch_size=1000), 2 * GB),
        trial("compute", cell(batch_size=2000), 3 * GB),
    ]
    assert memory_refusal(cell(batch_size=2000), trials, inspection(), limits(3 * GB)) is None


def test_workers_that_ran_out_of_memory_after_some_batches_say_nothing_of_more(inspection):
    """Their rows pile up; more workers share them."""
    known, free = inspection(), limits()
    leaks = [trial("full", cell(1), None, verdict="out-of-memory", stage="step")]
    assert memory_refusal(cell(2), leaks, known, free) is None
    assert "ran out of memory" in memory_refusal(cell(2, 2000), leaks, known, free)
    at_once = [trial("full", cell(1), None, verdict="out-of-memory", stage="first batch")]
    assert "ran out of memory" in memory_refusal(cell(2), at_once, known, free)


@pytest.mark.parametrize(
    ("failed", "asked", "refused"),
    [
        (cell(batch_size=2000), cell(batch_size=4000), True),
        (cell(batch_size=2000), cell(batch_size=1000), False),
        (cell(batch_size=2000), cell(batch_size=4000, device="mps"), False),
        (cell(2), cell(4), True),
        (cell(4), cell(2), False),
    ],
)
def test_what_takes_more_than_what_ran_out_of_memory_is_refused(inspection, failed, asked, refused):
    trials = [trial("full", failed, None, verdict="out-of-memory")]
    reason = memory_refusal(asked, trials, inspection(), None)
    assert (reason is not None) is refused
    assert not refused or failed.cell_id in reason


def test_a_devices_memory_is_its_own(inspection):
    on_device = {"device": "cuda"}
    trials = [
        trial("compute", cell(batch_size=1000, **on_device), GB, device_bytes=2 * GB),
        trial("compute", cell(batch_size=2000, **on_device), GB, device_bytes=3 * GB),
    ]
    larger = cell(batch_size=8000, **on_device)
    assert device_bytes(larger, trials) == pytest.approx(9 * GB)
    small = inspection(device_memory_bytes={"cuda": 10 * GB})
    assert "cuda memory" in memory_refusal(larger, trials, small, limits())
    large = inspection(device_memory_bytes={"cuda": 16 * GB})
    assert memory_refusal(larger, trials, large, limits()) is None


def test_the_largest_batch_lies_on_the_line_within_four_fifths():
    line = MemoryLine(fixed_bytes=2 * GB, row_bytes=MB, measured=(100, 200))
    assert largest_batch(line, 10 * GB) == 6000
    assert largest_batch(line, 10 * GB, also_row_bytes=MB) == 3000
    assert largest_batch(line, 2 * GB) is None
    flat = MemoryLine(fixed_bytes=2 * GB, row_bytes=0.0, measured=(100, 200))
    assert largest_batch(flat, 10 * GB) is None


def test_what_a_batch_costs_is_a_finding(inspection):
    trials = [
        trial("compute", cell(batch_size=1000), 2 * GB),
        trial("compute", cell(batch_size=2000), 3 * GB),
        trial("compute", cell(batch_size=5000), None, verdict="out-of-memory"),
    ]
    known = inspection(needs=LoaderNeeds(row_bytes=1000))
    finding = batch_memory_finding(cell(2, batch_size=2000), trials, known, limits(10 * GB))
    assert "a row of the batch costs 1 MB of memory" in finding.text
    assert "4 prefetched batches of the workers take 8 MB" in finding.text
    assert "batch 5,000 ran out of memory" in finding.text
    assert "about 4,999 rows" in finding.text, "the one that failed bounds it"
    assert batch_memory_finding(cell(), trials[:1], known, limits()) is None
