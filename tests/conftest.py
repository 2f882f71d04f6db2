"""Options and fixtures that all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# a crowded machine may take any time for an example
settings.register_profile("ctrkit", deadline=None)
settings.load_profile("ctrkit")

# files of tests share the cores: torch's threads that wait for each other must not spin meanwhile,
# which doubles the CPU time of every training; read when torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# hundreds of processes import ctrkit: let them find it compiled, as they do at a user's
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# started in the background of a shell that has no job control, all would be born deaf to Ctrl-C
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run tests that take minutes, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --slow"))


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has a cache folder of its own, so that none sees a user's runs."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("CTRKIT_HOME", str(home))
    return home
