"""`ctrkit train`: chooses a cell, trains in a supervised child, compares with the projection."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from ctrkit.commands.cell_choice import (
    CellChoice,
    check_cell,
    choice_from_file,
    default_choice,
    newest_fitting,
    unmeasured_choice,
    with_projection,
)
from ctrkit.commands.inspection import (
    find_workload,
    gather_facts,
    inspect_first,
    of_epochs,
    with_epochs,
)
from ctrkit.commands.known_spread import of_its_age, readable_rows
from ctrkit.commands.options import Axes, CommonOptions, duration_s, single_axes
from ctrkit.commands.restarts import RestartRules
from ctrkit.commands.resuming import (
    kept_plan,
    resumable_spec,
    save_spec,
    starting_point,
    with_axes,
)
from ctrkit.commands.timekeeping import TimeRules
from ctrkit.commands.torchrun import axes_of_launch, launch_of_environment
from ctrkit.commands.train_session import TrainOptions, train_over_restarts
from ctrkit.core.bystander import say
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import ChildSpec, TrainPlan, WorkloadSpec
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import InconclusiveError, UsageError
from ctrkit.core.files import plain_disk_errors
from ctrkit.core.locks import only_writer
from ctrkit.core.place import Sight, sight_of
from ctrkit.core.records import ONE_EPOCH
from ctrkit.core.run_time import projected_time, saved_every
from ctrkit.core.runs import RunFolder, known_runs
from ctrkit.core.units import format_duration
from ctrkit.probe.matrix import build_matrix
from ctrkit.report.words import between_words, plural
from ctrkit.supervise.stop import StopRequest, handle_interrupts

_BEGIN_ELSEWHERE = "nothing was started: free some space, or name another folder with --out"


def read_train_options(
    *,
    auto_device: bool,
    config: Path | None,
    epochs: int | None,
    max_steps: int | None,
    checkpoint_every: str,
    fallback: bool,
    max_restarts: int,
    allow_sleep: bool,
    abort_if_later_than: str | None,
    grace: str,
    quiet: bool,
) -> TrainOptions:
    """Check the options of a real run.

    Raises:
        UsageError: options contradict each other, a duration is invalid, a number is out of range,
            ...
    """
    for option, number in (("--epochs", epochs), ("--max-steps", max_steps)):
        if number is not None and number < 1:
            raise UsageError(f"{option}: is {number}, but must be at least 1")
    if max_restarts < 0:
        raise UsageError(f"--max-restarts: is {max_restarts}, but must be at least 0")
    if auto_device and config is not None:
        raise UsageError("--auto-device and --config: name one of them")
    if config is not None and not config.is_file():
        raise UsageError(f"--config {config}: no such file")
    every_s = duration_s("--checkpoint-every", checkpoint_every)
    grace_s = duration_s("--grace", grace)
    abort_after_s = duration_s("--abort-if-later-than", abort_if_later_than)
    assert every_s is not None, "it has a default"
    assert grace_s is not None, "it has a default"
    launched = launch_of_environment() is not None
    return TrainOptions(
        auto_device=auto_device, config=config, epochs=epochs, max_steps=max_steps,
        checkpoint_every_s=every_s, quiet=quiet, grace_s=grace_s,
        rules=RestartRules(
            fallback=fallback and not launched,
            max_restarts=max_restarts,
            off="torchrun starts all ranks again" if launched else "--no-fallback",
        ),
        time_rules=TimeRules(allow_sleep=allow_sleep, abort_after_s=abort_after_s),
    )  # fmt: skip


def train(
    *,
    common: CommonOptions,
    axes: Axes,
    options: TrainOptions,
    resume: Path | None,
    argv: Sequence[str],
) -> None:
    """Train, or continue a run that was stopped.

    Raises:
        UsageError: bad input of any kind.
        RunEndedError: the run failed, or hung and was ended; the message names the evidence.
        InterruptedRunError: the user stopped it; the message says how to continue.
    """
    launch = launch_of_environment()
    if launch is not None:
        axes = axes_of_launch(axes, launch, auto_device=options.auto_device)
    single_axes(axes)
    workload = None
    if resume is None:
        workload = with_epochs(find_workload(common, quiet=options.quiet), options.epochs)
    with handle_interrupts(graceful=True) as stop, ExitStack() as held:
        if workload is not None:
            with plain_disk_errors(common.out or Path("results/runs"), advice=_BEGIN_ELSEWHERE):
                run, spec = _new_run(common, axes, options, workload, stop, argv)
                held.enter_context(only_writer(run.path))
                save_spec(spec)
        else:
            assert resume is not None
            run = _training_run(resume)
            held.enter_context(only_writer(run.path))
            run, spec = _resumed(resume, axes, options, common, argv)
        with plain_disk_errors(run.path, resume=run.path):
            if workload is None:
                save_spec(spec)
            train_over_restarts(run, spec, options, common.time_limits, stop)


def _new_run(
    common: CommonOptions,
    axes: Axes,
    options: TrainOptions,
    workload: WorkloadSpec,
    stop: StopRequest,
    argv: Sequence[str],
) -> tuple[RunFolder, ChildSpec]:
    inspection = inspect_first(
        "train", argv, workload, common, stop, deadline_s=_abort_at_s(options.time_rules)
    )
    inspection = of_epochs(inspection, options.epochs, options.checkpoint_every_s)
    choice = _choose(common, axes, options, workload, inspection, stop)
    range_words = ""
    if choice.projection is not None:
        every = saved_every(choice.projection, options.checkpoint_every_s)
        aged, range_words = of_its_age(
            every, readable_rows(), datetime.now(UTC), machine=machine_fingerprint(),
            workload=inspection.workload_fingerprint,
        )  # fmt: skip
        choice = dataclasses.replace(choice, projection=aged)
    epochs = inspection.sizes.epochs if inspection.sizes else None
    if epochs is None and options.max_steps is None:
        epochs = 1
        say("ctrkit does not know how many epochs it has, so it trains one; --epochs N gives more")
    run = RunFolder.create("train", argv, workload, common.out)
    run.update(
        cell=choice.cell,
        unheeded=inspection.unheeded,
        sizes=inspection.sizes and inspection.sizes.at(choice.cell.batch_size, epochs=epochs),
        workload_fingerprint=inspection.workload_fingerprint,
        data_fingerprint=inspection.data_fingerprint,
        watch=inspection.watch,
        device_names=inspection.device_names,
        projection=choice.projection,
    )  # fmt: skip
    plan = TrainPlan(
        run_folder=str(run.path),
        epochs=epochs,
        max_steps=options.max_steps,
        checkpoint_every_s=options.checkpoint_every_s,
        allow_sleep=options.time_rules.allow_sleep,
        abort_after_s=options.time_rules.abort_after_s,
    )
    _announce(choice, plan, run, options)
    if range_words:
        say(f"range: {range_words}")
    folder = str(run.path / "child")
    return run, ChildSpec(
        kind="train", folder=folder, workload=workload, cell=choice.cell, train=plan
    )


def _abort_at_s(rules: TimeRules) -> float | None:
    """When a run that is still being prepared is too late."""
    return None if rules.abort_after_s is None else time.monotonic() + rules.abort_after_s


def _choose(
    common: CommonOptions,
    axes: Axes,
    options: TrainOptions,
    workload: WorkloadSpec,
    inspection: Inspection,
    stop: StopRequest,
) -> CellChoice:
    wanted = single_axes(axes)
    if options.config is not None:
        return check_cell(choice_from_file(options.config, inspection, wanted), inspection)
    if not options.auto_device:
        choice = check_cell(default_choice(inspection, wanted), inspection)
        return with_projection(choice, known_runs(), machine_fingerprint(), inspection)
    plan = build_matrix(inspection, axes, facts=gather_facts(workload, inspection))
    found = newest_fitting(
        known_runs(), machine_fingerprint(), inspection, wanted, cells=plan.cells
    )
    if found is not None:
        return check_cell(found, inspection)
    say("there is no fitting recommendation yet, so ctrkit probes it briefly first")
    # here, since a run that nothing is probed for would load all of the probe, too, to start
    from ctrkit.commands.probe import brief_probe

    try:
        recommendation = brief_probe(common, axes, workload, inspection, stop, quiet=options.quiet)
    except InconclusiveError as error:
        # a machine that is too busy to measure can still train
        return check_cell(unmeasured_choice(inspection, wanted, str(error)), inspection)
    why = f"recommended by a brief probe ({recommendation.reason})"
    return CellChoice(cell=recommendation.cell, why=why, projection=recommendation)


def _announce(choice: CellChoice, plan: TrainPlan, run: RunFolder, options: TrainOptions) -> None:
    """Say what was chosen and why, and when it should end."""
    if choice.warning:
        say(choice.warning)
    say(f"cell {choice.cell.name}: {choice.why}")
    projection, projected = choice.projection, projected_time(choice.projection)
    if projection is not None and projected is not None:
        between = between_words(projection.projected_epoch_s_low, projection.projected_epoch_s_high)
        first_s = projected.first_epoch_s
        first = f"the first epoch {format_duration(first_s)}, " if first_s is not None else ""
        whole = ""
        if plan.epochs is not None and ONE_EPOCH not in projection.flags:
            total_s = projected.total_s(plan.epochs)
            end = time.strftime("%a %d %b %H:%M", time.localtime(time.time() + total_s))
            whole = f"{plural(plan.epochs, 'epoch')} in {format_duration(total_s)}, until {end}; "
        say(
            f"projected: {whole}"
            f"{first}{'each later one' if first else 'an epoch'} "
            f"{format_duration(projected.epoch_s)}{between}"
        )
    else:
        say("there is no projection for this configuration yet; ctrkit probe makes one")
    if projection is not None and ONE_EPOCH in projection.flags and (plan.epochs or 2) > 1:
        say(
            "WARNING: there is no epoch 2: the probe found that the loader can be iterated only "
            "once. The run will end after epoch 1, which is saved: make the loader start again "
            "each time it is iterated, or give --epochs 1"
        )
    if options.max_steps is not None:
        say(f"it stops after {options.max_steps} steps")
    say(f"run folder {run.path}")


def _training_run(path: Path) -> RunFolder:
    run = RunFolder.open(path)
    if run.info.command != "train":
        raise UsageError(f"--resume {path}: is a {run.info.command} run, not a training run")
    return run


def _resumed(
    path: Path, axes: Axes, options: TrainOptions, common: CommonOptions, argv: Sequence[str]
) -> tuple[RunFolder, ChildSpec]:
    """The run and its spec, to continue at the exact row; only machine axes may change."""
    run = _training_run(path)
    spec = resumable_spec(run, common, argv)
    assert spec.train is not None, "a resumable spec has a train plan"
    if run.info.status == "running" and sight_of(run.info.place) is Sight.ELSEWHERE:
        say(
            f"warning: {path} was started on another host or in another container: if it still "
            f"runs "
            "there, stop this one now, or both write into it"
        )
    resumes = starting_point(run, spec.workload)
    cell = with_axes(spec.cell, single_axes(axes))
    if cell.batch_size != spec.cell.batch_size:
        raise UsageError(
            f"--resume {path}: its batch size is {spec.cell.batch_size}, not {cell.batch_size}: it "
            "is part of the experiment; leave that option out, or start a new run"
        )
    if cell != spec.cell:
        run.update(cell=cell, projection=None, ending_s=None)
    plan = dataclasses.replace(
        kept_plan(
            spec.train, argv, epochs=options.epochs, max_steps=options.max_steps,
            checkpoint_every_s=options.checkpoint_every_s,
            allow_sleep=options.time_rules.allow_sleep,
            abort_after_s=options.time_rules.abort_after_s,
        ),
        run_folder=str(run.path), resume=resumes,
    )  # fmt: skip
    if options.epochs is not None and run.info.sizes is not None:
        run.update(sizes=dataclasses.replace(run.info.sizes, epochs=options.epochs))
    say(f"continuing {run.path} with {cell.name}")
    folder = str(run.path / "child")
    return run, dataclasses.replace(spec, folder=folder, cell=cell, train=plan)
