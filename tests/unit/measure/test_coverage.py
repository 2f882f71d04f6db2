"""Coverage, width and flags of intervals on simulated machines: a few seeds of bench/coverage."""

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
    "name",
    [
        "iid", "AR(1) .9", "loader-bound bursts", "near-critical", "launches 3%",
        "batches cv 0.2, spread", "batches cv 0.4, 60 steps",
    ],
)  # fmt: skip
def test_unflagged_intervals_hold_and_equal_cells_are_not_told_apart(bench, name):
    row = bench.covered(name, 3, SEEDS)
    assert row["unflagged"] >= 0.4 * len(SEEDS)
    assert row["coverage_unflagged"] >= 0.86  # 95 % of 60 and some room for so few seeds
    assert row["called_different"] <= 0.08


def test_on_independent_steps_intervals_are_narrow_and_seldom_flagged(bench):
    row = bench.covered("iid", 3, SEEDS)
    assert row["unflagged"] >= 0.9 * len(SEEDS)
    assert row["median_half"] <= 0.1


@pytest.mark.parametrize("share", ["10%", "20%"])
def test_a_machine_that_slows_down_is_flagged_and_the_flag_acts(bench, share):
    row = bench.covered(f"slower by {share} in the probe", 3, SEEDS)
    # launches differ by 3 % and more on most machines: a tenth may be chance
    assert row["flagged"].get("drift", 0) >= (0.95 if share == "20%" else 0.1)
    assert row["coverage_all"] >= 0.9
    assert row["called_different"] <= 0.08
    assert row["open_above"] >= (0.95 if share == "20%" else 0)


def test_launches_that_differ_are_no_drift(bench):
    """At 5 %, which is nominal, whatever launches differ by."""
    for spread in ("3%", "10%", "15%"):
        row = bench.covered(f"launches {spread}", 6, SEEDS)
        assert row["flagged"].get("drift", 0) <= 0.12


@pytest.mark.parametrize("launches", [2, 3])
def test_sorted_data_is_seen_by_launches_that_begin_elsewhere(bench, launches):
    row = bench.covered("sorted, 4 to 304 ms", launches, range(20))
    assert row["flagged"]["varies over the epoch"] == 1
    assert row["coverage_all"] == 1
    assert row["median_error"] < 0.05
    # between the middle and the end nothing bounds it until a launch was there
    assert row["open_above"] == (1 if launches == 2 else 0)


def test_the_same_batches_in_every_launch_count_once(bench):
    seen_once = bench.covered("batches cv 0.4, the first only", 3, SEEDS)
    spread = bench.covered("batches cv 0.4, spread", 3, SEEDS)
    assert seen_once["coverage_all"] >= 0.9
    assert seen_once["flagged"][bench.FIRST_ONLY] == 1
    assert spread["median_half"] < 0.85 * seen_once["median_half"]
    assert spread["median_error"] < seen_once["median_error"]


@pytest.mark.parametrize("spread", ["10%", "15%"])
def test_pairs_of_the_workload_tell_of_launches_that_differ(bench, spread):
    known = bench.covered(f"launches {spread}, 12 pairs known", 1, SEEDS)
    unknown = bench.covered(f"launches {spread}", 1, SEEDS)
    assert known["coverage_all"] >= 0.88 > unknown["coverage_all"]


@pytest.mark.parametrize("name", ["stalls in 2 %", "bursts of 5 steps"])
def test_a_heavy_tail_widens_the_interval(bench, name):
    row = bench.covered(name, 3, SEEDS)
    assert row["coverage_flagged"] >= 0.85


def test_stretches_of_slow_steps_are_seen(bench):
    row = bench.covered("bursts of 20 steps", 3, SEEDS)
    # three launches in which none came look like a steady machine: 1 in 11
    assert row["unflagged"] <= 0.2 * len(SEEDS)
    assert row["coverage_flagged"] >= 0.9


def test_sorted_data_is_seen_in_the_first_batches_where_it_rises_enough(bench):
    row = bench.covered("sorted, 4 to 12 ms", 1, SEEDS)
    assert row["flagged"]["not steady"] >= 0.7
    assert row["coverage_all"] >= 0.75


def test_a_heavy_tail_is_flagged(bench):
    row = bench.covered("heavy tail", 3, SEEDS)
    assert row["flagged"]["heavy tail"] >= 0.9
