"""What is reported about the start of a forked trial."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ctrkit.commands.trial_launcher import TrialLauncher
from ctrkit.core.child_records import Inspection, Measurement
from ctrkit.core.config import Cell, make_cell
from ctrkit.probe.cell_results import costs_of
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult


class _Server:
    def __init__(self, can: bool = True) -> None:
        self.can, self.problem = can, "" if can else "gone"

    def prepare(self) -> bool:
        return self.can


def _launcher(server: Any) -> TrialLauncher:
    unused: Any = None
    return TrialLauncher(unused, unused, unused, unused, unused, server)


def _outcome(forked: bool) -> Any:
    return SimpleNamespace(forked=forked)


def test_a_forked_trial_has_the_start_up_of_a_real_run() -> None:
    launcher = _launcher(_Server())
    fresh = Measurement(kind="full", startup_s=5.0, import_s=3.0)
    # the next one will be forked
    assert launcher._as_started_anew(fresh, _outcome(False)) == (fresh, pytest.approx(2.7))
    forked = Measurement(kind="full", startup_s=2.25, import_s=0.25)
    measured, saved_s = launcher._as_started_anew(forked, _outcome(True))
    assert (measured.startup_s, saved_s) == (5.0, 2.75)
    # one that confirms is started anew, and says nothing of the others
    assert launcher._as_started_anew(fresh, _outcome(False)) == (fresh, 2.75)


def test_nothing_is_saved_where_nothing_is_forked() -> None:
    fresh = Measurement(kind="full", startup_s=5.0, import_s=3.0)
    for server in (None, _Server(can=False)):
        launcher = _launcher(server)
        for _ in range(2):
            assert launcher._as_started_anew(fresh, _outcome(False)) == (fresh, 0.0)


def test_a_server_that_is_lost_saves_nothing_any_more() -> None:
    server = _Server()
    launcher = _launcher(server)
    fresh = Measurement(kind="full", startup_s=5.0, import_s=3.0)
    assert launcher._as_started_anew(fresh, _outcome(False))[1] > 0
    server.problem = "it has ended"
    assert launcher._as_started_anew(fresh, _outcome(False)) == (fresh, 0.0)


def test_a_forked_trial_that_did_not_come_so_far_is_left_as_it_is() -> None:
    launcher = _launcher(_Server())
    launcher.import_s = 3.0
    cut = Measurement(kind="full")
    assert launcher._as_started_anew(cut, _outcome(True)) == (cut, 0.0)


@pytest.mark.parametrize(
    ("import_s", "confirms", "can", "forked"),
    [
        (None, False, True, False),  # nobody knows yet what a real start takes
        (3.0, False, True, True),
        (3.0, True, True, False),  # the projection rests on it
        (3.0, False, False, False),
    ],
)
def test_which_trials_are_forked(
    import_s: float | None, confirms: bool, can: bool, forked: bool
) -> None:
    server = _Server(can)
    launcher = _launcher(server)
    launcher.import_s = import_s
    request = TrialRequest(kind="full", cell=Cell(), confirms=confirms)
    assert launcher._server(request) is (server if forked else None)


def test_without_a_server_all_are_started_anew() -> None:
    launcher = _launcher(None)
    launcher.import_s = 3.0
    assert launcher._server(TrialRequest(kind="full", cell=Cell())) is None


def test_what_forking_saves_is_planned_with() -> None:
    """A forked launch costs less; workers that are spawned in it start as they always do."""
    cell = make_cell(loader="custom", workers=2, start_method="spawn", batch_size=8)
    measured = Measurement(kind="full", startup_s=5.0, import_s=3.0)
    costs = [
        costs_of(cell, [_trial(cell, measured, saved_s)], _inspection(), cores=2)
        for saved_s in (0.0, 2.75)
    ]
    assert [c.launch_s for c in costs] == [5.5, 2.75]
    assert costs[0].start_s == costs[1].start_s == 5.5
    assert costs[0].workers_s == costs[1].workers_s


def _trial(cell: Cell, measured: Measurement, saved_s: float) -> Trial:
    result = TrialResult(verdict="ok", measurement=measured, saved_s=saved_s)
    return Trial(request=TrialRequest(kind="full", cell=cell), result=result, launch=1)


def _inspection() -> Inspection:
    return Inspection(
        devices=["cpu"], device_names={}, torch_version="2", workload_name="x",
        workload_fingerprint="w", data_fingerprint="d", axes=["workers"], loaders=["custom"],
        default_batch_size=8, has_task=False, sizes=None,
    )  # fmt: skip
