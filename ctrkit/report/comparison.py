"""Compares two probes or two real runs: which is faster, and how surely. Does no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ctrkit.core.config import Cell
from ctrkit.core.epochs import EpochRow
from ctrkit.core.records import TrialRecord
from ctrkit.measure.quantiles import CONFIDENCE, holm
from ctrkit.measure.ratio import LaunchTime, Ratio, ratio_of
from ctrkit.measure.samples import sample_of
from ctrkit.measure.statistics import mean_interval
from ctrkit.report.comparable import Change, cautions, changes, check_comparable
from ctrkit.report.contents import RunContents
from ctrkit.report.matrix_view import CellResult, cell_results, has_figures

FASTER, SLOWER, INDISTINGUISHABLE = "faster", "slower", "indistinguishable"
FAILS_NOW, WORKS_NOW = "fails now", "works now"
ONLY_IN_BASE, ONLY_IN_NEW = "only in base", "only in new"
_ENDED_BADLY = ("failed", "ended")

#: The probability outside one end of a ratio's 95 % interval.
_GATE_LEVEL = (1 - CONFIDENCE) / 2

Gate = Literal["regression", "inconclusive", "passed"]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A time in both runs: a step of a cell, or an epoch.

    Args:
        what: `cell`, `best` (the two recommended cells) or `epochs`.
        base_cell: its cell in the base run; None if it was not measured there.
        new_cell: the same for the new run.
        base_s: mean seconds in the base run; None if not measured.
        new_s: the same for the new run.
        base_count: number of launches or epochs behind it.
        new_count: the same for the new run.
        ratio: new over base; None if one of them was not measured.
        verdict: one of the words above.
        detail: an addition, such as the verdict of a failed trial.
        decides: whether the gate uses this row.
        is_regression: whether it shows that the new run is worse by more than the threshold, with
            the error rate of all rows together under control (Holm).
    """

    what: str
    base_cell: Cell | None = None
    new_cell: Cell | None = None
    base_s: float | None = None
    new_s: float | None = None
    base_count: int = 0
    new_count: int = 0
    ratio: Ratio | None = None
    verdict: str
    detail: str = ""
    decides: bool = False
    is_regression: bool = False


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of two runs; `threshold` is relative, 0.05 for 5 %."""

    base: RunContents
    new: RunContents
    threshold: float
    rows: tuple[Compared, ...]
    changes: tuple[Change, ...]
    cautions: tuple[str, ...]

    @property
    def deciding(self) -> tuple[Compared, ...]:
        """The rows that the gate uses."""
        return tuple(row for row in self.rows if row.decides)

    @property
    def regressions(self) -> tuple[Compared, ...]:
        """Rows that are surely slower than the threshold, and cells that fail only in the new."""
        return tuple(row for row in self.rows if row.is_regression)

    @property
    def compared(self) -> int:
        """The number of rows that could have shown a regression, for the error rate."""
        return sum(_counts(row) for row in self.rows)

    @property
    def gate(self) -> Gate:
        """`regression` if any row shows one.

        `passed` if all deciding intervals end in the threshold.
        """
        if self.regressions:
            return "regression"
        ratios = [row.ratio for row in self.deciding]
        if not ratios or any(r is None or r.high > 1 + self.threshold for r in ratios):
            return "inconclusive"
        return "passed"

    @property
    def verdict(self) -> str:
        """The worst verdict of the deciding rows: slower, then indistinguishable, then faster."""
        verdicts = [row.verdict for row in (*self.regressions, *self.deciding)]
        for verdict in (FAILS_NOW, SLOWER, INDISTINGUISHABLE, FASTER):
            if verdict in verdicts:
                return verdict
        return "not known"


def _with_regressions(rows: Sequence[Compared], threshold: float) -> list[Compared]:
    """Mark rows that are slower by more than the threshold, and cells that now fail.

    Many rows are compared at once, so each of them needs stronger evidence (Holm): by chance, the
    gate fails as rarely as with a single row.
    """
    family = {i: row.ratio for i, row in enumerate(rows) if row.ratio and _counts(row)}
    worse = holm([ratio.p_above(1 + threshold) for ratio in family.values()], _GATE_LEVEL)
    slower = {i for i, is_worse in zip(family, worse, strict=True) if is_worse}
    return [
        replace(row, is_regression=row.verdict == FAILS_NOW or i in slower)
        for i, row in enumerate(rows)
    ]


def _counts(row: Compared) -> bool:
    """Whether a row counts: another cell counts only if nothing else can be compared."""
    return row.verdict == FAILS_NOW or (
        row.ratio is not None and (row.what != "best" or row.decides)
    )


def compare(base: RunContents, new: RunContents, threshold: float) -> Comparison:
    """Compare two probes, or two real runs.

    Raises:
        UsageError: they are not comparable: other command, workload, data or phase.
    """
    check_comparable(base, new)
    rows = _probe_rows(base, new) if base.info.command == "probe" else [_epochs_row(base, new)]
    if _is_same_run(base, new):
        rows = [_without_spread(row) for row in rows]
    rows = _with_regressions(rows, threshold)
    return Comparison(
        base=base,
        new=new,
        threshold=threshold,
        rows=tuple(rows),
        changes=tuple(changes(base, new)),
        cautions=tuple(cautions(base, new)),
    )


def common_epochs(base: RunContents, new: RunContents) -> list[tuple[EpochRow, EpochRow]]:
    """The epochs that both runs finished completely, by number."""
    theirs = {row["epoch"]: row for row in _whole_epochs(new)}
    return [(row, theirs[row["epoch"]]) for row in _whole_epochs(base) if row["epoch"] in theirs]


# ---- probes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """A cell in one run: its launches with a measured step, and its result."""

    cell: Cell
    launches: list[LaunchTime]
    result: CellResult | None


def _probe_rows(base: RunContents, new: RunContents) -> list[Compared]:
    """A row per cell that was run in both, the base's recommended one first; then other cells."""
    theirs, ours = _sides(base.trials), _sides(new.trials)
    pairs = _pairs(theirs, ours)
    rows = [_cell_row(theirs[was], ours[now]) for was, now in pairs]
    best = (base.recommendation, new.recommendation)
    ids = tuple(one.cell.cell_id for one in best if one is not None)
    if len(ids) == 2 and ids not in pairs and ids[0] in theirs and ids[1] in ours:
        rows.append(_best_row(theirs[ids[0]], ours[ids[1]]))
    unpaired = (set(theirs) - {was for was, _ in pairs}, set(ours) - {now for _, now in pairs})
    lone = [_lone_row(theirs[i], ONLY_IN_BASE) for i in theirs if i in unpaired[0]]
    lone += [_lone_row(ours[i], ONLY_IN_NEW) for i in ours if i in unpaired[1]]
    known = [row for row in rows if row is not None]
    return _with_deciding(known, base) + [row for row in lone if row.base_count or row.new_count]


def _sides(trials: Sequence[TrialRecord]) -> dict[str, _Side]:
    """The results of each cell of a probe, by id, in the order of its matrix."""
    sides = {}
    for result in cell_results(trials):
        cell_id = result.record.cell_id
        launches = [
            _launch(record) for record in trials
            if record.cell_id == cell_id and has_figures(record) and (record.step_s or 0) > 0
        ]  # fmt: skip
        sides[cell_id] = _Side(result.record.cell, launches, result)
    return sides


def _launch(record: TrialRecord) -> LaunchTime:
    """Seconds per row, so that cells with different batch sizes can be compared."""
    rows, step_s, high_s = record.cell.batch_size, record.step_s or 0.0, record.step_s_high
    half_s = None if high_s is None else max(0.0, high_s - step_s)
    return LaunchTime(mean_s=step_s / rows, half_s=None if half_s is None else half_s / rows)


def _pairs(base: Mapping[str, _Side], new: Mapping[str, _Side]) -> list[tuple[str, str]]:
    """Pairs of equal cells; then of cells that differ only in threads, if unambiguous.

    The number of threads depends on a machine's cores, so another machine has other cells.
    """
    pairs = [(cell_id, cell_id) for cell_id in base if cell_id in new]
    rest_base, rest_new = (
        _by_other_axes({i: s for i, s in side.items() if i not in {a for a, _ in pairs}})
        for side in (base, new)
    )
    for key, ids in rest_base.items():
        matching = rest_new.get(key, [])
        if len(ids) == len(matching) == 1:
            pairs.append((ids[0], matching[0]))
    return pairs


def _by_other_axes(sides: Mapping[str, _Side]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for cell_id, side in sides.items():
        if side.launches:
            groups.setdefault(replace(side.cell, threads=1).cell_id, []).append(cell_id)
    return groups


def _cell_row(base: _Side, new: _Side) -> Compared | None:
    """The row of a cell; None if it was run in neither."""
    row = _row("cell", base, new)
    base_failed = base.result is not None and base.result.failed
    new_failed = new.result is not None and new.result.failed
    if base.launches and not base_failed and new_failed and new.result is not None:
        return replace(row, verdict=FAILS_NOW, detail=new.result.verdict)
    if base_failed and base.result is not None and new.launches and not new_failed:
        return replace(row, verdict=WORKS_NOW, detail=base.result.verdict)
    if row.ratio is not None:
        return row
    if base.launches or new.launches:
        return replace(row, verdict=ONLY_IN_BASE if base.launches else ONLY_IN_NEW)
    return None


def _best_row(base: _Side, new: _Side) -> Compared | None:
    """The row of both recommended cells, if both were run."""
    return _row("best", base, new) if base.launches and new.launches else None


def _row(what: str, base: _Side, new: _Side) -> Compared:
    ratio = ratio_of(base.launches, new.launches) if base.launches and new.launches else None
    return Compared(
        what=what,
        base_cell=base.cell,
        new_cell=new.cell,
        base_s=_mean_step_s(base),
        new_s=_mean_step_s(new),
        base_count=len(base.launches),
        new_count=len(new.launches),
        ratio=ratio,
        verdict=_verdict(ratio),
    )


def _lone_row(side: _Side, verdict: str) -> Compared:
    nothing = _Side(side.cell, [], None)
    pair = (side, nothing) if verdict == ONLY_IN_BASE else (nothing, side)
    return replace(_row("cell", *pair), verdict=verdict)


def _mean_step_s(side: _Side) -> float | None:
    if not side.launches:
        return None
    return sum(one.mean_s for one in side.launches) / len(side.launches) * side.cell.batch_size


def _with_deciding(rows: Sequence[Compared], base: RunContents) -> list[Compared]:
    """Mark the rows that the gate uses: the base's recommended cell, else the best two, or all."""
    recommended = base.recommendation.cell if base.recommendation else None

    def is_recommended(row: Compared) -> bool:
        return row.what == "cell" and row.base_cell == recommended and row.ratio is not None

    if any(is_recommended(row) for row in rows):
        marked = [replace(row, decides=is_recommended(row)) for row in rows]
    elif any(row.what == "best" for row in rows):
        marked = [replace(row, decides=row.what == "best") for row in rows]
    else:
        marked = [replace(row, decides=row.ratio is not None) for row in rows]
    return sorted(marked, key=lambda row: not row.decides)


# ---- real runs -----------------------------------------------------------------------------------


def _epochs_row(base: RunContents, new: RunContents) -> Compared:
    """The row of the epochs that both finished; a run counts as one launch."""
    common = common_epochs(base, new)
    times = [[row["wall_s"] or 0.0 for row in rows] for rows in zip(*common, strict=True)]
    ratio = ratio_of([_run_time(times[0])], [_run_time(times[1])]) if common else None
    row = Compared(
        what="epochs",
        base_cell=base.info.cell,
        new_cell=new.info.cell,
        base_s=sum(times[0]) / len(common) if common else None,
        new_s=sum(times[1]) / len(common) if common else None,
        base_count=len(common),
        new_count=len(common),
        ratio=ratio,
        verdict=_verdict(ratio),
        decides=True,
    )
    if base.info.status == "done" and new.info.status in _ENDED_BADLY:
        return replace(row, verdict=FAILS_NOW, detail=new.info.status)
    return row


def _whole_epochs(contents: RunContents) -> list[EpochRow]:
    return [row for row in contents.whole_epochs if row["wall_s"]]


def _run_time(epochs_s: Sequence[float]) -> LaunchTime:
    found = mean_interval([sample_of(epochs_s)])
    return LaunchTime(mean_s=found.mean, half_s=found.half)


# ---- both ----------------------------------------------------------------------------------------


def _verdict(ratio: Ratio | None) -> str:
    if ratio is None:
        return "not measured"
    return SLOWER if ratio.low > 1 else FASTER if ratio.high < 1 else INDISTINGUISHABLE


def _is_same_run(base: RunContents, new: RunContents) -> bool:
    """Whether both are the same run, or copies of it, so that nothing can differ by chance."""
    same = base.info.created == new.info.created and base.info.argv == new.info.argv
    return same and base.trials == new.trials and base.epochs == new.epochs


def _without_spread(row: Compared) -> Compared:
    if row.ratio is None or row.what == "best":
        return row
    return replace(row, ratio=Ratio(mean=1.0, low=1.0, high=1.0), verdict=INDISTINGUISHABLE)
