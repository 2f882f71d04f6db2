"""The options of `ctrkit doctor`."""

from __future__ import annotations

import sys
from typing import Any

from ctrkit.cli.options import (
    Command,
    Data,
    Environment,
    Json,
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


@takes_axes(several=True)
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
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find known problems of this machine and workload before you start anything.

    Checks each configuration that `ctrkit probe` would try for known hazards: fork beside MPS or
    CUDA, objects that cannot be pickled, memory, shared memory, open files. Each comes with public
    references.

    For a workload, doctor imports its file in a supervised process, makes its loader once without
    workers, and pickles what workers would receive. It takes no batch, starts no worker and makes
    no model, so a configuration that passes may still hang. `ctrkit probe` finds that out.

    `ctrkit doctor -- python train.py` runs a script up to its first training steps, then ends it.

    Exit codes: 0 no configuration would be refused, 2 bad input, 3 no training step of the script
    was seen, 4 some configurations would be refused, 130 stopped by you.
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
