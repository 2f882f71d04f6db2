"""Which process of a script is the one that is followed."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from ctrkit.child.script.presence import claim_owner, is_first_rank
from ctrkit.core.lifeline import is_first_here, local_rank_of


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "1", "CTRKIT_OUTER_LOCAL_RANK": "LOCAL_RANK=1"}, True),  # srun ctrkit ...
        ({"LOCAL_RANK": "1", "CTRKIT_OUTER_LOCAL_RANK": "SLURM_LOCALID=1"}, False),
        ({"SLURM_LOCALID": "0", "LOCAL_RANK": "1"}, False),  # torchrun in a job of one task
        ({"SLURM_LOCALID": "3", "CTRKIT_OUTER_LOCAL_RANK": "SLURM_LOCALID=3"}, True),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "2"}, False),
        ({"SLURM_LOCALID": "10"}, False),
    ],
)
def test_the_first_of_its_host_is_followed(
    variables: dict[str, str], expected: bool | None
) -> None:
    assert is_first_here(variables) == expected


def test_a_launcher_names_a_process_by_the_innermost_of_its_variables() -> None:
    assert local_rank_of({"SLURM_LOCALID": "0", "LOCAL_RANK": "2"}) == "LOCAL_RANK=2"
    assert local_rank_of({}) == ""


@pytest.mark.parametrize(("local", "folder"), [("0", ""), ("1", "rank-5")])
def test_on_a_second_host_the_first_rank_has_the_childs_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, local: str, folder: str
) -> None:
    for name, value in {"RANK": "5", "LOCAL_RANK": local, "WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CTRKIT_OUTER_LOCAL_RANK", raising=False)
    owner = claim_owner(str(tmp_path), "1")
    assert owner.folder == os.path.join(str(tmp_path), folder).rstrip("/")
    assert (owner.rank, owner.world, owner.is_alone) == (5, 8, True)


@pytest.mark.parametrize(
    ("local", "identity", "expected"),
    [
        ("0", (), True),  # torchrun on a second host
        ("0", (1,), True),  # of its own, started by multiprocessing
        ("0", (2,), False),  # inherited, or accelerate's: each process is local rank 0
        ("1", (1,), False),  # under torchrun each rank trains in one of its own
        (None, (1,), True),
        (None, (2,), False),
        (None, (), False),
    ],
)
def test_of_processes_that_multiprocessing_started_the_number_tells(
    monkeypatch: pytest.MonkeyPatch, local: str | None, identity: tuple[int, ...], expected: bool
) -> None:
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_RANK", local)
    monkeypatch.setattr(multiprocessing.current_process(), "_identity", identity)
    assert is_first_rank(3) == expected
    assert is_first_rank(0)
