"""Chooses which trials to launch within the budget, and launches them one after the other.

First come the ceilings: the training step once per device, batch size and threads, and each loader
alone with a few numbers of workers. Replay combines them into a prediction for every cell. The most
promising cells are then really run, and the finalists again in turn (A B B A) until it is known
whether they differ. The winner is launched again, to be projected from these launches. The first
cell is launched last, to see whether the machine's pace has changed. Cells that take little memory
come first, and cells that would not fit are refused. Every cell gets a row. Nothing here starts a
process or reads a clock: both are passed in.

Start reading at `_Search.run`. The parts that it uses, in turn:

- `matrix`: which cells there are; `cell_order`: which of them come first.
- `windows`: how much a trial measures, so that it fits into the time left.
- `memory_needs`, `same_epoch`: which cells must not be tried, or cannot be compared.
- `same_failure`: whether all cells would fail in the same way, so that no more are tried.
- `predict`: how long a cell would take that was not run, by replay of its parts.
- `cell_results`, `candidates`: what the trials so far say about the cells that were run.
- `finalists`: which cell is really run next; `numerics`: which one only for its loss.

`state` keeps what was launched, and asks these again after each trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ctrkit.core.child_records import Inspection, Measurement
from ctrkit.core.config import Cell, WindowPlan
from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import InterruptedRunError
from ctrkit.core.records import TrialRecord
from ctrkit.probe.cell_order import anchors
from ctrkit.probe.cell_results import full_launches
from ctrkit.probe.finalists import MOST_LAUNCHES, TIE, next_finalists
from ctrkit.probe.fitting_batch import next_batch, tried_sizes
from ctrkit.probe.matrix import MatrixPlan
from ctrkit.probe.memory_needs import least_risky_first
from ctrkit.probe.numerics import variants_of
from ctrkit.probe.predict import Prediction, compute_trial, nearest_loader
from ctrkit.probe.same_failure import NOT_TRIED, SameFailure, only_failure
from ctrkit.probe.scripts.as_written import NO_LOADER
from ctrkit.probe.state import AllFailAlikeError, OnAnswer, OnRecord, SearchState
from ctrkit.probe.trials import Launch, Trial, compute_key, loader_key, not_run_record
from ctrkit.probe.windows import (
    USEFUL,
    Costs,
    compute_windows,
    full_cost_s,
    full_windows,
    loader_only_windows,
    loader_windows,
)

#: With fewer seconds there is no time for ceilings: the simplest cell is run at once.
_SMALL_BUDGET_S = 25.0
#: After a first whole launch (of a script), ceilings need room for so many more of its kind.
_LAUNCHES_WITH_CEILINGS = 6
_COMPUTE_SHARE = 0.25
_COMPUTE_MOST = 0.5
_LOADERS_LEAST, _LOADERS_MOST = 0.15, 0.35
_LAUNCHES_PLANNED = 6
#: Number of the winner's launches after it was chosen.
_CONFIRMING = 2


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """Everything that a search found out.

    Attributes:
        records: the rows of `trials.parquet`, in order.
        same_failure: why no cell can run, if the reason has nothing to do with any cell.
    """

    plan: MatrixPlan
    records: tuple[TrialRecord, ...]
    trials: tuple[Trial, ...]
    predictions: tuple[Prediction, ...]
    interrupted: bool = False
    same_failure: SameFailure | None = None

    def launches(self, cell: Cell) -> list[Measurement]:
        """Measurements of its full trials: the complete ones, else those of cut trials."""
        return full_launches(cell, self.trials)

    def full_trials(self, cell: Cell) -> list[Trial]:
        """Its full trials, whatever their result."""
        return [t for t in self.trials if t.request.kind == "full" and t.cell == cell]

    def compute(self, cell: Cell) -> Measurement | None:
        """The measurement of its training step alone."""
        trial = compute_trial(cell, self.trials)
        return trial.result.measurement if trial else None

    def loader(self, cell: Cell) -> Measurement | None:
        """The measurement of its loader alone, if exactly this loader was measured."""
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
    known: Sequence[Trial] = (),
    on_answer: OnAnswer | None = None,
) -> SearchResult:
    """Measure the matrix within the budget.

    Args:
        plan: the cells, and the refused ones.
        inspection: inspection of the workload.
        launch: runs one trial; its deadline is on `clock`, and infinite with `thorough`.
        clock: returns seconds, monotonic.
        budget_s: seconds for all launches together; only a possible hang may overrun it.
        thorough: really run every cell to the end, even beyond the budget.
        on_record: see `OnRecord`.
        cores: physical cores for one rank; its part of this machine's if left out.
        known: earlier trials, which count like those of the search.
        on_answer: called after each trial with the answer so far.
    """
    search = _Search(plan, inspection, launch, clock, budget_s, thorough, on_record)
    search.cores = cores or max(1, physical_cores() // plan.ranks)
    search.on_answer = on_answer
    for trial in known:
        search.add_trial(trial)
    interrupted, failure, left = False, None, ""
    try:
        search.run()
        failure = only_failure(search.trials, search.cells)
    except InterruptedRunError:
        interrupted, left = True, "interrupted"
    except AllFailAlikeError as error:
        failure, left = error.found, NOT_TRIED
    search.complete_rows(left)
    admitted = [cell for cell in search.cells if cell not in plan.cells]
    return SearchResult(
        plan=replace(plan, cells=(*plan.cells, *admitted)),
        records=tuple(search.flagged_records()),
        trials=tuple(search.trials),
        predictions=tuple(search.predictions().values()),
        interrupted=interrupted,
        same_failure=failure,
    )


class _Search(SearchState):
    """The stages of a search, one after the other."""

    def run(self) -> None:
        for cell, reason in self.plan.refused:
            self._add(not_run_record(cell, "refused", reason), None)
        if self.inspection.has_task:
            if self._ceilings_fit():
                self._measure_steps()
                self._find_fitting_batches()
                self._measure_loaders()
            if self.thorough:
                self._run_every_cell()
        else:
            self._run_every_cell()
        self._run_finalists()
        self._confirm()
        self._run_first_again()

    # the ceilings

    def _ceilings_fit(self) -> bool:
        """Whether there is time for ceilings and for whole launches after them.

        Without a loader there are no ceilings, since a loader's batches are what they replay and
        drain.
        """
        if all(cell.loader == NO_LOADER for cell in self.cells):
            return False
        if self.thorough:
            return True
        known = [t.cell for t in self.trials if t.request.kind == "full" and t.usable]
        least_s = _LAUNCHES_WITH_CEILINGS * self._least_s(known[0]) if known else 0.0
        return self.budget_s >= _SMALL_BUDGET_S and self.left_s() >= least_s

    def _measure_steps(self) -> None:
        """Measure the training step alone per device, batch size and threads.

        Small batches first.
        """
        groups: dict[object, Cell] = {}
        for cell in sorted(self.cells, key=lambda c: (c.batch_size, c.device == "cpu")):
            groups.setdefault(compute_key(cell), cell)
        for cell in groups.values():
            share_s = _COMPUTE_SHARE * self.budget_s / len(groups)
            most_s = _COMPUTE_MOST * self.budget_s / len(groups)
            if self.left_s() < self._costs(cell).launch_s and not self.thorough:
                return
            self._try("compute", cell, compute_windows(share_s), most_s)

    def _find_fitting_batches(self) -> None:
        """Find a batch that fits, if the run's batch does not fit into a device's memory."""
        for cell in {cell.device: cell for cell in self.cells}.values():
            if "batch_size" not in self.inspection.axes:
                return
            while tried := tried_sizes(cell.device, self.trials):
                size = next_batch(tried)
                smaller = replace(cell, batch_size=size or 1)
                if size is None or self.left_s() < self._costs(smaller).launch_s:
                    break
                trial = self._try("compute", smaller, compute_windows(0.0), self.left_s() / 2)
                if trial is None or trial.cell.batch_size not in tried_sizes(
                    cell.device, self.trials
                ):
                    break  # it ended for another reason, or was not tried

    def _measure_loaders(self) -> None:
        """Measure each loader alone, the simplest first, within its share of the budget.

        Without workers comes first: that is the time of one batch. If a cell without workers
        reaches the step's own ceiling, workers can gain nothing, and are predicted from that batch.
        """
        promising = [cell for cell in self.cells if self._promising(cell)]
        if self.thorough:
            waiting = list({loader_key(cell): cell for cell in reversed(promising)}.values())[::-1]
        else:
            waiting = anchors(promising, self.cores)
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
        """The time that the best cell's real runs do not need, within bounds."""
        useful_s = [
            full_cost_s(c, self._costs(c), USEFUL) for c in self.cells if self._promising(c)
        ]
        wanted = self.left_s() - min(useful_s, default=0.0)
        bounds = _LOADERS_LEAST * self.budget_s, _LOADERS_MOST * self.budget_s
        return max(0.0, min(max(wanted, bounds[0]), bounds[1], self.left_s()))

    def _cannot_gain(self, cell: Cell) -> bool:
        """Whether workers can gain nothing: without them, the cell is at its ceiling already."""
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
        """Run every cell once; without `thorough`, as long as the budget lasts, with a reserve."""
        reserve = 0.2 if len(self.cells) > 1 else 0.5
        for i, cell in enumerate(self.cells):
            costs = self._costs(cell)
            share_s = (self.left_s() - reserve * self.budget_s) / (len(self.cells) - i)
            if not self._promising(cell):
                continue
            if self.thorough:  # beyond the budget, a launch must still say enough
                share_s = max(share_s, self._least_s(cell))
            if self.inspection.has_task:
                windows, expected_s = full_windows(cell, costs, share_s)
            else:
                windows, expected_s = self._loader_only(cell, costs, share_s)
            if not self.thorough and expected_s > self.left_s() and i > 0:
                continue
            self._try("full", cell, windows, max(3 * expected_s, 2 * share_s))

    def _run_finalists(self) -> None:
        """Launch the most promising cells, then undecided ones again, while there is time.

        A cell is run again only if time remains to confirm the winner afterwards.
        """
        while self.left_s() > 0:
            standings = self._standings()
            launched = {s.cell for s in standings if s.launches}
            chosen = least_risky_first(
                next_finalists(standings), launched, self.trials, self.plan.limits
            )
            for cell in chosen:
                windows, expected_s = self._final_windows(cell)
                kept_s = self._least_s(cell) if cell in launched else 0.0
                if expected_s + kept_s <= self.left_s():
                    self._try("full", cell, windows)
                    self._run_variants(cell)
                    break
            else:
                if launched or not chosen:
                    return
                # trying a cell that does not fit is better than nothing: it may be faster than
                # expected
                self._try("full", chosen[0], self._final_windows(chosen[0])[0])

    def _run_variants(self, cell: Cell) -> None:
        """Run cells that differ from the first only in numerics once each, for their loss."""
        if sum(t.request.kind == "full" for t in self.trials) > 1:
            return
        for variant in variants_of(cell, self.cells):
            windows, expected_s = self._final_windows(variant)
            if self._promising(variant) and expected_s <= self.left_s():
                self._try("full", variant, windows)

    def _confirm(self) -> None:
        """Launch the winner again: the launches that made it win were lucky ones.

        If there was only one cell to choose from, all its launches count alike.
        """
        chosen_for: Cell | None = None
        while (winner := self._winner()) is not None:
            chosen_for = chosen_for or winner.cell
            selected = len({t.cell for t in self.trials if t.request.kind == "full"}) > 1
            own = [t for t in self.trials if self._is_full(t, winner.cell)]
            done = sum(t.request.confirms for t in own) if selected else len(own)
            enough = _CONFIRMING if selected else MOST_LAUNCHES
            windows, expected_s = self._final_windows(
                winner.cell, max(1, enough - done), anew=selected
            )
            # if confirming makes the winner lose, no further winner is confirmed
            if done >= enough or expected_s > self.left_s() or winner.cell != chosen_for:
                return
            if selected and windows.min_steps < USEFUL.min_steps:
                return  # too few steps to replace the earlier measurements
            self._try("full", winner.cell, windows, confirms=selected)

    def _run_first_again(self) -> None:
        """Run the first cell again at the end, to see whether the machine has changed."""
        full = [t.cell for t in self.trials if t.request.kind == "full" and t.usable]
        if not full or full[-1] == full[0] or not self._promising(full[0]):
            return
        windows, expected_s = self._final_windows(full[0], 1)
        if expected_s <= self.left_s():
            self._try("full", full[0], windows, as_first=True)

    def _loader_only(self, cell: Cell, costs: Costs, target_s: float) -> tuple[WindowPlan, float]:
        """Windows of a user's loader; a cell's first launch counts a promised length."""
        launched = any(self._is_full(t, cell) for t in self.trials)
        facts = [t.result.measurement.loader for t in self.trials if t.result.measurement]
        exact = any(f is not None and f.length_is_exact for f in facts)
        return loader_only_windows(cell, costs, target_s, counts=not launched and not exact)

    def _final_windows(
        self, cell: Cell, launches: int | None = None, *, anew: bool = False
    ) -> tuple[WindowPlan, float]:
        """Windows that leave time for so many `launches`, including this one.

        `anew`: for processes that are started anew, while others are forked.
        """
        costs = self._costs(cell)
        costs = replace(costs, launch_s=costs.start_s) if anew else costs
        if launches is None:
            done = sum(t.request.kind == "full" for t in self.trials)
            launches = max(_CONFIRMING, _LAUNCHES_PLANNED - done)
        target_s = self.left_s() / launches
        if not self.inspection.has_task:
            return self._loader_only(cell, costs, target_s)
        longest_s = max(10.0, self.budget_s / 12)
        windows, expected_s = full_windows(cell, costs, target_s, longest_s=longest_s)
        if windows.min_steps < 3 or not windows.boundary:
            # fewer launches that say enough are better than more that say nothing
            windows, expected_s = full_windows(cell, costs, self.left_s(), longest_s=longest_s)
        if not costs.step_s:
            # the step's length is unknown: measure one, and let the deadline limit the rest
            window_s = min(10.0, max(0.5, (target_s - expected_s) / 2))
            windows = replace(windows, min_steps=1, window_s=window_s)
        return windows, expected_s
