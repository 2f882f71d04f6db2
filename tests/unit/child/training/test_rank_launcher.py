import os
import signal

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from ctrkit.child.training.rank_launcher import RankEnd, first_failure, rank_ends
from ctrkit.core.child_files import save_measurement
from ctrkit.core.child_records import ChildError, Measurement, WorkerExit
from ctrkit.core.progress import ProgressWriter, RankWriter, Stage

LOST = "RuntimeError: [gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"


def error(message, verdict="crashed", **more):
    return ChildError(verdict=verdict, stage="step", message=message, traceback="...", **more)


def test_a_rank_that_was_killed_is_to_blame_and_not_who_lost_it():
    found = first_failure([
        RankEnd(rank=0, pid=10, exit_code=1, error=error(LOST), written_s=5.0, stage="step"),
        RankEnd(rank=1, pid=11, exit_code=-signal.SIGKILL, stage="validation"),
    ])  # fmt: skip
    assert (found.verdict, found.stage, found.message) == ("worker-died", "validation", LOST)
    assert found.dead_workers == [
        WorkerExit(pid=11, worker=1, exit_code=-signal.SIGKILL, kind="rank")
    ]


def test_the_agents_own_signal_is_no_death():
    found = first_failure([
        RankEnd(rank=0, pid=10, exit_code=-signal.SIGTERM),
        RankEnd(rank=1, pid=11, exit_code=1, error=error("KeyError: 'x'"), written_s=5.0),
    ])  # fmt: skip
    assert (found.message, found.rank) == ("KeyError: 'x'", 1)


def test_who_raised_first_is_to_blame_but_for_an_echo():
    echo = RankEnd(rank=0, pid=10, exit_code=1, error=error(LOST), written_s=1.0)
    raised = [
        RankEnd(rank=rank, pid=10 + rank, exit_code=1, error=error(f"E{rank}"), written_s=at)
        for rank, at in ((1, 3.0), (2, 2.0))
    ]
    assert first_failure([echo, *raised]).rank == 2
    assert first_failure([echo]).message == LOST


def test_bad_input_is_everybodys():
    usage = error("data changed", verdict="usage")
    assert first_failure([RankEnd(rank=1, pid=11, exit_code=2, error=usage)]) == usage


@pytest.mark.parametrize("code", [0, 3])
def test_a_rank_that_just_left_is_named_with_its_code(code):
    found = first_failure([RankEnd(rank=1, pid=11, exit_code=code)])
    assert found.dead_workers[0].exit_code == code
    assert found.message == "the other ranks were ended"


def test_ends_are_what_torch_saw_and_what_the_ranks_wrote(tmp_path):
    RankWriter(tmp_path, 1)
    folder = tmp_path / "rank-1"
    folder.mkdir()
    with ProgressWriter(folder / "progress.bin") as progress:
        progress.enter(Stage.MODEL)
    save_measurement(folder / "measurement.json", Measurement(kind="train", error=error("E1")))
    failure = ProcessFailure(local_rank=2, pid=12, exitcode=-9, error_file="<N/A>")
    written, killed = rank_ends(tmp_path, 3, {2: failure})
    assert (written.rank, written.pid, written.exit_code) == (1, os.getpid(), None)
    assert (written.error, written.stage) == (error("E1"), "model")
    assert (killed.rank, killed.pid, killed.exit_code, killed.error) == (2, 12, -9, None)
