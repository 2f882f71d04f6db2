"""Memory that always grows runs out at a known step; a full pool does not."""

from __future__ import annotations

import pytest

from ctrkit.core.memory_points import MemoryPoint
from ctrkit.measure.memory_growth import growth_of, memory_finding

MB, GB = 1_000_000, 1_000_000_000


def points(megabytes, every=10, epoch=1):
    return [
        MemoryPoint(epoch=epoch, step=every * (i + 1), at_s=2.0 * i, private_bytes=int(m * MB))
        for i, m in enumerate(megabytes)
    ]


LEAKS = points([300, 350, 400, 450, 500])  # 5 MB a step


@pytest.mark.parametrize(
    "megabytes",
    [
        [300, 300, 300, 300, 300],
        [300, 420, 440, 441, 442],  # a pool that fills
        [300, 400, 350, 450, 500],  # up and down
        [300, 301, 302, 303, 304],  # next to nothing
        [300, 400, 500],  # too short to tell
        [],
    ],
)
def test_what_does_not_grow_all_the_time_is_no_leak(megabytes):
    assert growth_of(points(megabytes)) is None


def test_a_moment_of_garbage_collection_hides_no_leak():
    assert growth_of(points([300, 350, 345, 400, 450, 500])) is not None


def test_steps_that_were_looked_at_twice_count_once_and_a_second_epoch_not_at_all():
    twice = [p for p in LEAKS for _ in range(2)]
    found = growth_of([*twice, *points([100, 90], epoch=2)])
    assert found is not None
    assert found.bytes_a_step == pytest.approx(5 * MB)


def finding(launches, **values):
    given = {"free_bytes": 8 * GB, "batches": 1000, "epochs": 10, "step_s": 0.5}
    return memory_finding(launches, **(given | values))


def test_when_it_runs_out_is_told_in_steps_epochs_and_time():
    found = finding([LEAKS, LEAKS])
    assert found is not None
    assert "5 MB a step, in each of 2 launches" in found.text
    # 50 steps have 0.5 GB, and 7.5 GB last for 1,500 more
    assert (
        "have all been used after 1,550 steps in epoch 2, about 12 min 55 s of training"
        in found.text
    )


def test_a_run_that_is_over_before_it_runs_out_is_not_warned_of():
    assert finding([LEAKS], epochs=1) is None
    assert finding([LEAKS], batches=None) is not None
    assert finding([LEAKS], free_bytes=None) is None


def test_most_launches_have_to_show_it():
    flat = points([300] * 5)
    assert finding([LEAKS, flat]) is None
    assert finding([LEAKS, LEAKS, flat]) is not None
    assert finding([]) is None
