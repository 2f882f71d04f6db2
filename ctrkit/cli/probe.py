"""The options of `ctrkit probe`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrkit.cli.options import (
    RUN,
    SCRIPT,
    Command,
    Data,
    Environment,
    Epochs,
    Json,
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

Scratch = Annotated[
    Path | None,
    typer.Option(metavar="DIR", rich_help_panel=SCRIPT,
                 help="Run the trials in a copy of the working folder, made at DIR."),
]  # fmt: skip
WritePatch = Annotated[
    Path | None,
    typer.Option(metavar="FILE", rich_help_panel=SCRIPT,
                 help="Write the recommended change of the script to this file, as a diff."),
]  # fmt: skip
Budget = Annotated[
    str | None,
    typer.Option(metavar="T", rich_help_panel=RUN,
                 help="Time for the whole probe. Default: 2m; for a script as long as a "
                      "useful answer needs."),
]  # fmt: skip
Thorough = Annotated[
    bool,
    typer.Option("--thorough", rich_help_panel=RUN,
                 help="Run every configuration; predict none."),
]  # fmt: skip
Deadline = Annotated[
    str | None,
    typer.Option(metavar="T", rich_help_panel=RUN,
                 help="Say how many epochs fit into this time, e.g. 6h."),
]  # fmt: skip
RunRefused = Annotated[
    bool,
    typer.Option("--run-refused", rich_help_panel=RUN,
                 help="Also run configurations that are known to hang or crash."),
]  # fmt: skip
JsonLines = Annotated[
    bool,
    typer.Option("--json-lines", rich_help_panel=RUN,
                 help="Print the answer so far as a line of JSON after each trial. The last "
                      "line is the document of --json."),
]  # fmt: skip


@takes_axes(several=True)
def probe(
    *,
    command: Command = None,
    data: Data = None,
    phase: PhaseName = None,
    workload: WorkloadName = None,
    set_: Set = None,
    axes: dict[str, str | None],
    env: Environment = None,
    train_loader: TrainLoader = None,
    scratch: Scratch = None,
    write_patch: WritePatch = None,
    budget: Budget = None,
    epochs: Epochs = None,
    thorough: Thorough = False,
    deadline: Deadline = None,
    stall_timeout: StallTimeout = None,
    max_step: MaxStep = None,
    time_limits: TimeLimitsFile = None,
    run_refused: RunRefused = False,
    out: Out = None,
    as_json: Json = False,
    json_lines: JsonLines = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find the configuration that trains fastest, and how long the run will take.

    ctrkit runs the real training loop in short trials, measures seconds per batch, and recommends a
    configuration. Each trial has its own process; ctrkit ends it if it hangs. The results stay in
    the run folder, and `ctrkit report` shows them again.

    Any training script, unchanged: `ctrkit probe -- python train.py --lr 3e-4`.

    Exit codes: 0 done, 2 bad input, 3 nothing could be projected, 4 no configuration can run,
    130 stopped by you.
    """
    from ctrkit.commands.options import cell_axes, read_common, read_time_limits
    from ctrkit.commands.probe import probe as run
    from ctrkit.commands.script import read_script
    from ctrkit.commands.script_probe import probe_script

    common = read_common(
        data,
        phase,
        workload,
        set_,
        read_time_limits(stall_timeout, max_step, time_limits),
        out,
        epochs=epochs,
    )
    asked: dict[str, Any] = {
        "common": common, "axes": cell_axes(axes), "budget": budget, "thorough": thorough,
        "deadline": deadline, "run_refused": run_refused, "as_json": as_json, "quiet": quiet,
        "json_lines": json_lines, "argv": sys.argv[1:],
    }  # fmt: skip
    script = read_script(
        command or [], sys.argv[1:], asked["axes"], environment=env or [], epochs=epochs,
        train_loader=train_loader, other={"--data": data, "--workload": workload, "--set": set_},
    )  # fmt: skip
    if script is None:
        run(**asked)
    else:
        probe_script(script, scratch=scratch, write_patch=write_patch, **asked)
