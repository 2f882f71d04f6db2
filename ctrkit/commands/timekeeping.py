"""Keeps time for a running real run: its ledger, its expected end, warnings when it is late."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ctrkit.commands.memory_watch import MemoryWatch
from ctrkit.core.config import ChildSpec
from ctrkit.core.epochs import EPOCHS, read_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import Progress
from ctrkit.core.run_time import RunTime, measured_time, projected_time
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.core.units import format_duration
from ctrkit.report.ledger_view import ExpectedEnd, moment_words, spending_words
from ctrkit.supervise.awake import Awake
from ctrkit.supervise.epoch_pace import EpochPace
from ctrkit.supervise.host import HostFigures, read_host
from ctrkit.supervise.lateness import (
    Forecast,
    LateCause,
    SessionProgress,
    forecast,
    late_by_s,
    late_cause,
)
from ctrkit.supervise.ledger import LEDGER
from ctrkit.supervise.ledger_keeper import Clocks, LedgerKeeper
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.time_account import PRODUCTIVE
from ctrkit.supervise.watching import Tick

_TELL_S = 1.0
_LATELY_S = 60.0  # seconds over which to report what takes the time now


class Teller(Protocol):
    """Shows a run's expected end and warnings."""

    def message(self, text: str) -> None: ...

    def expect(self, end: ExpectedEnd) -> None: ...

    def spend(self, words: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class TimeRules:
    """The rules about time: keep the machine awake, stop a run that would end too late."""

    allow_sleep: bool = False
    abort_after_s: float | None = None


class Timekeeper:
    """Follows one session of a real run.

    Call `launched`, `tick` and `ended` for each child, then `close`.

    Args:
        run: gets the ledger, and an incident if the run is late.
        spec: spec of the first child.
        rules: see `TimeRules`.
        display: shows the expected end.
        stop: asked to end the run if it would end too late.
        awake: keeps the machine awake; its failure is reported once.
        epochs: returns the number of epochs, as far as known; the plan's if None.
        clocks: clocks of the ledger.
        host: reads the host's figures.
    """

    def __init__(
        self,
        run: RunFolder,
        spec: ChildSpec,
        rules: TimeRules,
        display: Teller,
        stop: StopRequest,
        *,
        awake: Awake | None = None,
        epochs: Callable[[], int | None] | None = None,
        clocks: Clocks | None = None,
        host: Callable[[], HostFigures] = read_host,
    ) -> None:
        assert spec.train is not None, "a train spec has a train plan"
        self._run, self._plan, self._rules = run, spec.train, rules
        self._display, self._stop, self._awake = display, stop, awake
        self._clocks = clocks or Clocks()
        self.keeper = LedgerKeeper(
            run.path / LEDGER, Path(spec.folder), say=display.message, clocks=self._clocks,
            host=host,
        )  # fmt: skip
        self._projected = projected_time(run.info.projection)
        self._known = earlier_time(run) or self._projected
        self._progress: Progress | None = None
        self._pace = EpochPace()
        self._warned = self._told_awake = False
        self._memory = MemoryWatch(run, display.message)
        self._told_s = -_TELL_S
        self._spent: deque[tuple[float, dict[str, float]]] = deque()
        self._rows_judged = 0
        self._epochs = epochs or (lambda: self._plan.epochs)
        #: expected end of the run as Unix time; None if unknown
        self.end_unix_s: float | None = None
        #: why this asked the run to end; empty if it did not
        self.aborted = ""

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds of this session, including the host's sleep."""
        return self.keeper.wall_s

    def launched(self) -> None:
        """A child is about to start."""
        self.keeper.launched()

    def ended(self, *, lost: bool) -> None:
        """The child has ended; `lost`: without finishing."""
        self.keeper.ended(lost=lost)
        self._pace.lost()

    def close(self) -> None:
        """Write the last row at the end of the session."""
        self.keeper.close()

    def wait(self) -> None:
        """Account for the time; call it a few times a second while no child runs."""
        self.keeper.tick(None)
        self._abort_if_over()

    def tick(self, tick: Tick) -> None:
        """Account for the time; call it a few times a second while a child runs."""
        self.keeper.tick(tick)
        self._tell_awake()
        self._tell_spending()
        if tick.progress is None or not tick.progress.epoch:
            self._abort_if_over()
            return
        self._follow(tick.progress)
        standing = self.standing(tick.progress)
        known = self._known_epochs(tick.progress) is not None
        sizes = self._run.info.sizes
        batches = (sizes.validation_batches if sizes is not None else None) or 0
        expected = forecast(standing, self._known, batches) if known else None
        self._note_end(standing, expected)
        if expected is not None and self.keeper.wall_s - self._told_s >= _TELL_S:
            self._told_s = self.keeper.wall_s
            passed_s = standing.elapsed_s
            self._display.expect(
                ExpectedEnd(
                    at_unix_s=self._clocks.unix_s(),
                    left_s=expected.total_s - passed_s,
                    low_s=expected.low_s - passed_s,
                    high_s=expected.high_s - passed_s,
                    ending_s=max(0.0, expected.ending_s - self._pace.into_end_s),
                    unseen=self._unseen(expected),
                )
            )
        if len(self.keeper.rows) > self._rows_judged:
            self._rows_judged = len(self.keeper.rows)
            self._warn_if_late(standing, expected)
            left_s = None if expected is None else expected.total_s - standing.elapsed_s
            self._memory.look(self.keeper.rows, tick.progress, left_s)
        self._abort_if_too_late(standing, expected)

    def _note_end(self, standing: SessionProgress, expected: Forecast | None) -> None:
        self.end_unix_s = None
        if expected is not None:
            left_s = expected.total_s - standing.elapsed_s
            self.end_unix_s = self._clocks.unix_s() + left_s

    def _tell_awake(self) -> None:
        if self._awake is None or self._told_awake:
            return
        if problem := self._awake.problem():
            self._told_awake = True
            self._display.message(f"this machine may go to sleep during the run: {problem}")

    def _tell_spending(self) -> None:
        """Show where the time of the last minute went."""
        now = (self.keeper.wall_s, dict(self.keeper.account.seconds))
        if self._spent and now[0] - self._spent[-1][0] < _TELL_S:
            return
        self._spent.append(now)
        while len(self._spent) > 2 and now[0] - self._spent[1][0] > _LATELY_S:
            self._spent.popleft()
        self._display.spend(spending_words(self._spent[0][1], now[1]))

    def _follow(self, progress: Progress) -> None:
        self._progress, ends = progress, self._pace.ends
        self._pace.look(progress, self._productive_s(), self.keeper.steps_of_launch)
        if self._pace.ends > ends:
            with suppress(OSError):  # only a later session needs it
                self._run.update(ending_s=self._pace.mean_ending_s)

    def _productive_s(self) -> float:
        return sum(self.keeper.account.seconds[name] for name in PRODUCTIVE)

    def _unseen(self, expected: Forecast) -> str:
        """What the expected end omits or only guesses, because it was never seen."""
        if self._pace.ends or (self._known is not None and self._known.ending_s is not None):
            return ""
        if expected.is_end_guessed:
            return "the time for validation is a guess until the first one"
        return "without validation and checkpoints, which come at the end of an epoch"

    def _known_epochs(self, progress: Progress) -> float | None:
        """The number of epochs of the run, from the epochs or steps of its plan.

        None if unknown.
        """
        epochs = self._epochs()
        if self._plan.max_steps is None or not progress.steps:
            return epochs
        by_steps = self._plan.max_steps / progress.steps
        return by_steps if epochs is None else min(epochs, by_steps)

    def standing(self, progress: Progress) -> SessionProgress:
        """The progress of the session."""
        pace = self._pace
        return SessionProgress(
            epochs=self._known_epochs(progress) or 0.0,
            began=pace.done if pace.began is None else pace.began,
            done=pace.done,
            elapsed_s=self.keeper.wall_s,
            productive_s=self._productive_s(),
            stepping_s=pace.stepping_s,
            steps=self.keeper.steps,
            ending_s=pace.mean_ending_s,
            into_end_s=pace.into_end_s,
        )

    def _warn_if_late(self, standing: SessionProgress, expected: Forecast | None) -> None:
        """Warn once when the expected end leaves the projected interval."""
        if self._warned or self._projected is None or expected is None:
            return
        late_s = late_by_s(standing, self._projected, expected)
        if not late_s:
            return
        self._warned = True
        cause = self._cause(standing)
        reason = (
            f"the run will end {format_duration(late_s)} after the projected interval, "
            f"{self._when(expected, standing)}"
        )
        self._display.message(f"late: {cause.words}; {reason}. What to do: {cause.advice}")
        self._note(reason, cause, "noted", late_s)

    def _abort_if_too_late(self, standing: SessionProgress, expected: Forecast | None) -> None:
        limit_s = self._rules.abort_after_s
        if limit_s is None or self.aborted or self._stop.finish:
            return
        total_s = standing.elapsed_s
        if expected is not None and standing.is_pace_known:
            total_s = max(total_s, expected.total_s)
        if total_s <= limit_s:
            return
        cause = self._cause(standing)
        self.aborted = (
            f"it would take {format_duration(total_s)}, and --abort-if-later-than allows "
            f"{format_duration(limit_s)}: {cause.words}"
        )
        self._display.message(f"saving and stopping: {self.aborted}")
        self._note(self.aborted, cause, "stopped", total_s - limit_s)
        self._stop.request()

    def _abort_if_over(self) -> None:
        """Before the first step, only the elapsed time shows that the end will be too late."""
        limit_s, wall_s = self._rules.abort_after_s, self.keeper.wall_s
        if limit_s is None or wall_s <= limit_s or self.aborted or self._stop.finish:
            return
        self.aborted = (
            f"it has taken {format_duration(wall_s)} without a training step, and "
            f"--abort-if-later-than allows {format_duration(limit_s)}"
        )
        self._display.message(f"stopping: {self.aborted}")
        self._stop.request()

    def _cause(self, standing: SessionProgress) -> LateCause:
        rows = self.keeper.rows_so_far()
        return late_cause(rows, standing, self._projected, self.keeper.launch - 1)

    def _when(self, expected: Forecast, standing: SessionProgress) -> str:
        left_s = expected.total_s - standing.elapsed_s
        return moment_words(self._clocks.unix_s() + left_s)

    def _note(self, reason: str, cause: LateCause, action: str, late_s: float) -> None:
        progress, cell = self._progress, self._run.info.cell
        if progress is None or cell is None:
            return
        incident = Incident(
            number=self._run.next_incident(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict="late",
            reason=reason,
            cause=cause.words,
            fix=cause.advice,
            epoch=progress.epoch,
            step=progress.step,
            stage=progress.stage.label,
            cell_before=cell,
            cell_after=cell,
            action=action,
            lost_s=late_s,
        )
        # the line was shown, and a full disk is no reason to end the run here
        with suppress(OSError):
            self._run.append_incident(incident)


def earlier_time(run: RunFolder) -> RunTime | None:
    """The run time from epochs of earlier sessions in the same cell; None without one.

    A session records in `run.json` how long the end of an epoch takes.
    """
    if run.info.ending_s is None:
        return None
    try:
        rows = read_epochs(run.path / EPOCHS, whole=True)
    except UsageError:
        return None
    took_s = [seconds for row in rows if (seconds := row["wall_s"]) is not None]
    time, projected = measured_time(took_s, run.info.ending_s), projected_time(run.info.projection)
    if time is None or projected is None:
        return time
    return replace(time, startup_s=projected.startup_s, low=projected.low, high=projected.high)
