"""The options of `ctrkit train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ctrkit.cli.options import (
    RUN,
    SCRIPT,
    Command,
    Data,
    Environment,
    MaxStep,
    Out,
    PhaseName,
    Quiet,
    Set,
    StallTimeout,
    TimeLimitsFile,
    TrainLoader,
    WorkloadName,
    takes_axes,
)
from ctrkit.core.errors import UsageError

AutoDevice = Annotated[
    bool,
    typer.Option("--auto-device", rich_help_panel=RUN,
                 help="Use the newest recommendation that fits; without one, probe briefly."),
]  # fmt: skip
Config = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=RUN,
                 help="Use the configuration in this recommendation.json, or in a JSON object "
                      "such as {\"workers\": 4}."),
]  # fmt: skip
TrainEpochs = Annotated[
    int | None,
    typer.Option(metavar="N", rich_help_panel=RUN,
                 help="Stop after N epochs. For a script: how many epochs it has, if ctrkit "
                      "cannot find that out."),
]  # fmt: skip
MaxSteps = Annotated[
    int | None,
    typer.Option(metavar="N", help="Stop after N steps.", rich_help_panel=RUN),
]  # fmt: skip
Resume = Annotated[
    Path | None,
    typer.Option(metavar="DIR", rich_help_panel=RUN,
                 help="Continue this run where it stopped. Needs no other option."),
]  # fmt: skip
CheckpointEvery = Annotated[
    str,
    typer.Option(metavar="T", rich_help_panel=RUN,
                 help="Also save within an epoch, this often."),
]  # fmt: skip
NoFallback = Annotated[
    bool,
    typer.Option("--no-fallback", rich_help_panel=RUN,
                 help="Stop at the first hang or crash; do not continue from a checkpoint."),
]  # fmt: skip
MaxRestarts = Annotated[
    int | None,
    typer.Option("--max-restarts", metavar="N", rich_help_panel=RUN, show_default=False,
                 help="Continue at most N times after a hang or crash. Default: 3. A script is "
                      "started over, and only if you give this option."),
]  # fmt: skip
AllowSleep = Annotated[
    bool,
    typer.Option("--allow-sleep/--no-allow-sleep", rich_help_panel=RUN,
                 help="Let the computer sleep during training."),
]  # fmt: skip
AbortIfLaterThan = Annotated[
    str | None,
    typer.Option(metavar="T", rich_help_panel=RUN,
                 help="Save and stop when the run would take longer than T."),
]  # fmt: skip
Grace = Annotated[
    str,
    typer.Option(metavar="T", rich_help_panel=RUN,
                 help="After SIGTERM or SIGHUP, let the run finish its step and save for this "
                      "long, then end it by force."),
]  # fmt: skip
EndsBy = Annotated[
    str | None,
    typer.Option("--ends-by", metavar="T", rich_help_panel=SCRIPT,
                 help="Say whether the run ends by then: 6h, 07:30 or 2027-01-31T07:30. "
                      "Default: the end of the Slurm or PBS job."),
]  # fmt: skip


@takes_axes(several=False)
def train(
    *,
    command: Command = None,
    auto_device: AutoDevice = False,
    config: Config = None,
    data: Data = None,
    phase: PhaseName = None,
    workload: WorkloadName = None,
    set_: Set = None,
    epochs: TrainEpochs = None,
    max_steps: MaxSteps = None,
    resume: Resume = None,
    checkpoint_every: CheckpointEvery = "10m",
    no_fallback: NoFallback = False,
    max_restarts: MaxRestarts = None,
    allow_sleep: AllowSleep = False,
    abort_if_later_than: AbortIfLaterThan = None,
    grace: Grace = "25s",
    ends_by: EndsBy = None,
    env: Environment = None,
    train_loader: TrainLoader = None,
    axes: dict[str, str | None],
    stall_timeout: StallTimeout = None,
    max_step: MaxStep = None,
    time_limits: TimeLimitsFile = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train for real, in the recommended configuration or in one you name.

    If the run hangs or a process dies, ctrkit says why and continues from the last checkpoint.
    Ctrl-C, SIGTERM and SIGHUP finish the step and save; `ctrkit train --resume DIR` continues
    there. Under `nohup`, SIGHUP is ignored.

    Any training script, unchanged: `ctrkit train -- python train.py --lr 3e-4`. ctrkit watches it,
    passes signals on to it, and changes nothing unless you name a configuration.

    Exit codes: 0 done, 2 bad input, 6 ctrkit ended a run that hung, 130 stopped by you. A script
    keeps its own exit code.
    """
    from ctrkit.commands.options import cell_axes, duration_s, read_common, read_time_limits
    from ctrkit.commands.script import read_script

    named = cell_axes(axes)
    script = read_script(
        command or [], sys.argv[1:], named, environment=env or [], epochs=epochs,
        train_loader=train_loader,
        other={
            "--data": data, "--phase": phase, "--workload": workload, "--set": set_,
            "--max-steps": max_steps, "--resume": resume, "--no-fallback": no_fallback,
        },
    )  # fmt: skip
    if script is not None:
        from ctrkit.commands.script_train import ScriptRunOptions, train_script
        from ctrkit.commands.timekeeping import TimeRules
        from ctrkit.supervise.time_limits import SCRIPT_LIMITS

        train_script(
            script, axes=named, argv=sys.argv[1:],
            time_limits=read_time_limits(
                stall_timeout, max_step, time_limits, defaults=SCRIPT_LIMITS
            ),
            options=ScriptRunOptions(
                auto_device=auto_device, config=config, max_restarts=max_restarts or 0,
                grace_s=duration_s("--grace", grace) or 0.0, ends_by=ends_by, out=out, quiet=quiet,
                time_rules=TimeRules(
                    allow_sleep=allow_sleep,
                    abort_after_s=duration_s("--abort-if-later-than", abort_if_later_than),
                ),
            ),
        )  # fmt: skip
        return
    if ends_by is not None:
        raise UsageError("--ends-by is for scripts: write the command after --")
    from ctrkit.commands.train import read_train_options
    from ctrkit.commands.train import train as run

    run(
        common=read_common(
            data, phase, workload, set_,
            read_time_limits(stall_timeout, max_step, time_limits), out,
            resume,
        ),
        axes=named,
        options=read_train_options(
            auto_device=auto_device, config=config, epochs=epochs, max_steps=max_steps,
            checkpoint_every=checkpoint_every, fallback=not no_fallback,
            max_restarts=3 if max_restarts is None else max_restarts, allow_sleep=allow_sleep,
            abort_if_later_than=abort_if_later_than, grace=grace, quiet=quiet,
        ),
        resume=resume, argv=sys.argv[1:],
    )  # fmt: skip
