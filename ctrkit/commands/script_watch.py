"""Follows the real run of a script: its epochs, what the observer reports, the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ctrkit.commands.ranks_watch import RanksWatch
from ctrkit.commands.script_cell import seen_cell
from ctrkit.commands.unobserved import why_unobserved
from ctrkit.core.config import ChildSpec, RunSizes, decode
from ctrkit.core.environment import with_torch
from ctrkit.core.epochs import EPOCHS, write_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json
from ctrkit.core.plugins import Plugin
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.core.script_epochs import EPOCHS_FILE, epoch_rows, read_script_epochs
from ctrkit.core.script_records import ScriptSeen
from ctrkit.core.units import format_duration
from ctrkit.probe.scripts.as_written import train_loader_of
from ctrkit.report.ledger_view import moment_words
from ctrkit.report.live_script import ScriptDisplay
from ctrkit.report.live_train import epoch_line
from ctrkit.report.ranks_view import late_title, late_words
from ctrkit.report.silence import SilenceNotice
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.walltime import Deadline
from ctrkit.supervise.watching import Tick

_LOOK_S = 2.0
_UNOBSERVED_S = 60.0
_SLACK_S = 30.0


class ScriptWatch:
    """Reports what happens in the run, a line for each thing worth one.

    Args:
        run: gets `epochs.csv`, and an incident if the run will not end in time.
        spec: the script's spec.
        display: shows the lines.
        stop: the stop request.
        deadline: when it must be over; None if nothing says so.
        clock: returns seconds, monotonic.
        unix_s: returns Unix time.
    """

    def __init__(
        self,
        run: RunFolder,
        spec: ChildSpec,
        display: ScriptDisplay,
        stop: StopRequest,
        deadline: Deadline | None,
        clock: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._unix_s = unix_s
        self._run, self._spec, self._display = run, spec, display
        self._stop, self._deadline, self._clock = stop, deadline, clock
        self._folder = Path(spec.folder)
        self._progress: Progress | None = None
        self._seen: ScriptSeen | None = None
        self._looked_s = -_LOOK_S
        self._epochs_shown = 0
        self._told: set[str] = set()
        self._silence = SilenceNotice()
        self._ranks = RanksWatch(self._folder)
        self._ended_well = False
        #: whether the observer has written anything
        self.is_observed = False

    def launched(self) -> None:
        """The command is about to be started."""
        (self._folder / EPOCHS_FILE).unlink(missing_ok=True)
        self._seen, self._epochs_shown = None, 0
        self._ended_well = False
        self._ranks = RanksWatch(self._folder)

    def ended(self, exit_code: int | None) -> None:
        """The command has ended. If it ended well, an epoch cut by its end counts as whole."""
        self._ended_well = exit_code == 0 and not self._stop.finish
        self.look()
        if not exit_code:  # after a failure, the script's own last words matter
            self.tell_unobserved()

    def epochs(self) -> int | None:
        """The number of epochs: as the user says, else as the observer has found out."""
        script = self._spec.workload.script
        if script is not None and script.epochs is not None:
            return script.epochs
        return self._seen.epochs if self._seen is not None else None

    def tick(self, tick: Tick) -> None:
        """Follow the run; call it a few times a second."""
        self._progress = tick.progress
        if tick.progress is not None and tick.progress.stage is not Stage.IMPORT:
            self.is_observed = True
        self._display.epochs = self.epochs()
        self._display.tick(tick.progress)
        if self._stop.finish:
            self._once("stop", f"{self._stop.by} is passed on to the script")
        if not self.is_observed and tick.wall_s > _UNOBSERVED_S:
            self._once("observer", self._unobserved_words())
        if self.is_observed and (line := self._silence(tick)):
            self._display.message(line)
        if self._clock() - self._looked_s >= _LOOK_S:
            self.look()

    def look(self) -> None:
        """Read what the observer has written since the last call."""
        self._looked_s = self._clock()
        path = self._folder / "script.json"
        if path.is_file():
            with suppress(UsageError):
                self._seen = decode(ScriptSeen, read_json(path), str(path))
        if self._seen is not None:
            self.is_observed = True
            for note in filter(None, (self._seen.problem, *self._seen.notes)):
                self._once(note, note)
        self._keep_sizes()
        self._keep_cell()
        self._show_epochs()
        self._look_at_ranks()

    def _look_at_ranks(self) -> None:
        """Show which of several ranks the others wait for, in the title and once in a line."""
        late = self._ranks.look(time.monotonic())
        self._display.ranks_words = "" if late is None else late_title(late)
        if late is not None and self._ranks.is_sure:
            self._once(f"rank {late.rank} {late.waits_for_data}", late_words(late))

    def _keep_sizes(self) -> None:
        """Record the run's length in its folder as soon as it is known."""
        epochs, seen = self.epochs(), self._seen
        if epochs is None:
            return
        batches = seen.epoch_batches if seen is not None else None
        if seen is not None and self._is_first_epoch_cut():
            loader = train_loader_of(seen)
            batches = None if loader is None else loader.length
        sizes = RunSizes(epochs=epochs, train_batches=batches)
        if sizes != self._run.info.sizes:
            with suppress(OSError):
                self._run.update(sizes=sizes)

    def _keep_cell(self) -> None:
        """Record the observed configuration in the run's folder."""
        if self._seen is None or not self._seen.clock:
            return
        with suppress(UsageError, OSError):
            cell = seen_cell(self._spec, self._seen)
            if cell != self._run.info.cell:
                torch = self._seen.torch_version
                environment = with_torch(self._run.info.environment, torch)
                self._run.update(cell=cell, environment=environment)

    def _is_first_epoch_cut(self) -> bool:
        lines = read_script_epochs(self._folder / EPOCHS_FILE)
        return bool(lines) and bool(lines[0].get("cut")) and not self._ended_well

    def _show_epochs(self) -> None:
        lines = read_script_epochs(self._folder / EPOCHS_FILE)
        lines = [line for line in lines if self._ended_well or not line.get("cut")]
        if len(lines) <= self._epochs_shown:
            return
        rows = epoch_rows(lines)
        for row in rows[self._epochs_shown :]:
            self._display.message(epoch_line(row, self._run.info.projection, Plugin()))
        self._epochs_shown = len(rows)
        with suppress(OSError):  # the epochs were shown, and are written again at the end
            write_epochs(self._run.path / EPOCHS, rows)

    def _unobserved_words(self) -> str:
        """Why the observer wrote nothing, as far as the command tells."""
        script = self._spec.workload.script
        words = script.command if script is not None else []
        folder = Path(script.folder) if script is not None else Path()
        if why := why_unobserved(words, folder):
            pass
        elif (self._folder / "observer-trouble.txt").is_file():
            why = f"the observer failed: see {self._folder / 'observer-trouble.txt'}"
        else:
            why = "no Python process of it has imported torch so far"
        return (
            f"ctrkit watches the script from outside only: {why}. It cannot end a hang, and does "
            "not know steps, epochs or data wait"
        )

    def tell_unobserved(self) -> None:
        """Say at the end that the run was never observed, and why."""
        if not self.is_observed:
            self._once("observer", self._unobserved_words())

    # ---- the time that is left -------------------------------------------------------------------

    def compare_with_deadline(self, end_unix_s: float | None) -> None:
        """Warn once if the run will not end before its deadline."""
        if self._deadline is None or "deadline" in self._told:
            return
        now_s, until_s = self._unix_s(), self._deadline.at_unix_s
        late_s = (now_s if end_unix_s is None else max(now_s, end_unix_s)) - until_s
        if late_s <= (0.0 if now_s > until_s else _SLACK_S):
            return
        until = f"{self._deadline.said_by} ({moment_words(until_s)})"
        if now_s > until_s:
            words = f"the run continues after {until}"
        else:
            words = (
                f"the run will not end in time: ctrkit expects its end at "
                f"{moment_words(end_unix_s or now_s)}, "
                f"{format_duration(late_s)} after {until}"
            )
        self._once("deadline", words)
        self._note(words, late_s)

    def _note(self, words: str, late_s: float) -> None:
        progress, cell = self._progress, self._run.info.cell or self._spec.cell
        incident = Incident(
            number=self._run.next_incident(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict="late",
            reason=words,
            fix="ask for a longer job, or train fewer epochs; ctrkit probe may find a faster "
            "configuration",
            epoch=progress.epoch if progress is not None else 0,
            step=progress.step if progress is not None else 0,
            stage=progress.stage.label if progress is not None else "",
            cell_before=cell,
            cell_after=cell,
            action="noted",
            lost_s=late_s,
        )
        with suppress(OSError):  # the line was shown at least
            self._run.append_incident(incident)

    def _once(self, key: str, words: str) -> None:
        if key not in self._told:
            self._told.add(key)
            self._display.message(words)
