"""bench/pairs.py continues where it was ended, and leaves no pair out."""

import argparse
import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench" / "pairs.py"
PAIR = {
    "date": "2030-01-02T03:04:05+00:00", "machine": "m", "uneven": False, "flags": [],
    "projected_epoch_s": 10.0, "low_s": 9.0, "high_s": 11.0, "probe_s": 5.0, "size": 50,
    "probed_unix_s": 0.0, "folder": "f",
}  # fmt: skip


@pytest.fixture
def bench(monkeypatch):
    spec = importlib.util.spec_from_file_location("bench_pairs", BENCH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def clock(bench, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(bench.time, "time", lambda: now[0])
    monkeypatch.setattr(bench.time, "sleep", lambda s: now.__setitem__(0, now[0] + max(s, 1.0)))
    monkeypatch.setattr(bench, "save", lambda out, pairs: {})
    return now


def sitting(bench, pairs, **wanted):
    options = argparse.Namespace(
        short=0, long=0, later=0, later_seconds=3600.0, epoch_seconds=None, cases="",
        work=Path("w"), out=Path("o"), no_wait=False, beside="",
    )  # fmt: skip
    vars(options).update(wanted)
    return bench.Sitting(options, pairs)


def simulated(bench, monkeypatch, now, took_s=10.0):
    """Probes and epochs that only note when they were made, 100 s apart."""
    log = []

    def begin(case, kind, data, seconds, known):
        now[0] += 100
        log.append((kind, "probe", now[0]))
        return PAIR | {"kind": kind, "case": case.name, "probed_unix_s": now[0]}

    def end(case, pair, data):
        log.append((pair["kind"], "epoch", now[0]))
        apart_s = now[0] - pair["probed_unix_s"]
        return pair | {
            "actual_epoch_s": took_s, "apart_s": apart_s, "epoch_per_probe": took_s / 5,
            "error": 10 / took_s - 1, "covered": 9 <= took_s <= 11,
        }  # fmt: skip

    monkeypatch.setattr(bench, "begin_pair", begin)
    monkeypatch.setattr(bench, "end_pair", end)
    return log


def test_later_pairs_are_run_an_hour_after_their_probe(bench, clock, monkeypatch):
    log, pairs = simulated(bench, monkeypatch, clock), []
    sitting(bench, pairs, short=2, later=2).run()
    assert [what[:2] for what in log[:4]] == [
        ("later", "probe"), ("later", "probe"), ("short", "probe"), ("short", "epoch"),
    ]  # fmt: skip
    assert len(pairs) == 4
    assert all(pair["apart_s"] >= 3600 for pair in pairs if pair["kind"] == "later")


def test_a_sitting_may_leave_epochs_that_are_not_due_to_a_later_one(bench, clock, monkeypatch):
    simulated(bench, monkeypatch, clock)
    pairs = []
    sitting(bench, pairs, short=1, later=2, no_wait=True, beside="another pair").run()
    assert [pair["beside"] for pair in pairs] == ["another pair"] * 3
    assert sum(bench._waits(pair) for pair in pairs) == 2
    clock[0] += 3600.0
    sitting(bench, pairs, short=1, later=2).run()
    assert not any(map(bench._waits, pairs))


def test_the_same_command_goes_on_where_it_was_ended(bench, clock, monkeypatch):
    log = simulated(bench, monkeypatch, clock)
    pairs = [
        PAIR | {"kind": "later", "case": bench.CASES[0].name, "probed_unix_s": 900.0},
        PAIR | {"kind": "short", "case": bench.CASES[1].name, "probed_unix_s": 990.0},
    ]
    sitting(bench, pairs, short=2, later=1).run()
    assert sum(what == "probe" for _, what, _ in log) == 1
    assert log[0][:2] == ("short", "epoch")
    assert all("actual_epoch_s" in pair for pair in pairs)
    again = len(log)
    sitting(bench, pairs, short=2, later=1).run()
    assert len(log) == again


def test_no_pair_is_left_out_for_what_came_of_it(bench, clock, monkeypatch):
    simulated(bench, monkeypatch, clock, took_s=1.0)  # far shorter than its probe
    pairs = [PAIR | {"kind": "short", "case": "c", "no_projection": "busy", "folder": ""}]
    del pairs[0]["folder"]
    sitting(bench, pairs, short=3).run()
    found = bench.summary(pairs)
    assert (found["pairs"], found["ended"], found["without_a_projection"]) == (3, 2, 1)
    assert found["groups"]["all"]["held"] == 0
    assert found["groups"]["all"]["coverage_high"] < 0.9
    text = bench.markdown(pairs, found)
    assert "0 of 2, 0.0% (0 to 84 %)" in text
    assert "busy" in text


def test_a_run_that_fails_is_counted_and_does_not_end_the_others(bench, clock, monkeypatch):
    simulated(bench, monkeypatch, clock)

    def fails(case, pair, data):
        raise bench.FailedError("exit code 6")

    monkeypatch.setattr(bench, "end_pair", fails)
    pairs = []
    sitting(bench, pairs, short=2).run()
    assert bench.summary(pairs)["without_an_epoch"] == 2


def test_there_are_cases_whose_batches_differ_in_cost(bench):
    assert sum(case.data in bench.UNEVEN for case in bench.CASES) >= 5
    for name in bench.UNEVEN:
        assert f"def {name}(" in bench.LOADERS.read_text()
