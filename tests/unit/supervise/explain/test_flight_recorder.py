"""Fake NCCL dumps in torch's format: no GPU and no NCCL is used."""

from __future__ import annotations

import dataclasses
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

from ctrkit.core.config import ChildSpec, ScriptSpec, WorkloadSpec, make_cell
from ctrkit.supervise.explain.flight_recorder import (
    collect_dumps,
    hang_words,
    read_dump,
    recorder_variables,
)

TORCH = {"name": "all_reduce", "filename": "/x/site-packages/torch/distributed/c10d.py", "line": 9}


def entry(number: int, state: str, name: str = "nccl:all_reduce", line: int = 88) -> dict[str, Any]:
    own = {"name": "step", "filename": "/home/me/train.py", "line": line}
    return {"collective_seq_id": number, "p2p_seq_id": 0, "profiling_name": name, "state": state,
            "frames": [TORCH, own], "input_sizes": [[3]]}  # fmt: skip


def dump(*entries: dict[str, Any]) -> bytes:
    return pickle.dumps({"version": "2.4", "entries": list(entries)}, protocol=2)


def spec(**cell: Any) -> ChildSpec:
    return ChildSpec(kind="train", folder="f", workload=WorkloadSpec(), cell=make_cell(**cell))


def test_it_is_switched_on_for_our_ranks_that_use_nccl_and_nobody_else() -> None:
    on = recorder_variables(spec(device="cuda", nproc=2), Path("/f"), {})
    assert on["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "2000"
    assert on["TORCH_NCCL_DEBUG_INFO_TEMP_FILE"] == "/f/nccl-dump-"
    assert recorder_variables(spec(device="cpu", nproc=2), Path("/f"), {}) == {}
    assert recorder_variables(spec(device="cuda"), Path("/f"), {}) == {}
    script = WorkloadSpec(script=ScriptSpec(command=["python", "x.py"], folder="/"))
    of_script = dataclasses.replace(spec(device="cuda", nproc=2), workload=script)
    assert recorder_variables(of_script, Path("/f"), {}) == {}
    for own in ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"):
        assert recorder_variables(spec(device="cuda", nproc=2), Path("/f"), {own: "1"}) == {}


def test_the_waiting_rank_and_the_one_that_has_not_come_are_named(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    (tmp_path / "nccl-dump-0").write_bytes(dump(entry(811, "completed"), entry(812, "started")))
    (tmp_path / "nccl-dump-1").write_bytes(dump(entry(811, "completed", line=70)))
    assert collect_dumps(tmp_path, evidence, ask=False) == (
        "NCCL's flight recorder: rank 0 waits in all_reduce number 812 (at train.py:88 in step); "
        "rank 1 has not come to it: its last was all_reduce number 811 (at train.py:70 in step)"
    )
    assert sorted(path.name for path in evidence.iterdir()) == ["nccl-dump-0", "nccl-dump-1"]


def test_ranks_that_call_different_collectives_are_both_named(tmp_path: Path) -> None:
    for rank, name in enumerate(("nccl:all_reduce", "nccl:broadcast")):
        (tmp_path / f"nccl-dump-{rank}").write_bytes(dump(entry(5, "scheduled", name)))
    rings = {rank: read_dump(tmp_path / f"nccl-dump-{rank}") for rank in (0, 1)}
    assert "rank 0 waits in all_reduce number 5" in hang_words(rings)
    assert "rank 1 waits in broadcast number 5" in hang_words(rings)
    assert hang_words({0: read_dump(tmp_path / "none")}) == ""


def test_a_rank_that_lives_is_asked_by_its_pipe(tmp_path: Path) -> None:
    evidence = tmp_path / "evidence"
    evidence.mkdir()
    os.mkfifo(tmp_path / "nccl-pipe-3.pipe")
    reader = os.open(tmp_path / "nccl-pipe-3.pipe", os.O_RDONLY | os.O_NONBLOCK)

    def torch_monitor() -> None:
        while True:
            try:
                if os.read(reader, 1):
                    break
            except BlockingIOError:
                pass
        (tmp_path / "nccl-dump-3").write_bytes(dump(entry(1, "started")))

    thread = threading.Thread(target=torch_monitor, daemon=True)
    thread.start()
    assert "rank 3 waits in all_reduce number 1" in collect_dumps(tmp_path, evidence, ask=True)
    thread.join(5)
    os.close(reader)


def test_a_pipe_that_nobody_reads_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nccl-pipe-0.pipe")
    assert collect_dumps(tmp_path, tmp_path, ask=True) == ""


class _RunsCode:
    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/never-made-by-a-dump",)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02}", b"text", pickle.dumps([1]), pickle.dumps({"entries": [_RunsCode()]})],
)
def test_what_is_no_whole_dump_is_none_and_runs_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "nccl-dump-0"
    path.write_bytes(content)
    assert read_dump(path) == []
    assert not Path("/tmp/never-made-by-a-dump").exists()


class _TypedList:
    """What torch writes of a list of integers."""

    def __reduce__(self) -> Any:
        from torch.jit._pickle import build_intlist

        return build_intlist, ([7],)


def test_typed_lists_as_torch_writes_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(dump(entry(5, "started") | {"input_sizes": _TypedList()}))
    (found,) = read_dump(tmp_path / "d")
    assert (found.number, found.place) == (5, "train.py:88 in step")
