"""`ctrkit doctor`: its options."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ctrkit.cli.options import (
    RUN,
    Command,
    Data,
    Environment,
    MaxStep,
    PhaseName,
    Quiet,
    Set,
    StallTimeout,
    TimeLimitsFile,
    TrainLoader,
    WorkloadName,
    takes_axes,
)


@takes_axes
def doctor(
    *,
    command: Command = None,
    data: Data = None,
    phase: PhaseName = None,
    workload: WorkloadName = None,
    set_: Set = None,
    axes: dict[str, str | None],
    stall_timeout: StallTimeout = None,
    max_step: MaxStep = None,
    time_limits: TimeLimitsFile = None,
    env: Environment = None,
    train_loader: TrainLoader = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=RUN)
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Say what is known to go wrong on this machine with this workload, before it is started.

    Checks the cells that `ctrkit probe` would try against known hazards, each with its public
    references: fork beside MPS or CUDA, what cannot be pickled, memory, shared memory, open files.

    It reads the workload's file, and in a supervised process imports it, makes its loader once
    without workers, and pickles what workers would receive. It takes no batch, starts no worker,
    makes no model and times nothing: what it does not find may still hang, and `ctrkit probe`
    finds that out.

    A script is looked at by starting it: `ctrkit doctor -- python train.py` runs it up to its first
    training steps, and then ends it.

    Exit codes: 0 nothing is refused, 2 bad input, 3 nothing of a script's training could be seen,
    4 some configurations would be refused, 130 stopped.
    """
    from ctrkit.commands.doctor import doctor as run
    from ctrkit.commands.options import cell_axes, read_common, read_time_limits
    from ctrkit.commands.script import read_script
    from ctrkit.commands.script_doctor import doctor_script

    common = read_common(
        data, phase, workload, set_, read_time_limits(stall_timeout, max_step, time_limits), None
    )
    asked: dict[str, Any] = {
        "common": common, "axes": cell_axes(axes), "as_json": as_json, "quiet": quiet
    }  # fmt: skip
    script = read_script(
        command or [], sys.argv[1:], asked["axes"], environment=env or [],
        train_loader=train_loader, other={"--data": data, "--workload": workload, "--set": set_},
    )  # fmt: skip
    if script is None:
        run(**asked)
    else:
        doctor_script(script, **asked)
