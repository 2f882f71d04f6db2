"""Starts the ranks of one machine with torch's elastic agent, and tells which rank failed first.

It runs in the supervised child, and the ranks are its children. It restarts none of them: when one
dies, the whole group ends, and the error names the rank, its pid and its exit code. The supervisor
keeps the evidence and the incident, and starts a new group from the last checkpoint. Under
`torchrun`, the agent is torch's own, and `--max-restarts` does the same on several machines.
"""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ctrkit.core import stops
from ctrkit.core.child_files import load_measurement
from ctrkit.core.child_records import ChildError, WorkerExit
from ctrkit.core.lifeline import SUPERVISOR_VARIABLE
from ctrkit.core.progress import Stage, rank_folder, read_progress, read_ranks

_HERE = "127.0.0.1"
_AGENTS_SIGNAL = "SIGQUIT"
_LOOPBACK = ("lo", "lo0")
_MEET_S = 600
# errors of a rank that has lost its partner
_LOST = re.compile(
    r"[Cc]onnection (was )?(closed|reset|refused)|[Bb]roken pipe|[Ss]ocket (closed|error)"
    r"|DistNetworkError|DistBackendError|remote process exited|failed to (recv|send)",
)


@dataclass(frozen=True, kw_only=True)
class RankEnd:
    """How a rank failed.

    Args:
        rank: its number.
        pid: 0 if unknown.
        exit_code: negative for a signal; None if it was ended because another rank failed.
        error: the error that it wrote to its file.
        written_s: when it wrote the error, in seconds of the file system's clock.
        stage: its last stage, from its progress file.
    """

    rank: int
    pid: int
    exit_code: int | None = None
    error: ChildError | None = None
    written_s: float = 0.0
    stage: str = "import"

    @property
    def was_killed(self) -> bool:
        """Whether a signal killed it that the agent does not use itself."""
        return self.exit_code is not None and self.exit_code not in (
            -signal.SIGTERM,
            *range(256),
        )

    @property
    def is_echo(self) -> bool:
        """Whether its error only says that another rank has gone."""
        return self.error is not None and _LOST.search(self.error.message) is not None


def run_ranks(spec_path: str, folder: Path, ranks: int) -> ChildError | None:
    """Run `python -m ctrkit.child SPEC` in several ranks, until all end or one fails.

    Args:
        spec_path: the spec file that each rank runs.
        folder: the child's folder.
        ranks: the number of ranks.

    Returns:
        The error of the rank that failed first; None if none failed.
    """
    os.environ[SUPERVISOR_VARIABLE] = str(os.getpid())  # a rank ends when its agent ends
    os.environ[stops.VARIABLE] = "1"
    # on other signals torch's agent would end the ranks at once
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = _AGENTS_SIGNAL
    # gloo would look up the machine's own name, which on many laptops leads nowhere
    loopback = [name for _, name in socket.if_nameindex() if name in _LOOPBACK]
    if loopback:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=ranks, run_id=uuid.uuid4().hex,
        rdzv_backend="c10d", rdzv_endpoint=f"{_HERE}:0", local_addr=_HERE,
        rdzv_configs={"timeout": _MEET_S}, max_restarts=0,
        **_where_known(signals_to_handle=_AGENTS_SIGNAL),
    )  # fmt: skip
    stops.tell(_tell_ranks)
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "ctrkit.child", spec_path)
    except ChildFailedError as error:
        if stops.noted() and any(
            one.exitcode == stops.EXIT_CODE for one in error.failures.values()
        ):
            raise stops.Stopped from None
        return first_failure(rank_ends(folder, ranks, error.failures))
    return None


def _where_known(**options: Any) -> dict[str, Any]:
    """The options that this version of torch's launcher knows."""
    names = {f.name for f in dataclasses.fields(LaunchConfig)}
    return {name: value for name, value in options.items() if name in names}


def _tell_ranks() -> None:
    """Pass a stop on to the ranks, which agree on it among themselves."""
    for rank in psutil.Process().children():
        with suppress(psutil.Error):
            rank.send_signal(signal.SIGINT)


def rank_ends(folder: Path, ranks: int, failures: Mapping[int, ProcessFailure]) -> list[RankEnd]:
    """All ranks that failed: what torch saw of them, and what they wrote themselves."""
    pids = {one.worker: one.pid for one in read_ranks(folder)}
    ends = []
    for rank in range(ranks):
        path = rank_folder(folder, rank) / "measurement.json"
        measured, progress = load_measurement(path), read_progress(path.with_name("progress.bin"))
        failure = failures.get(rank)
        error = measured.error if measured is not None else None
        if failure is None and error is None:
            continue
        ends.append(
            RankEnd(
                rank=rank,
                pid=failure.pid if failure is not None else pids.get(rank, 0),
                exit_code=None if failure is None else failure.exitcode,
                error=error,
                written_s=path.stat().st_mtime if error is not None else 0.0,
                stage=(Stage.IMPORT if progress is None else progress.stage).label,
            )
        )
    return ends


def first_failure(ends: Sequence[RankEnd]) -> ChildError:
    """The error that came first: a death by a signal, else the first that is no echo."""
    killed = [one for one in ends if one.was_killed]
    raised = sorted(
        (one for one in ends if one.error is not None), key=lambda one: (one.is_echo, one.written_s)
    )
    if killed or not raised:
        dead = (killed or list(ends))[0]
        return _death(dead, raised[0].error if raised else None)
    first = raised[0]
    assert first.error is not None
    if first.error.verdict == "usage":
        return first.error
    return dataclasses.replace(first.error, rank=first.rank)


def _death(dead: RankEnd, then: ChildError | None) -> ChildError:
    code = dead.exit_code if dead.exit_code is not None else 1
    return ChildError(
        verdict="worker-died",
        stage=dead.stage,
        message=then.message if then is not None else "the other ranks were ended",
        traceback="",
        dead_workers=[WorkerExit(pid=dead.pid, worker=dead.rank, exit_code=code, kind="rank")],
    )
