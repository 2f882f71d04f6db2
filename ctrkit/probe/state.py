"""The state of a search: what was launched, what is known from it, how much time is left."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ctrkit.core.child_records import Inspection
from ctrkit.core.config import Cell, TrialKind, WindowPlan
from ctrkit.core.errors import InterruptedRunError
from ctrkit.core.records import AnswerSoFar, TrialRecord
from ctrkit.measure.cores import waits_itself
from ctrkit.measure.steps import data_wait_share
from ctrkit.probe.candidates import Candidate, candidates_of, winner_of
from ctrkit.probe.cell_failures import failed_with_fewer, failure_of, failure_words
from ctrkit.probe.cell_order import simplest
from ctrkit.probe.cell_results import costs_of, project_cell
from ctrkit.probe.finalists import CellStanding
from ctrkit.probe.guess import guessed_objectives
from ctrkit.probe.matrix import MatrixPlan
from ctrkit.probe.memory_needs import memory_refusal
from ctrkit.probe.numerics import comparable
from ctrkit.probe.predict import Prediction, compute_trial, predict
from ctrkit.probe.same_epoch import OTHER_EPOCH, OtherEpoch, has_other_epoch, other_epochs
from ctrkit.probe.same_failure import SameFailure, cell_to_ask, same_failure
from ctrkit.probe.so_far import answer_so_far
from ctrkit.probe.trials import (
    Launch,
    Trial,
    TrialRequest,
    not_run_record,
    predicted_record,
    record_of,
    told_of_place,
)
from ctrkit.probe.windows import USEFUL, Costs, epoch_share, full_cost_s

OnRecord = Callable[[TrialRecord, Trial | None], None]
"""Called with each row as soon as it is known, and with its trial if one was launched."""


class AllFailAlikeError(Exception):
    """No cell changes the failure, so the search is over."""

    def __init__(self, found: SameFailure) -> None:
        super().__init__(found.words)
        self.found = found


#: In a whole launch, a loader limits the step if the step waits for it for this share.
_LIMITING = 0.5
OnAnswer = Callable[[AnswerSoFar], None]


_NO_TIME = "no time was left in the budget to measure it; give a longer --budget"
NOT_CHOSEN = "not tried: nothing says that it is faster; name only this configuration to measure it"


class SearchState:
    """Everything that a search decides on, and the only way to launch a trial."""

    cores = 1
    #: called with the answer so far after each trial
    on_answer: OnAnswer | None = None

    def __init__(
        self,
        plan: MatrixPlan,
        inspection: Inspection,
        launch: Launch,
        clock: Callable[[], float],
        budget_s: float,
        thorough: bool,
        on_record: OnRecord,
    ) -> None:
        self.plan, self.inspection = plan, inspection
        # for a batch size, simplest first also means least memory first
        self.cells = sorted(plan.cells, key=lambda c: (c.batch_size, *simplest(c)))
        self._launch, self._clock, self._on_record = launch, clock, on_record
        self.budget_s, self.thorough = budget_s, thorough
        self.end_s = clock() + budget_s
        self.trials: list[Trial] = []
        self.records: list[TrialRecord] = []
        self.refused: dict[Cell, str] = {}
        self._compared_from = -1
        self._others: dict[Cell, OtherEpoch] = {}
        self._predicted_from = (-1, 0)
        self._predictions: dict[Cell, Prediction] = {}

    # what is left

    def left_s(self) -> float:
        return self.end_s - self._clock()

    def _deadline_s(self, at_most_s: float = math.inf) -> float:
        if self.thorough:
            return math.inf
        return min(self.end_s, self._clock() + at_most_s)

    # launching

    def _try(
        self,
        kind: TrialKind,
        cell: Cell,
        windows: WindowPlan,
        at_most_s: float = math.inf,
        *,
        confirms: bool = False,
        as_first: bool = False,
    ) -> Trial | None:
        """Launch a trial and record it; None if it would not fit into memory.

        Each full launch of a cell begins at another place of the epoch, unless it must be
        comparable with the first one (`as_first`).

        Raises:
            InterruptedRunError: the user ended it; its row is kept.
        """
        if self._refuse(cell):
            return None
        number = 1 + sum(t.request.kind == kind and t.cell == cell for t in self.trials)
        # each launch times the validation at another place
        windows = replace(windows, validation_from=epoch_share(number))
        if kind == "full" and not as_first:
            windows = replace(windows, epoch_share=self._epoch_share(cell, windows, number))
        request = TrialRequest(kind=kind, cell=cell, windows=windows, confirms=confirms)
        result = self._launch(request, self._deadline_s(at_most_s))
        trial = told_of_place(Trial(request=request, result=result, launch=number))
        self.add_trial(trial)
        if result.interrupted:
            raise InterruptedRunError("interrupted")
        self._ask_another(trial, at_most_s)
        return trial

    def _ask_another(self, trial: Trial, at_most_s: float) -> None:
        """After a failure of the very first trial, try another cell.

        Raises:
            AllFailAlikeError: the cell has nothing to do with the failure.
        """
        if self.thorough:
            return
        other = cell_to_ask(trial, self.trials, self.cells)
        if other is not None:
            self._try(trial.request.kind, other, trial.request.windows, at_most_s)
        if found := same_failure(self.trials, self.cells):
            raise AllFailAlikeError(found)

    def _epoch_share(self, cell: Cell, windows: WindowPlan, launch: int) -> float:
        """The place in the epoch where a launch begins: 0 if it counts or sees the whole epoch."""
        seen_whole = any(
            t.result.measurement is not None and t.result.measurement.epoch_complete
            for t in self.trials
            if self._is_full(t, cell)
        )
        fails = any(t.failed_elsewhere for t in self.trials)
        return 0.0 if windows.count_s or seen_whole or fails else epoch_share(launch)

    def add_trial(self, trial: Trial) -> None:
        """Add a launch, and record it with the projection that it allows by itself."""
        self.trials.append(trial)
        projection = None
        if trial.request.kind == "full" and trial.usable:
            step_alone = compute_trial(trial.cell, self.trials)
            measured = trial.result.measurement
            own = [trial]
            if measured is not None and measured.first_batch:
                # a single place later in the epoch says nothing about the whole epoch
                own = [t for t in self.trials if self._is_full(t, trial.cell)]
            alone = [t for t in (step_alone, *own) if t is not None]
            projection = project_cell(trial.cell, alone, self.inspection, beside=self.trials)
        self._add(record_of(trial, projection), trial)
        self._admit(trial)
        self._tell_answer()

    def _tell_answer(self) -> None:
        if self.on_answer is None:
            return
        known = self._winner(), self.predictions().values()
        answer = answer_so_far(*known, self.trials, self.inspection)
        if answer is not None:
            self.on_answer(answer)

    def _admit(self, trial: Trial) -> None:
        """If a loader was found to wait, add its cells with workers beyond the cores.

        Alone it shows that; in a whole launch, if the step mostly waits for it.
        """
        measured = trial.result.measurement
        if trial.request.kind == "compute" or not trial.usable or measured is None:
            return
        alone = trial.request.kind == "loader" or not self.inspection.has_task
        limits = alone or (data_wait_share(measured) or 0.0) >= _LIMITING
        if limits and waits_itself(trial.cell, [measured], self.cores):
            like = (trial.cell.loader, trial.cell.batch_size)
            self.cells += [
                cell
                for cell in self.plan.if_waiting
                if (cell.loader, cell.batch_size) == like and cell not in self.cells
            ]

    def _refuse(self, cell: Cell) -> bool:
        """Whether the cell is too large to be tried; if so, all such cells get rows.

        Asked before each launch, since every trial shows more about the needs of others.
        """
        for other in self.cells:
            if not self._promising(other) or any(self._is_full(t, other) for t in self.trials):
                continue
            reason = memory_refusal(other, self.trials, self.inspection, self.plan.limits)
            if reason is not None:
                self.refused[other] = reason
                self._add(not_run_record(other, "refused", reason), None)
        return cell in self.refused

    def _add(self, record: TrialRecord, trial: Trial | None) -> None:
        self.records.append(record)
        self._on_record(record, trial)

    def _standings(self) -> list[CellStanding]:
        """Every cell that can still be recommended: what is known, and how often it ran."""
        predictions = self.predictions()
        measured = {c.cell: c for c in candidates_of(self.trials, self.inspection)}
        objectives = {cell: candidate.objective for cell, candidate in measured.items()}
        guessed = guessed_objectives(self.cells, objectives, self.trials, self.cores)
        standings = []
        for cell in comparable(self.cells, lambda c: c):
            if not self._promising(cell):
                continue
            candidate = measured.get(cell)
            prediction = predictions.get(cell)
            order = [i for i, t in enumerate(self.trials) if self._is_full(t, cell)]
            standings.append(
                CellStanding(
                    cell=cell,
                    measured=candidate.objective if candidate else None,
                    relative_half=candidate.relative_half if candidate else 0.0,
                    predicted=prediction.objective if prediction else guessed.get(cell),
                    launches=len(order),
                    last=order[-1] if order else -1,
                )
            )
        return standings

    @staticmethod
    def _is_full(trial: Trial, cell: Cell) -> bool:
        return trial.request.kind == "full" and trial.cell == cell

    # what is known

    def _winner(self) -> Candidate | None:
        """The cell that would be recommended now."""
        candidates = candidates_of(self.trials, self.inspection)
        ranked = comparable(candidates, lambda c: c.cell)
        promising = [c for c in ranked if self._promising(c.cell)]
        return winner_of(promising, self.plan.baseline)

    def _least_s(self, cell: Cell) -> float:
        """Seconds of the shortest launch of a cell that says enough."""
        return full_cost_s(cell, self._costs(cell), USEFUL)

    def _promising(self, cell: Cell) -> bool:
        """Whether the cell may be recommended: it fits, has not failed, and has the same epoch.

        A cell whose full trial was cut without a result may not.
        """
        full = [t for t in self.trials if self._is_full(t, cell) and not t.failed_elsewhere]
        cut = any(not t.usable for t in full)
        failed = cut or failure_of(cell, self.trials) is not None
        if not failed and not self.thorough:
            failed = failed_with_fewer(cell, self.trials) is not None
        return (
            not failed
            and cell not in self.refused
            and not has_other_epoch(cell, self._other_epochs())
        )

    def _other_epochs(self) -> dict[Cell, OtherEpoch]:
        if self._compared_from != len(self.trials):
            self._compared_from, self._others = len(self.trials), other_epochs(self.trials)
        return self._others

    def _costs(self, cell: Cell) -> Costs:
        return costs_of(cell, self.trials, self.inspection, self.cores)

    def predictions(self) -> dict[Cell, Prediction]:
        """Predictions of all cells with both ceilings known and without failure."""
        known = len(self.trials), len(self.refused)
        if self._predicted_from != known:
            self._predicted_from, self._predictions = known, {}
            for cell in self.cells if self.inspection.has_task else ():
                prediction = predict(cell, self.trials, self.inspection, self.cores)
                if prediction is not None and self._promising(cell):
                    self._predictions[cell] = prediction
        return self._predictions

    def flagged_records(self) -> list[TrialRecord]:
        """All rows; those of a cell with another epoch say so."""
        others = {cell.cell_id for cell in self._other_epochs()}
        return [
            replace(r, flags=[*r.flags, OTHER_EPOCH]) if r.cell_id in others and r.launch else r
            for r in self.records
        ]

    def complete_rows(self, why: str) -> None:
        """Add a row for every cell that has none yet; without `why`, the time left says why."""
        shown = {
            r.cell_id
            for r in self.records
            if r.kind == "full" or r.verdict not in ("ok", "skipped")
        }
        predictions = self.predictions()
        for cell in self.cells:
            if cell.cell_id in shown:
                continue
            prediction = predictions.get(cell)
            if prediction is not None:
                record = predicted_record(cell, prediction.projection, prediction.step)
            else:
                fits = self._least_s(cell) <= self.left_s()
                known = failure_of(cell, self.trials) or why or failure_words(cell, self.trials)
                reason = known or (NOT_CHOSEN if fits else _NO_TIME)
                record = not_run_record(cell, "skipped", reason)
            self._add(record, None)
