"""Coverage, width and flags of the intervals on simulated machines: few seeds of bench/coverage."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench" / "coverage.py"
SEEDS = range(60)


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_coverage", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


# What a short probe cannot see (stalls that did not come) is in results/coverage.md only.
@pytest.mark.parametrize(
    "name", ["iid", "AR(1) .9", "AR(1) .97", "loader-bound bursts", "near-critical"]
)
def test_unflagged_intervals_hold_and_equal_cells_are_not_told_apart(bench, name):
    row = bench.covered(name, 3, SEEDS)
    assert row["unflagged"] >= 0.4 * len(SEEDS)
    assert row["coverage_unflagged"] >= 0.86  # 95 % of 60 and some room for so few seeds
    assert row["called_different"] <= 0.08


def test_on_independent_steps_intervals_are_narrow_and_seldom_flagged(bench):
    row = bench.covered("iid", 3, SEEDS)
    assert row["unflagged"] >= 0.9 * len(SEEDS)
    assert row["median_half"] <= 0.1


def test_a_machine_that_slows_down_is_flagged(bench):
    row = bench.covered("drift", 3, SEEDS)
    assert row["flagged"]["drift"] >= 0.95
    assert row["coverage_all"] >= 0.6  # flagged, and most of the intervals hold all the same
    assert row["called_different"] <= 0.08


def test_a_heavy_tail_is_flagged(bench):
    row = bench.covered("heavy tail", 3, SEEDS)
    assert row["flagged"]["heavy tail"] >= 0.9
