"""`ctrkit train -- COMMAND`: runs any script for real, watches it and accounts for its time."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ctrkit.commands.loss_watch import LossWatch
from ctrkit.commands.options import Axes, single_axes
from ctrkit.commands.script_cell import ScriptChoice
from ctrkit.commands.script_choice import choose_or_probe
from ctrkit.commands.script_watch import ScriptWatch
from ctrkit.commands.timekeeping import Timekeeper, TimeRules
from ctrkit.core.config import SCRIPT_TARGET, ChildSpec, ScriptSpec, TrainPlan, WorkloadSpec
from ctrkit.core.errors import RunEndedError, ScriptEndedError, UsageError
from ctrkit.core.files import plain_disk_errors
from ctrkit.core.locks import only_writer
from ctrkit.core.run_time import projected_time
from ctrkit.core.runs import Incident, RunFolder, check_out_folder
from ctrkit.core.units import format_duration, signal_name
from ctrkit.report.incidents import summary_words
from ctrkit.report.ledger_view import moment_words
from ctrkit.report.live_script import ScriptDisplay
from ctrkit.report.script_run_view import put_in_words
from ctrkit.report.words import plural
from ctrkit.supervise.awake import Awake
from ctrkit.supervise.endings import batches_done
from ctrkit.supervise.explain.evidence import tail
from ctrkit.supervise.last_words import last_words
from ctrkit.supervise.relay import Relay
from ctrkit.supervise.sampler import host_slept_s
from ctrkit.supervise.script_signals import PassedOn, pass_signals_on
from ctrkit.supervise.supervisor import Outcome, run_child
from ctrkit.supervise.time_limits import TimeLimits
from ctrkit.supervise.walltime import Deadline, end_of_job, read_ends_by, time_left_s
from ctrkit.supervise.watching import Tick

#: The largest share of a job's remaining time for a probe before the run.
_PROBED_SHARE = 0.1
_SHELL_SIGNAL = 128  # a shell adds this to the number of the signal that ended a command


@dataclass(frozen=True, kw_only=True)
class ScriptRunOptions:
    """The options of a script's real run other than its configuration."""

    auto_device: bool = False
    config: Path | None = None
    max_restarts: int = 0
    time_rules: TimeRules = field(default_factory=TimeRules)
    grace_s: float = 25.0
    ends_by: str | None = None
    out: Path | None = None
    quiet: bool = False


def train_script(
    script: ScriptSpec,
    *,
    axes: Axes,
    time_limits: TimeLimits,
    options: ScriptRunOptions,
    argv: Sequence[str],
) -> None:
    """Run the script to its end.

    Raises:
        UsageError: bad input of any kind; the run was not started.
        InterruptedRunError: the user stopped the probe before the run.
        ScriptEndedError: the script ended with an exit code other than 0, or was asked to end.
        RunEndedError: it hung and was ended.
    """
    if options.auto_device and options.config is not None:
        raise UsageError("--auto-device and --config: name one of them")
    if options.out is not None:
        check_out_folder(options.out)
    wanted, deadline = single_axes(axes), _deadline(options.ends_by)
    choice = choose_or_probe(
        script, axes, wanted, config=options.config, auto_device=options.auto_device,
        most_s=math.inf if deadline is None else _PROBED_SHARE * time_left_s(deadline),
        stall_timeout_s=time_limits.stall_timeout_s, quiet=options.quiet,
    )  # fmt: skip
    if choice.warning:
        print(f"ctrkit: {choice.warning}", file=sys.stderr, flush=True)
    workload = WorkloadSpec(target=SCRIPT_TARGET, script=script)
    run = RunFolder.create("train", argv, workload, options.out)
    run.update(cell=choice.cell if choice.put_in else None, projection=choice.projection)
    plan = TrainPlan(run_folder=str(run.path), epochs=script.epochs or 0)
    spec = ChildSpec(
        kind="train", folder=str(run.path / "child"), workload=workload, cell=choice.cell,
        train=plan, put_in=choice.put_in,
    )  # fmt: skip
    with only_writer(run.path), plain_disk_errors(run.path), pass_signals_on() as stop:
        _ScriptRun(run, spec, choice, time_limits, options, deadline, stop).to_its_end()


def _deadline(ends_by: str | None) -> Deadline | None:
    if ends_by is not None:
        return read_ends_by(ends_by, time.time())
    return end_of_job()


class _ScriptRun:
    """One real run of a script, over all its launches."""

    def __init__(
        self,
        run: RunFolder,
        spec: ChildSpec,
        choice: ScriptChoice,
        time_limits: TimeLimits,
        options: ScriptRunOptions,
        deadline: Deadline | None,
        stop: PassedOn,
    ) -> None:
        self.run, self.spec, self.choice, self.options = run, spec, choice, options
        self.time_limits, self.deadline, self.stop = time_limits, deadline, stop
        self.display = ScriptDisplay(quiet=options.quiet)
        self.began_s = time.monotonic() + host_slept_s()
        self.launches = 0

    def to_its_end(self) -> None:
        """Launch it, again if that is allowed, and report how it ended."""
        awake = None if self.options.time_rules.allow_sleep else Awake()
        self._announce()
        with awake or nullcontext():
            watch = ScriptWatch(self.run, self.spec, self.display, self.stop, self.deadline)
            times = Timekeeper(
                self.run, self.spec, self.options.time_rules, self.display, self.stop,
                awake=awake, epochs=watch.epochs,
            )  # fmt: skip

            losses = LossWatch(self.run, self.display.message)

            def follow(tick: Tick) -> None:
                watch.tick(tick)
                times.tick(tick)
                losses.look(tick.progress, self.run.info.cell or self.spec.cell)
                watch.compare_with_deadline(times.end_unix_s)

            try:
                goes_on = True
                while goes_on:
                    outcome = self._launch(watch, times, follow)
                    losses.look(outcome.progress, self.run.info.cell or self.spec.cell)
                    goes_on = self._goes_on(outcome)
                    times.ended(lost=goes_on)
            finally:
                times.close()
        self._conclude(outcome, times.aborted, watch.is_observed)

    def _launch(
        self, watch: ScriptWatch, times: Timekeeper, follow: Callable[[Tick], None]
    ) -> Outcome:
        self.launches += 1
        times.launched()
        watch.launched()
        Path(self.spec.folder).mkdir(parents=True, exist_ok=True)
        relay = Relay(Path(self.spec.folder), quiet=self.options.quiet)
        self.display.use(relay)
        try:
            if not self.options.quiet:
                relay.keep_title()
            outcome = run_child(
                self.spec,
                time_limits=self.time_limits,
                evidence_folder=self.run.path / "evidence" / f"train-{self.launches}",
                completion="outcome.json",
                on_tick=follow,
                stop=self.stop,
                grace_s=self.options.grace_s,
                relay=relay,
            )
            watch.ended(outcome.exit_code)
        finally:
            relay.close()
            self.display.use(None)
            if not self.options.quiet:
                relay.restore_title()
        return outcome

    # ---- before ----------------------------------------------------------------------------------

    def _announce(self) -> None:
        """Say what will run, how long it should take, and whether that fits."""
        lines = [self.choice.why]
        if self.choice.put_in:
            listed = put_in_words(self.choice.cell, self.choice.put_in)
            lines.append(f"put in: {listed}")
        lines += self._projected_words()
        lines.append(f"run folder {self.run.path}")
        if not self.options.quiet:
            for line in lines:
                print(f"ctrkit: {line}", file=sys.stderr)
            sys.stderr.flush()

    def _projected_words(self) -> list[str]:
        epochs = self.spec.train.epochs if self.spec.train else 0
        projection, found = self.choice.projection, []
        total_s = projection.projected_total_s if projection is not None else None
        projected = projected_time(projection)
        if projected is not None and epochs:
            total_s = projected.total_s(epochs)
        if total_s is not None:
            end = moment_words(time.time() + total_s)
            found.append(f"projected: {format_duration(total_s)}, until {end}")
        if self.deadline is None:
            return found
        left_s = time_left_s(self.deadline)
        left = f"{self.deadline.said_by} leaves {format_duration(left_s)}"
        if total_s is None:
            found.append(f"{left}; ctrkit knows after the first minutes how long the run takes")
        elif total_s > left_s:
            found.append(
                f"it does not fit: {left}, and the run is projected to take "
                f"{format_duration(total_s)}"
            )
        else:
            found.append(
                f"it fits: {left}, and the run is projected to take {format_duration(total_s)}"
            )
        return found

    # ---- after a launch --------------------------------------------------------------------------

    def _goes_on(self, outcome: Outcome) -> bool:
        """Note how the launch ended; returns whether to run the command again."""
        if outcome.verdict in ("ok", "skipped"):
            return False
        again = self.launches <= self.options.max_restarts and not self.stop.finish
        if again:
            why = f"--max-restarts {self.options.max_restarts} allows it"
        else:
            most = self.options.max_restarts
            why = (
                f"--max-restarts {most} have all been used"
                if most
                else "ctrkit starts a script over only with --max-restarts N"
            )
        self._note(outcome, "restarted" if again else "stopped", why)
        if again:
            left = self.options.max_restarts - self.launches
            print(
                f"ctrkit: {outcome.verdict}: {outcome.reason}; the command is run again from its "
                f"start ({plural(left, 'restart')} left)",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        return again

    def _note(self, outcome: Outcome, action: str, why: str) -> None:
        progress, cause = outcome.progress, outcome.cause
        cell = self.run.info.cell or self.spec.cell
        self.run.append_incident(
            Incident(
                number=self.run.next_incident(),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                verdict=outcome.verdict,
                reason=outcome.reason,
                cause=None if cause is None else cause.sentence,
                fix=None if cause is None else cause.fix or None,
                evidence=None if outcome.evidence is None else f"evidence/train-{self.launches}",
                epoch=0 if progress is None else progress.epoch,
                step=0 if progress is None else progress.step,
                stage="import" if progress is None else progress.stage.label,
                cell_before=cell,
                cell_after=cell if action == "restarted" else None,
                action=action,
                why=why,
                resumed_from={"epoch": 1, "batch": 0} if action == "restarted" else None,
                lost_s=outcome.wall_s if action == "restarted" else None,
            )
        )

    def _conclude(self, outcome: Outcome, aborted: str, observed: bool) -> None:
        """Record how it ended; raises the error that gives ctrkit the script's exit code."""
        wall_s = time.monotonic() + host_slept_s() - self.began_s
        history = summary_words(self.run.incidents())

        def keep(status: str, reason: str) -> None:
            reason = "; ".join(filter(None, (reason, history)))
            self.run.update(status=status, status_reason=reason, wall_s=wall_s)

        report = f"ctrkit report {self.run.path}"
        code = outcome.exit_code
        if code is None:
            if self.stop.finish and outcome.interrupted and outcome.verdict == "skipped":
                by = self.stop.by or "ctrkit"
                after = format_duration(self.options.grace_s)
                late = f"it had not ended {after} after {by}" if outcome.cut_by_grace else (
                    f"it had not ended after {by}, so ctrkit ended it at once")  # fmt: skip
                keep("ended" if aborted else "interrupted", aborted or late)
                message = f"{aborted or late} (give it a longer --grace); {report}"
                if aborted:
                    raise RunEndedError(message)
                raise ScriptEndedError(message, _SHELL_SIGNAL + self.stop.first)
            keep("ended", f"{outcome.verdict}: {outcome.reason}")
            raise RunEndedError(
                f"ended the run: {outcome.verdict}: {outcome.reason}; evidence in "
                f"{outcome.evidence}; {report}"
            )
        if aborted:
            keep("ended", f"late: {aborted}")
            raise RunEndedError(f"stopped the run: {aborted}; {report}")
        words = exit_words(code)
        if code and (done := batches_done(outcome.progress)):
            words += f" {done}"
        if self.stop.finish:
            keep("interrupted", f"{words} after {self.stop.by}")
        elif code == 0:
            keep("done", "" if observed else "watched from outside only")
        else:
            keep("ended", f"{words}{self._why(outcome)}")
        if code != 0:
            raise ScriptEndedError(f"{words}{self._why(outcome)}; {report}", own_exit_code(code))
        if not self.options.quiet:
            print(f"ctrkit: the script ended with exit code 0; {report}", file=sys.stderr)

    def _why(self, outcome: Outcome) -> str:
        """The cause of a failure, as far as the script's last words tell."""
        if self.stop.finish:
            return ""
        if outcome.cause is not None:
            return f": {outcome.cause.sentence}"
        said = last_words(tail(Path(self.spec.folder) / "stderr.txt"))
        return f": {said}" if said else ""


def own_exit_code(code: int) -> int:
    """The exit code of ctrkit: the script's own, or 128 + N for signal N, as in a shell."""
    return _SHELL_SIGNAL - code if code < 0 else code


def exit_words(code: int) -> str:
    """`the script ended with exit code 3`, `the script was ended by SIGTERM`."""
    if code < 0:
        return f"the script was ended by {signal_name(-code)}"
    return f"the script ended with exit code {code}"
