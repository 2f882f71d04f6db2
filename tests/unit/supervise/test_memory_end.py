"""Memory that grows through the rows of a ledger, and when none is left: simulated samples."""

from dataclasses import replace

import numpy as np
import pytest

from ctrkit.supervise.ledger import LedgerRow
from ctrkit.supervise.memory_end import memory_end

GB = 1_000_000_000
ROW = LedgerRow(
    ended_unix_s=0.0, session=1, launch=1, epoch=1, step=1, wall_s=60.0, seconds={}, rows=10,
    steps=10, rows_per_s=1.0, cpu_cores=1.0, other_cores=0.0, rss_bytes=None, pss_bytes=None,
    available_bytes=None, swap_used_bytes=0, swapped_in_bytes=0, swapped_out_bytes=0,
    device_bytes=None, temperature_c=None, throttles=None, speed_limit=None,
)  # fmt: skip


def rows(used, free=None, **fields):
    """A row a minute; what is free falls as the run grows, unless it is given."""
    free = [8 * GB - int(one) for one in used] if free is None else free
    return [
        replace(ROW, ended_unix_s=60.0 * i, pss_bytes=int(one), available_bytes=int(left), **fields)
        for i, (one, left) in enumerate(zip(used, free, strict=True))
    ]


def test_memory_that_grows_all_the_time_runs_out():
    found = memory_end(rows([GB + i * 100_000_000 for i in range(10)]))
    assert found.bytes_per_s == pytest.approx(100_000_000 / 60)
    # 8 GB less 1.9 GB are free, 0.1 GB a minute
    assert found.left_s == pytest.approx(61 * 60)
    assert "grew from" in found.words()
    assert "in the last 9 min" in found.words()
    assert "none is left in 1 h 01 min" in found.words()


def test_resident_memory_stands_in_where_the_system_tells_no_other():
    grown = rows([GB + i * 100_000_000 for i in range(10)])
    resident = [replace(row, rss_bytes=row.pss_bytes, pss_bytes=None) for row in grown]
    assert memory_end(resident) == memory_end(grown)


@pytest.mark.parametrize(
    "used",
    [
        [GB] * 12,
        [GB + i * 100_000_000 for i in range(5)],  # too few minutes
        [GB + i * 1_000_000 for i in range(12)],  # next to nothing
        [3 * GB - 2 * GB * 0.6**i for i in range(12)],  # a cache that fills
        [GB + (i % 2) * 500_000_000 + i * 10_000_000 for i in range(12)],  # up and down
        [2 * GB - i * 50_000_000 for i in range(12)],
    ],
)
def test_what_does_not_grow_all_the_time_is_no_growth(used):
    assert memory_end(rows(used)) is None


def test_pages_of_files_that_the_system_can_drop_do_not_count():
    grown = [GB + i * 100_000_000 for i in range(10)]
    assert memory_end(rows(grown, free=[6 * GB] * 10)) is None


def test_a_new_launch_begins_anew_and_rows_without_steps_do_not_count():
    grown = rows([GB + i * 100_000_000 for i in range(10)])
    assert memory_end([*grown[:5], *(replace(row, launch=2) for row in grown[5:])]) is None
    assert memory_end([*grown[:5], *(replace(row, steps=0) for row in grown[5:])]) is None
    assert memory_end([replace(row, available_bytes=None) for row in grown]) is None
    assert memory_end([replace(row, pss_bytes=None) for row in grown]) is None


def test_noise_is_seldom_taken_for_growth():
    random = np.random.default_rng(4)
    said = sum(
        memory_end(rows(GB + random.normal(0, 50_000_000, 12))) is not None for _ in range(500)
    )
    walks = sum(
        memory_end(rows(2 * GB + np.cumsum(random.normal(0, 30_000_000, 12)))) is not None
        for _ in range(500)
    )
    assert said == 0
    assert walks <= 0.04 * 500
