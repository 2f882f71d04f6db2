"""The installed command, run as a user would."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support import COMMAND, Run


@pytest.fixture
def ctrkit(tmp_path: Path) -> Run:
    """Run the command in an empty folder; stdout and stderr are captured."""

    def run(*arguments: str | Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated store on which an epoch takes seconds."""
    path = tmp_path_factory.mktemp("data") / "small"
    size = ["--rows", "6000", "--users", "200", "--items", "400"]
    done = subprocess.run(
        [COMMAND, "data", "synth", "--out", path, *size], capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return path
