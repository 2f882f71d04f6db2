"""`torchrun -m ctrkit train`: what a process does that torchrun has started as a rank.

Rank 0 is the normal command: it makes the run folder and supervises a child, which is the rank. The
other ranks become children at once, and get the spec from rank 0. If a group loses a rank,
torchrun's agent starts it again, and rank 0 then continues the run that it had begun.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ctrkit.commands.options import Axes
from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import UsageError
from ctrkit.core.lifeline import rank_of_environment
from ctrkit.core.runs import Incident, RunFolder


@dataclass(frozen=True)
class Launch:
    """This process as one of torchrun's ranks.

    `world` is the number of ranks on all machines, `local_world` that on this one. How often the
    group was started is unknown, because each agent counts only its own ranks' failures.
    """

    rank: int
    world: int
    local_world: int


def launch_of_environment(environment: Mapping[str, str] | None = None) -> Launch | None:
    """The launch from torchrun's environment variables; None if it did not start this process."""
    environment = os.environ if environment is None else environment
    if rank_of_environment(environment) is None:
        return None
    world = int(environment["WORLD_SIZE"])
    return Launch(
        rank=int(environment["RANK"]),
        world=world,
        local_world=int(environment.get("LOCAL_WORLD_SIZE", world)),
    )


def axes_of_launch(axes: Axes, launch: Launch, *, auto_device: bool) -> Axes:
    """The given axes, with the number of processes and each one's share of the cores.

    Raises:
        UsageError: an option does not work with torchrun.
    """
    if launch.rank:
        raise UsageError("under torchrun start ctrkit as a module: torchrun ... -m ctrkit train")
    if auto_device:
        raise UsageError(
            "--auto-device: not under torchrun; run ctrkit probe first and name its "
            "recommendation.json with --config"
        )
    if axes.get("nproc", (launch.world,)) != (launch.world,):
        raise UsageError(f"--nproc: torchrun has started {launch.world}; leave that option out")
    threads = max(1, physical_cores() // launch.local_world)
    return {"threads": (threads,), **axes, "nproc": (launch.world,)}


def begun_run(argv: Sequence[str], runs: Iterable[Path], agent_began_s: float) -> RunFolder | None:
    """The run that rank 0 of an earlier start of this group has begun; None without one.

    It has the same command line: it is in the folder of `--out`, or else is the newest one begun
    after the agent. On several machines, rank 0 may move to another agent, so there a group needs
    an `--out` that all of them see.

    Args:
        argv: the command line without the program.
        runs: folders of known runs, the newest first.
        agent_began_s: Unix time at which the agent started.

    Raises:
        UsageError: the command is not `train`.
    """
    if list(argv[:1]) != ["train"]:
        raise UsageError("under torchrun there is only ctrkit train; run this command without it")
    if "--resume" in argv:
        return None
    out = _out_of(argv)
    for path in runs if out is None else [Path(out)]:
        try:
            run = RunFolder.open(path)
        except UsageError:
            continue
        began_s = datetime.fromisoformat(run.info.created).timestamp()
        is_ours = out is not None or began_s >= agent_began_s - 1
        if is_ours and run.info.argv == list(argv) and (path / "child" / "spec.json").is_file():
            return run
    return None


def resuming_arguments(argv: Sequence[str], run: RunFolder) -> list[str]:
    """The same command line, changed to continue this run."""
    return [*_without_out(argv), "--resume", str(run.path)]


def note_restart(run: RunFolder) -> None:
    """Note that the group was started again; only torchrun knows why."""
    if run.info.cell is None or run.info.status == "done":
        return
    run.append_incident(
        Incident(
            number=run.next_incident(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict="worker-died",
            reason=f"a rank ended, and torchrun started all {run.info.cell.nproc} again; "
            "its own output says which and why",
            cell_before=run.info.cell,
            cell_after=run.info.cell,
            action="restarted",
            why="torchrun --max-restarts",
        )
    )


def _out_of(argv: Sequence[str]) -> str | None:
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        if word == "--out":
            return following
        if word.startswith("--out="):
            return word.removeprefix("--out=")
    return None


def _without_out(argv: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in argv:
        if not (skip or word == "--out" or word.startswith("--out=")):
            kept.append(word)
        skip = word == "--out"
    return kept
