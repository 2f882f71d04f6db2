"""The command line: options in, exit codes out; nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrkit import __version__
from ctrkit.cli.data import data_app
from ctrkit.cli.explain import explain
from ctrkit.cli.options import (
    RUN,
    SCRIPT,
    Command,
    Data,
    Environment,
    Epochs,
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
    with_current_names,
)
from ctrkit.core.bystander import say
from ctrkit.core.errors import CtrkitError, UsageError

app = typer.Typer(
    name="ctrkit",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Know before the launch how long a training run takes, in which configuration, and why.",
    epilog="Start with: ctrkit probe   Then: ctrkit train --auto-device   Then: ctrkit report",
)
app.add_typer(data_app, name="data")
app.command()(explain)

# typer has brought its own click since 0.20: its errors are reached through typer alone.
ClickError: Any = typer.BadParameter.__mro__[2]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ctrkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of ctrkit itself."""


@app.command()
@takes_axes
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
    scratch: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=SCRIPT,
                     help="Run the trials in a copy of the working folder, made here."),
    ] = None,
    write_patch: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=SCRIPT,
                     help="Write the recommended change to the script here, as a diff."),
    ] = None,
    epochs: Epochs = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="T", rich_help_panel=RUN,
                     help="Time for the whole probe. Default: 2m; for a script what a useful "
                          "answer needs, at least 2m."),
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option("--thorough", help="Really run every cell.", rich_help_panel=RUN),
    ] = False,
    deadline: Annotated[
        str | None,
        typer.Option(metavar="T", rich_help_panel=RUN,
                     help="Say how many epochs fit into this time, e.g. 6h."),
    ] = None,
    stall_timeout: StallTimeout = None,
    max_step: MaxStep = None,
    time_limits: TimeLimitsFile = None,
    run_refused: Annotated[
        bool,
        typer.Option("--run-refused", rich_help_panel=RUN,
                     help="Run cells too that a hazard rule refuses."),
    ] = False,
    out: Out = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel=RUN)
    ] = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Find the configuration that trains fastest, and how long the run will take.

    Runs the real training loop in short trials, each in a process of its own that is ended if it
    hangs, and recommends a configuration. Everything is kept in the run folder; `ctrkit report`
    shows it.

    Any training script, unchanged: `ctrkit probe -- python train.py --lr 3e-4`.

    Exit codes: 0 done, 2 bad input, 3 nothing could be projected, 4 no cell can run, 130 stopped.
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
        "argv": sys.argv[1:],
    }  # fmt: skip
    script = read_script(
        command or [], sys.argv[1:], asked["axes"], environment=env or [], epochs=epochs,
        train_loader=train_loader, other={"--data": data, "--workload": workload, "--set": set_},
    )  # fmt: skip
    if script is None:
        run(**asked)
    else:
        probe_script(script, scratch=scratch, write_patch=write_patch, **asked)


@app.command()
@takes_axes
def train(
    *,
    command: Command = None,
    auto_device: Annotated[
        bool,
        typer.Option("--auto-device", rich_help_panel=RUN,
                     help="Take the newest fitting recommendation, or probe briefly first."),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", rich_help_panel=RUN,
                     help="A recommendation.json, or a JSON object of a cell's axes."),
    ] = None,
    data: Data = None,
    phase: PhaseName = None,
    workload: WorkloadName = None,
    set_: Set = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", rich_help_panel=RUN,
                     help="Stop after N epochs; of a script, how many it has, where it does not "
                          "say so itself."),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Stop after N steps.", rich_help_panel=RUN),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="DIR", rich_help_panel=RUN,
                     help="Go on with this run at the exact row; needs no other option."),
    ] = None,
    checkpoint_every: Annotated[
        str,
        typer.Option(metavar="T", help="Also save within an epoch.", rich_help_panel=RUN),
    ] = "10m",
    no_fallback: Annotated[
        bool,
        typer.Option("--no-fallback", rich_help_panel=RUN,
                     help="Stop at the first hang or death instead of restarting safely."),
    ] = False,
    max_restarts: Annotated[
        int | None,
        typer.Option("--max-restarts", metavar="N", rich_help_panel=RUN, show_default=False,
                     help="How often at most to go on after a hang or death. Default: 3; a script "
                          "is run again from its start, and only if this is given."),
    ] = None,
    allow_sleep: Annotated[
        bool,
        typer.Option("--allow-sleep/--no-allow-sleep", rich_help_panel=RUN,
                     help="Do not hold the machine awake meanwhile."),
    ] = False,
    abort_if_later_than: Annotated[
        str | None,
        typer.Option(metavar="T", rich_help_panel=RUN,
                     help="Save and stop once it would end later than T after its launch."),
    ] = None,
    grace: Annotated[
        str,
        typer.Option(metavar="T", rich_help_panel=RUN,
                     help="After SIGTERM or SIGHUP, how long the run may take to finish its step "
                          "and save, before it is ended by force."),
    ] = "25s",
    ends_by: Annotated[
        str | None,
        typer.Option("--ends-by", metavar="T", rich_help_panel=SCRIPT,
                     help="When the run must be over: 6h, 07:30 or 2027-01-31T07:30. Default: the "
                          "end of the Slurm or PBS job. Says whether it fits."),
    ] = None,
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

    A run that hangs or loses a process goes on by itself from its last checkpoint, without worker
    processes. Ctrl-C, SIGTERM or SIGHUP finish the step and save; `ctrkit train --resume DIR` goes
    on there. Under `nohup` SIGHUP is ignored.

    Any training script, unchanged: `ctrkit train -- python train.py --lr 3e-4`. Without axes
    nothing of it is changed: it is watched, its terminal is its own, and signals are passed on.

    Exit codes: 0 done, 2 bad input, 6 ended by the supervisor, 130 stopped by you; of a script
    that was not ended by the supervisor, its own.
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
        raise UsageError("--ends-by is for a script: write its command after --")
    from ctrkit.commands.train import train as run

    run(
        common=read_common(
            data, phase, workload, set_,
            read_time_limits(stall_timeout, max_step, time_limits), out,
            resume,
        ),
        axes=named,
        auto_device=auto_device, config=config, epochs=epochs, max_steps=max_steps,
        resume=resume, checkpoint_every=checkpoint_every, fallback=not no_fallback,
        max_restarts=3 if max_restarts is None else max_restarts, allow_sleep=allow_sleep,
        abort_if_later_than=abort_if_later_than, grace=grace, quiet=quiet, argv=sys.argv[1:],
    )  # fmt: skip


@app.command()
def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN]...", help="Run folders.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as Markdown.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it as one HTML file with charts.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="BASE NEW", help="Compare two probes, or two training runs."),
    ] = None,
    threshold: Annotated[
        str, typer.Option(metavar="SHARE", help="How much slower is a regression, for --compare.")
    ] = "5%",
    list_runs: Annotated[
        bool, typer.Option("--list", help="All runs, the newest first, a line each.")
    ] = False,
    calibration: Annotated[
        bool,
        typer.Option("--calibration", help="How right projections have been on this machine."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show what a probe found or how a training run went: the newest one, or those you name.

    With `--compare`, say whether NEW is faster or slower than BASE, and how sure that is.

    Exit codes: 0 done, 2 bad input or runs that are not comparable; of `--compare` also 3 if it
    cannot tell whether NEW is slower by more than the threshold, 5 if it is.
    """
    if calibration:
        from ctrkit.commands.report import report_calibration

        report_calibration(
            other=bool(runs or compare or list_runs), as_json=as_json, markdown=markdown, html=html
        )
    elif compare is not None:
        from ctrkit.commands.compare import compare as run_compare

        run_compare(
            *compare, threshold=threshold, other_runs=runs or [], list_runs=list_runs,
            as_json=as_json, markdown=markdown, html=html,
        )  # fmt: skip
    else:
        from ctrkit.commands.report import report as run

        run(runs or [], as_json=as_json, markdown=markdown, html=html, list_runs=list_runs)


@app.command()
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


def main() -> None:
    """Run the command line and exit: the only place where errors become exit codes."""
    code = run_command()
    try:
        sys.stdout.flush()
    except OSError:  # its reader, or the terminal, has gone: Python would make that the exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run_command() -> int:
    """Run the command of `sys.argv`; its exit code."""
    if sys.platform == "win32":
        print("ctrkit: Windows is not supported; use Linux, macOS or WSL", file=sys.stderr)
        return 2
    try:
        code = app(with_current_names(sys.argv[1:]), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except CtrkitError as error:
        _say(str(error))
        return error.exit_code
    except ClickError as error:
        # a group without a command has printed its help already and has no message
        if error.format_message():
            _say(f"{error.format_message().rstrip('.')}; see ctrkit --help")
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        return 0


def _say(message: str) -> None:
    """One line on stderr, whatever the message holds."""
    say(f"ctrkit: {' '.join(message.split())}")
