"""torch's error for a dead worker is raised after a save, and not taken for the save's failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ctrkit.child.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.child.training.worker_deaths import deaths_told_afterwards

DEATH = "DataLoader worker (pid 7) is killed by signal: Killed."


@pytest.fixture(autouse=True)
def torchs_handler() -> Iterator[None]:
    """As torch's own: it raises as soon as a worker has died."""

    def raises(number: int, frame: object) -> None:
        raise RuntimeError(DEATH)

    before = signal.signal(signal.SIGCHLD, raises)
    yield
    signal.signal(signal.SIGCHLD, before)


def dies() -> None:
    os.kill(os.getpid(), signal.SIGCHLD)


@pytest.mark.parametrize("function", ["save", "load"])
def test_a_death_within_a_save_is_raised_once_the_checkpoint_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    real = getattr(torch, function)

    def meanwhile(*arguments: Any, **more: Any) -> Any:
        dies()
        return real(*arguments, **more)

    monkeypatch.setattr(torch, function, meanwhile)
    with pytest.raises(RuntimeError, match="is killed by signal"):
        save_checkpoint(tmp_path / "last.pt", {"steps": 3})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "last.pt")["steps"] == 3


def test_the_handler_is_there_again_and_an_error_of_the_block_comes_first() -> None:
    with pytest.raises(ValueError, match="of its own"), deaths_told_afterwards():
        dies()
        raise ValueError("of its own")
    with pytest.raises(RuntimeError, match="is killed by signal"):
        dies()


def test_without_a_death_and_without_a_handler_nothing_is_raised() -> None:
    with deaths_told_afterwards():
        pass
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with deaths_told_afterwards():
        dies()
