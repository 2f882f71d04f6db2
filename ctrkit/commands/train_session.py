"""Runs one session of a real run to its end: its children, its display, its time."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from ctrkit.commands.epoch_watch import EpochWatch
from ctrkit.commands.inspection import inspect_workload
from ctrkit.commands.learned_times import LearnedTimes
from ctrkit.commands.loss_watch import LossWatch
from ctrkit.commands.restarts import RestartRules, Supervision, run_over_restarts
from ctrkit.commands.run_end import conclude_run
from ctrkit.commands.timekeeping import Timekeeper, TimeRules
from ctrkit.commands.unsaved_watch import UnsavedWatch
from ctrkit.commands.warnings_watch import WarningsWatch
from ctrkit.core.bystander import Bystander, say
from ctrkit.core.calibration import note_calibration, row_of_run
from ctrkit.core.config import ChildSpec, encode
from ctrkit.core.epochs import EPOCHS, read_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.registry import plugin_of
from ctrkit.core.runs import RunFolder
from ctrkit.report.epoch_figures import watch_of
from ctrkit.report.incidents import live_line
from ctrkit.report.live_train import TrainDisplay
from ctrkit.supervise.awake import Awake
from ctrkit.supervise.ledger import LEDGER, read_ledger, totals
from ctrkit.supervise.stop import GRACE_S, StopRequest
from ctrkit.supervise.supervisor import Outcome, run_child
from ctrkit.supervise.time_limits import TimeLimits
from ctrkit.supervise.watching import Tick


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of a real run other than its workload and cell."""

    auto_device: bool
    config: Path | None
    epochs: int | None
    max_steps: int | None
    checkpoint_every_s: float
    rules: RestartRules
    time_rules: TimeRules
    quiet: bool
    grace_s: float = GRACE_S


def train_over_restarts(
    run: RunFolder,
    spec: ChildSpec,
    options: TrainOptions,
    time_limits: TimeLimits,
    stop: StopRequest,
) -> None:
    """Train to the end, with as many children as that takes, and report how it ended.

    Raises:
        RunEndedError, InterruptedRunError, UsageError: as `conclude_run`.
    """
    assert spec.train is not None, "a train spec has a train plan"
    rules = TimeRules(allow_sleep=spec.train.allow_sleep, abort_after_s=spec.train.abort_after_s)
    awake = None if rules.allow_sleep else Awake()
    run.update(status="running", status_reason="")
    shown = TrainDisplay(
        epochs=spec.train.epochs, plugin=plugin_of(spec.workload.target),
        projection=run.info.projection, quiet=options.quiet,
    )  # fmt: skip
    bystander = Bystander()
    with awake or nullcontext(), shown as display:
        times = Timekeeper(run, spec, rules, display, stop, awake=awake)
        session = _Session(run, spec, options, time_limits, stop, display, times, bystander)
        try:
            outcome, incidents = run_over_restarts(run, spec, options.rules, session.supervision())
        finally:
            with bystander.doing("to keep the time"):
                times.close()
            session.unsaved.close()
    wall_s = (run.info.wall_s or 0.0) + times.wall_s
    try:
        said = conclude_run(run, outcome, incidents, wall_s, stop, times.aborted)
    finally:
        with bystander.doing("to note what was projected and what it took"):
            _calibrate(run)
    if said:
        say(said)
    with suppress(OSError):
        print(f"ctrkit report {run.path}", flush=True)


class _Session:
    """Launches the children of a run, and lets watchers follow them."""

    def __init__(
        self,
        run: RunFolder,
        spec: ChildSpec,
        options: TrainOptions,
        time_limits: TimeLimits,
        stop: StopRequest,
        display: TrainDisplay,
        times: Timekeeper,
        bystander: Bystander,
    ) -> None:
        self._run, self._spec, self._options = run, spec, options
        self._time_limits, self._stop = time_limits, stop
        self._display, self._times, self._bystander = display, times, bystander
        self._cell = spec.cell
        self._learned = LearnedTimes(run)
        display.message(time_limits.in_words(self._learned.times))
        resumes = spec.train is not None and spec.train.resume
        shown = len(read_epochs(run.path / EPOCHS)) if resumes else 0
        self._epochs = EpochWatch(
            run.path / EPOCHS, display, shown, stop, options.grace_s, watch_of(run.info)
        )

        # shown even with --quiet
        self.unsaved = UnsavedWatch(
            run, Path(spec.folder), say if options.quiet else display.message
        )

        self._losses = LossWatch(run, say if options.quiet else display.message)

        self._warnings = WarningsWatch(run, Path(spec.folder), display.message)

    def supervision(self) -> Supervision:
        """The session's tools for restarts."""
        return Supervision(
            launch=self._launch,
            look=lambda: inspect_workload(
                self._spec.workload,
                self._stop,
                limits=self._time_limits,
                run=lambda: self._run,
                on_tick=lambda _: self._times.wait(),
            ),
            announce=lambda incident: self._display.restarted(live_line(encode(incident))),
            stop=self._stop,
            learn=self._learned.raised,
        )

    def _launch(self, spec: ChildSpec, evidence_folder: Path) -> Outcome:
        doing = self._bystander.doing
        with doing("to keep the time"):
            self._times.launched()
        self._cell = spec.cell
        with doing("to look for checkpoints that failed"):
            self.unsaved.launched()
        with doing("to look for torch's warnings"):
            self._warnings.launched()
        outcome = run_child(
            spec,
            time_limits=self._time_limits.of_cell(spec.cell),
            evidence_folder=evidence_folder,
            completion="outcome.json",
            on_tick=self._follow,
            stop=self._stop,
            grace_s=self._options.grace_s,
            times=self._learned.times,
        )
        with doing("to note how long its stages took"):
            self._learned.ended(outcome)
        with doing("to show the epochs"):
            self._epochs.look()
            self._losses.look(outcome.progress, spec.cell)
            self.unsaved.look(spec.cell)
        with doing("to keep torch's warnings"):
            self._warnings.look()
        with doing("to keep the time"):
            self._times.ended(lost=outcome.verdict not in ("ok", "skipped"))
        return outcome

    def _follow(self, tick: Tick) -> None:
        self._epochs(tick)
        self._times.tick(tick)
        self._losses.look(tick.progress, self._cell)
        self.unsaved.look(self._cell)
        with self._bystander.doing("to keep torch's warnings"):
            self._warnings.look()
        if self._stop.finish and self._run.info.status == "running":
            self._note_stop()

    def _note_stop(self) -> None:
        """Record a stop at once: whoever asked may kill the run before it has ended."""
        by = f" by {self._stop.by}" if self._stop.by else ""
        with suppress(OSError):
            self._run.update(status="interrupted", status_reason=f"asked to stop{by}")


#: A run counts as disturbed if it slept or was stopped for at least this share of its time.
_AWAY_SHARE = 0.02


def _disturbances(run: RunFolder) -> int:
    """How often the run was restarted, and whether it slept or was stopped.

    A run that was only late counts among those that projections are learned from: to leave it out
    would leave out the errors.
    """
    restarts = len([one for one in run.incidents() if one.get("action") != "noted"])
    try:
        spent = totals(read_ledger(run.path / LEDGER))
    except UsageError:
        return restarts
    away_s = spent["asleep"] + spent["stopped"]
    return restarts + int(away_s > _AWAY_SHARE * sum(spent.values()))


def _calibrate(run: RunFolder) -> None:
    """Record the run's projected and actual time; a failure must not fail the run."""
    epochs = [row["wall_s"] for row in read_epochs(run.path / EPOCHS) if row["wall_s"] is not None]
    row = row_of_run(run.path, run.info, epochs, _disturbances(run))
    try:
        if row is not None:
            note_calibration(row)
    except (UsageError, OSError) as error:
        say(f"not recorded for ctrkit report --calibration: {error}")
