"""Real failures and healthy loaders through the installed command; all of them with --slow."""

from __future__ import annotations

import ast
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hang_check import SeenProbe, is_named, probe_scenario
from hang_corpus import START_METHODS, WORKERS, Scenario, load_corpus, load_scenario, unmet

from ctrkit.core.records import VERDICTS

CORPUS = {scenario.name: scenario for scenario in load_corpus()}

# One of each kind that is quickly over; the cells leave out what needs longer to start.
HANDFUL = {
    "hang_after_batches": ([2], ["fork"]),
    "gil_held_in_c": ([1], ["fork"]),
    "stopped": ([1], ["fork"]),
    "killed": ([1], ["fork"]),
    "error_in_getitem": ([2], ["fork"]),
    "main_deadlock": ([0], []),
    "thread_at_shutdown": ([0], []),
    "grandchildren": ([1], ["fork"]),
}


def problems_of(seen: SeenProbe) -> list[str]:
    """All that is wrong with a probe, a line each, so that a failed test says why."""
    of_trials = [
        f"{trial.workers} {trial.start_method}: {problem} [{trial.reason}]"
        for trial in seen.trials
        for problem in trial.problems
    ]
    return [*seen.problems, *of_trials]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SeenProbe]:
    """The handful, probed a few at a time: what hangs leaves the machine to the others."""

    def probe(name: str) -> SeenProbe:
        workers, start_methods = HANDFUL[name]
        folder = tmp_path_factory.mktemp(name)
        return probe_scenario(CORPUS[name], workers, start_methods, folder)

    with ThreadPoolExecutor(4) as pool:
        seen = dict(zip(HANDFUL, pool.map(probe, HANDFUL), strict=True))
    return seen.__getitem__


@pytest.mark.parametrize("name", HANDFUL)
def test_a_handful(probed: Callable[[str], SeenProbe], name: str) -> None:
    if reason := unmet(CORPUS[name]):
        pytest.skip(reason)
    seen = probed(name)
    assert problems_of(seen) == []
    assert seen.trials


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CORPUS)
def test_every_scenario(tmp_path: Path, name: str) -> None:
    if reason := unmet(CORPUS[name]):
        pytest.skip(reason)
    seen = probe_scenario(CORPUS[name], WORKERS, START_METHODS, tmp_path)
    assert problems_of(seen) == []
    assert seen.trials


def test_the_corpus_is_wide_and_says_what_is_right() -> None:
    failures = [scenario for scenario in CORPUS.values() if not scenario.control]
    assert len(failures) >= 30
    assert len(CORPUS) - len(failures) >= 8
    assert len({scenario.title for scenario in CORPUS.values()}) == len(CORPUS)
    for scenario in CORPUS.values():
        verdicts = {verdict for cell in scenario.cells.values() for verdict in cell}
        assert verdicts <= set(VERDICTS), scenario.name
        assert scenario.cells.keys() <= {"0", *START_METHODS}, scenario.name
        assert scenario.guilty in ("worker", "main", None), scenario.name
        assert (verdicts == {"ok"}) == (scenario.guilty is None), scenario.name
        if scenario.control:
            assert verdicts == {"ok"}, scenario.name


# Nothing is left of these that could show a line: killed, gone, or lost on the way.
WITHOUT_A_LINE = {
    "exit_code", "exit_zero", "files_of_batches", "killed", "main_killed", "oom_killed",
    "shm_full", "unpicklable_batch", "unpicklable_data_set",
}  # fmt: skip


def test_every_guilty_line_that_can_be_known_is_marked() -> None:
    unmarked = {s.name for s in CORPUS.values() if s.guilty is not None and not s.guilty_lines}
    assert unmarked == WITHOUT_A_LINE


def test_every_scenario_has_the_promised_signature() -> None:
    for scenario in CORPUS.values():
        functions = {
            node.name: [argument.arg for argument in node.args.args]
            for node in ast.parse(scenario.path.read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        assert functions["make_loader"] == ["workers", "start_method", "batch_size"], scenario.name


def test_the_axes_of_a_scenario_leave_out_what_makes_no_sense() -> None:
    assert CORPUS["healthy"].axes(WORKERS, ("fork", "spawn")) == ([0, 1, 2], ["fork", "spawn"])
    assert CORPUS["main_deadlock"].axes(WORKERS, START_METHODS) == ([0], [])
    assert CORPUS["hang_in_worker_init"].axes(WORKERS, ("fork",)) == ([1, 2], ["fork"])


def test_a_typing_mistake_in_a_declaration_is_told(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text('EXPECT = {"title": "x", "cells": {}, "guilty": None, "budget": 2}\n')
    with pytest.raises(ValueError, match=r"unknown keys: budget$"):
        load_scenario(path)
    path.write_text("def make_loader(): ...\n")
    with pytest.raises(ValueError, match="has no EXPECT"):
        load_scenario(path)


def scenario_with(guilty: str, *lines: str) -> Scenario:
    return Scenario(
        name="x", path=Path("x.py"), title="x", cells={}, guilty=guilty, guilty_lines=lines
    )


def test_a_culprit_must_be_named_with_its_line() -> None:
    scenario = scenario_with("worker", "x.py:12")
    assert is_named(scenario, 2, "worker 0 (pid 71) is at x.py:12 in __getitem__")
    assert is_named(scenario, 2, 'DataLoader worker process 1: File "/a/x.py", line 12, in f')
    assert not is_named(scenario, 2, "worker 0 (pid 71) is at x.py:123 in __getitem__")
    assert not is_named(scenario, 2, "worker 0 (pid 71) is at ax.py:12 in __getitem__")
    assert not is_named(scenario, 2, "the main process is at x.py:12 in __iter__")
    assert is_named(scenario, 0, "the main process is at x.py:12 in __iter__")
    assert is_named(scenario_with("worker"), 1, "DataLoader worker (pid 7) is killed by signal")
    assert not is_named(scenario_with("worker"), 1, "a worker died")
