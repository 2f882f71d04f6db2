"""Chooses which trials to launch within the budget, and launches them, one after the other.

First the ceilings: the training step once per device, batch size and threads, each distinct loader
alone. Replay combines them into a prediction of every cell. The most promising cells are then
really run, and the finalists again in turn (A B B A) for the spread between launches. Every cell
gets a row. Nothing here starts a process or reads a clock: both are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ctrkit.config import Cell, WindowPlan
from ctrkit.environment import physical_cores
from ctrkit.errors import InterruptedRunError
from ctrkit.probe.finals import TIE, Standing, next_finals
from ctrkit.probe.known import costs_of, failure_of, full_launches, objective, project_cell
from ctrkit.probe.matrix import MatrixPlan
from ctrkit.probe.predict import (
    Prediction,
    compute_trial,
    nearest_loader,
    predict,
)
from ctrkit.probe.trials import (
    Launch,
    Trial,
    TrialRequest,
    compute_key,
    loader_key,
    not_run_record,
    predicted_record,
    record_of,
)
from ctrkit.probe.windows import (
    USEFUL,
    Costs,
    compute_windows,
    full_cost_s,
    full_windows,
    loader_only_windows,
    loader_windows,
)
from ctrkit.records import Inspection, Measurement, TrialRecord

#: Below this many seconds there is no time for ceilings: the simplest cell is run at once.
_SMALL_BUDGET_S = 25.0
_COMPUTE_SHARE = 0.25
_COMPUTE_MOST = 0.5
_LOADERS_LEAST, _LOADERS_MOST = 0.15, 0.35
_LAUNCHES_PLANNED = 4
_LOADER_ORDER = ("custom", "thread", "batches", "resident", "rows")
_START_ORDER = (None, "spawn", "forkserver", "fork")
_OUT_OF_TIME = "budget: no time was left to measure it; give a longer --budget"

OnRecord = Callable[[TrialRecord, Trial | None], None]
"""Called with each row as soon as it is known, and with its trial if one was launched."""


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """All that a search found out. `records` are the rows of `trials.parquet`, in order."""

    plan: MatrixPlan
    records: tuple[TrialRecord, ...]
    trials: tuple[Trial, ...]
    predictions: tuple[Prediction, ...]
    interrupted: bool = False

    def launches(self, cell: Cell) -> list[Measurement]:
        """Measurements of its full trials: those that ended well, else what cut ones had."""
        return full_launches(cell, self.trials)

    def full_trials(self, cell: Cell) -> list[Trial]:
        """Its launches as a whole, whatever they came to."""
        return [t for t in self.trials if t.request.kind == "full" and t.cell == cell]

    def compute(self, cell: Cell) -> Measurement | None:
        """Its training step alone."""
        trial = compute_trial(cell, self.trials)
        return trial.result.measurement if trial else None

    def loader(self, cell: Cell) -> Measurement | None:
        """Its loader alone, only where that very loader was measured."""
        trial = nearest_loader(cell, self.trials)
        if trial is None or loader_key(trial.cell) != loader_key(cell):
            return None
        return trial.result.measurement


def run_search(
    plan: MatrixPlan,
    inspection: Inspection,
    *,
    launch: Launch,
    clock: Callable[[], float],
    budget_s: float,
    thorough: bool = False,
    on_record: OnRecord = lambda record, trial: None,
    cores: int | None = None,
) -> SearchResult:
    """Measure the matrix within the budget.

    Args:
        plan: the cells, and those refused.
        inspection: of the workload.
        launch: runs one trial; its deadline is on `clock` and infinite with `thorough`.
        clock: seconds, monotonic.
        budget_s: for all launches together; only a hang that is being judged may overrun it.
        thorough: really run every cell, to the end, even beyond the budget.
        on_record: see `OnRecord`.
        cores: physical cores; of this machine if left out.
    """
    search = _Search(plan, inspection, launch, clock, budget_s, thorough, on_record)
    search.cores = cores or physical_cores()
    interrupted = False
    try:
        search.run()
    except InterruptedRunError:
        interrupted = True
    search.complete_rows("interrupted" if interrupted else _OUT_OF_TIME)
    return SearchResult(
        plan=plan,
        records=tuple(search.records),
        trials=tuple(search.trials),
        predictions=tuple(search.predictions().values()),
        interrupted=interrupted,
    )


def simplest(cell: Cell) -> tuple[object, ...]:
    """Sorts cells by how little can go wrong: no workers first, spawn before fork."""
    known = _LOADER_ORDER.index(cell.loader) if cell.loader in _LOADER_ORDER else 9
    return (cell.workers, known, _START_ORDER.index(cell.start_method), cell.cell_id)


class _Search:
    """The search in progress: what was launched so far, and how much time is left."""

    cores = 1

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
        self.cells = sorted(plan.cells, key=simplest)
        self._launch, self._clock, self._on_record = launch, clock, on_record
        self.budget_s, self.thorough = budget_s, thorough
        self.end_s = clock() + budget_s
        self.trials: list[Trial] = []
        self.records: list[TrialRecord] = []

    def run(self) -> None:
        for cell, reason in self.plan.refused:
            self._add(not_run_record(cell, "refused", reason), None)
        if self.inspection.has_task:
            if self.thorough or self.budget_s >= _SMALL_BUDGET_S:
                self._measure_steps()
                self._measure_loaders()
            if self.thorough:
                self._run_every_cell()
        else:
            self._run_every_cell()
        self._run_finals()

    # what is left

    def left_s(self) -> float:
        return self.end_s - self._clock()

    def _deadline_s(self, at_most_s: float = math.inf) -> float:
        if self.thorough:
            return math.inf
        return min(self.end_s, self._clock() + at_most_s)

    # launching

    def _try(
        self, kind: str, cell: Cell, windows: WindowPlan, at_most_s: float = math.inf
    ) -> Trial:
        """Launch a trial and record it.

        Raises:
            InterruptedRunError: the user ended it; its row is kept.
        """
        request = TrialRequest(kind=kind, cell=cell, windows=windows)  # type: ignore[arg-type]
        number = 1 + sum(t.request.kind == kind and t.cell == cell for t in self.trials)
        result = self._launch(request, self._deadline_s(at_most_s))
        trial = Trial(request=request, result=result, launch=number)
        self.trials.append(trial)
        projection = None
        if kind == "full" and trial.usable:
            step_alone = compute_trial(cell, self.trials)
            alone = [t for t in (step_alone, trial) if t is not None]
            projection = project_cell(cell, alone, self.inspection)
        self._add(record_of(trial, projection), trial)
        if result.interrupted:
            raise InterruptedRunError("interrupted")
        return trial

    def _add(self, record: TrialRecord, trial: Trial | None) -> None:
        self.records.append(record)
        self._on_record(record, trial)

    # the ceilings

    def _measure_steps(self) -> None:
        """The training step alone, once per device, batch size and threads."""
        groups: dict[object, Cell] = {}
        for cell in sorted(self.cells, key=lambda c: (c.device == "cpu", simplest(c))):
            groups.setdefault(compute_key(cell), cell)
        for cell in groups.values():
            share_s = _COMPUTE_SHARE * self.budget_s / len(groups)
            most_s = _COMPUTE_MOST * self.budget_s / len(groups)
            if self.left_s() < self._costs(cell).launch_s and not self.thorough:
                return
            self._try("compute", cell, compute_windows(share_s), most_s)

    def _measure_loaders(self) -> None:
        """Each loader alone, the simplest first, until their share of the budget is used up.

        Without workers first: that is the time of one batch. Where a cell without workers comes
        to the step's own ceiling, workers can gain nothing; they are predicted from that batch.
        """
        seen: dict[object, Cell] = {}
        for cell in self.cells:
            if self._promising(cell):
                seen.setdefault(loader_key(cell), cell)
        waiting = list(seen.values())
        until_s = self._clock() + self._loaders_share_s()
        while waiting:
            cell = waiting.pop(0)
            if self._cannot_gain(cell):
                continue
            costs = self._costs(cell)
            share_s = (until_s - self._clock()) / (1 + len(waiting))
            windows, expected_s = loader_windows(cell, costs, share_s)
            if not self.thorough and self._clock() + expected_s > until_s:
                continue
            self._try("loader", cell, windows, 3 * expected_s + 10)

    def _loaders_share_s(self) -> float:
        """What the best cell's real run does not need of the rest, within bounds."""
        useful_s = [
            full_cost_s(c, self._costs(c), USEFUL) for c in self.cells if self._promising(c)
        ]
        wanted = self.left_s() - min(useful_s, default=0.0)
        bounds = _LOADERS_LEAST * self.budget_s, _LOADERS_MOST * self.budget_s
        return max(0.0, min(max(wanted, bounds[0]), bounds[1], self.left_s()))

    def _cannot_gain(self, cell: Cell) -> bool:
        """Workers, where a cell without them is within the tie band of the step's own ceiling."""
        if not cell.workers or self.thorough:
            return False
        alike = [
            p
            for c, p in self.predictions().items()
            if not c.workers and compute_key(c) == compute_key(cell)
        ]
        own = any(p.cell.loader == cell.loader for p in alike)
        return own and any(p.step.mean <= p.compute_step_s * (1 + TIE) for p in alike)

    # real runs

    def _run_every_cell(self) -> None:
        """Every cell once; without `thorough` until the budget is used up, with some to spare."""
        reserve = 0.2 if len(self.cells) > 1 else 0.5
        for i, cell in enumerate(self.cells):
            costs = self._costs(cell)
            share_s = (self.left_s() - reserve * self.budget_s) / (len(self.cells) - i)
            if self.inspection.has_task:
                if not self._promising(cell):
                    continue
                windows, expected_s = full_windows(cell, costs, share_s)
            else:
                windows, expected_s = loader_only_windows(cell, costs, share_s)
            if not self.thorough and expected_s > self.left_s() and i > 0:
                continue
            self._try("full", cell, windows, max(3 * expected_s, 2 * share_s))

    def _run_finals(self) -> None:
        """Launch the most promising cells, then the best of them again, while there is time."""
        while self.left_s() > 0:
            chosen = next_finals(self._standings())
            nothing_yet = not any(s.launches for s in self._standings())
            for cell in chosen:
                windows, expected_s = self._final_windows(cell)
                if expected_s <= self.left_s():
                    self._try("full", cell, windows)
                    break
            else:
                if not (nothing_yet and chosen):
                    return
                # what does not fit is better tried than nothing: it may be faster than expected
                self._try("full", chosen[0], self._final_windows(chosen[0])[0])

    def _final_windows(self, cell: Cell) -> tuple[WindowPlan, float]:
        costs = self._costs(cell)
        done = sum(t.request.kind == "full" for t in self.trials)
        target_s = self.left_s() / max(1, _LAUNCHES_PLANNED - done)
        if not self.inspection.has_task:
            return loader_only_windows(cell, costs, target_s)
        longest_s = max(10.0, self.budget_s / 12)
        windows, expected_s = full_windows(cell, costs, target_s, longest_s=longest_s)
        if windows.min_steps < 3 or not windows.boundary:
            # fewer launches of the least size that says enough, rather than more that say nothing
            windows, expected_s = full_windows(cell, costs, self.left_s(), longest_s=longest_s)
        if not costs.step_s:
            # a step of unknown length: measure one, and let the deadline guard the rest
            window_s = min(10.0, max(0.5, (target_s - expected_s) / 2))
            windows = replace(windows, min_steps=1, window_s=window_s)
        return windows, expected_s

    def _standings(self) -> list[Standing]:
        """Each cell that can still be recommended: what is known of it and how often it ran."""
        predictions = self.predictions()
        standings = []
        for cell in self.cells:
            if not self._promising(cell):
                continue
            prediction = predictions.get(cell)
            order = [i for i, t in enumerate(self.trials) if self._is_full(t, cell)]
            standings.append(
                Standing(
                    cell=cell,
                    measured=objective(cell, self.trials, self.inspection),
                    predicted=prediction.objective if prediction else None,
                    launches=len(order),
                    last=order[-1] if order else -1,
                )
            )
        return standings

    @staticmethod
    def _is_full(trial: Trial, cell: Cell) -> bool:
        return trial.request.kind == "full" and trial.cell == cell

    # what is known

    def _promising(self, cell: Cell) -> bool:
        """No part of this cell has failed, and no full trial of it was cut without a result."""
        cut = any(self._is_full(t, cell) and not t.usable for t in self.trials)
        return not cut and failure_of(cell, self.trials) is None

    def _costs(self, cell: Cell) -> Costs:
        return costs_of(cell, self.trials, self.inspection, self.cores)

    def predictions(self) -> dict[Cell, Prediction]:
        """A prediction for each cell of which both ceilings are known and nothing has failed."""
        if not self.inspection.has_task:
            return {}
        found = {}
        for cell in self.cells:
            prediction = predict(cell, self.trials, self.inspection, self.cores)
            if prediction is not None and self._promising(cell):
                found[cell] = prediction
        return found

    def complete_rows(self, unknown: str) -> None:
        """A row for every cell that has none of its own yet."""
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
                reason = failure_of(cell, self.trials) or unknown
                record = not_run_record(cell, "skipped", reason)
            self._add(record, None)
