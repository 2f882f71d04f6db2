"""What is told of the start of a trial that was forked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ctrkit.commands.trial_launcher import TrialLauncher
from ctrkit.core.config import Cell
from ctrkit.core.records import Measurement
from ctrkit.probe.trials import TrialRequest


class _Server:
    def __init__(self, can: bool = True) -> None:
        self.can = can

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
    assert launcher._as_started_anew(fresh, _outcome(False)) == (fresh, 0.0)
    forked = Measurement(kind="full", startup_s=2.25, import_s=0.25)
    measured, saved_s = launcher._as_started_anew(forked, _outcome(True))
    assert (measured.startup_s, saved_s) == (5.0, 2.75)


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
