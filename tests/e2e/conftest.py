"""Fixtures that run the installed command as a user would, or within this process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import COMMAND, Run

from ctrkit.cli.app import run_command


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


@pytest.fixture
def in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Run:
    """Run a command that starts no child as `ctrkit` does, but in this process.

    What is asked is its words and its exit code; that the installed command says the same, and
    how it starts and ends, other tests show.
    """

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        words = [*map(str, arguments)]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ctrkit", *words])
        capfd.readouterr()
        code = run_command()
        said = capfd.readouterr()
        return subprocess.CompletedProcess(words, code, said.out, said.err)

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
