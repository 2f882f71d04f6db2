"""Checks that all cells train on the same epoch: batches, rows and a sample of their contents.

An iterable data set that does not divide itself among workers yields each row once per worker; one
that divides itself wrongly loses rows. More workers then look faster but are not. Each cell is
compared with one without workers, or with the fewest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell
from ctrkit.core.records import Finding
from ctrkit.core.units import format_count, format_percent
from ctrkit.measure.epoch_length import EpochLength, epoch_length
from ctrkit.probe.trials import Trial

OTHER_EPOCH = "other epoch"
#: A smaller difference of counts may come from a data set that filters rows at random.
_SAME = 0.01
_MOST_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class OtherEpoch:
    """A cell with another epoch than the cell it was compared with; `text` says how."""

    cell: Cell
    text: str
    confidence: str = "high"


def other_epochs(trials: Sequence[Trial]) -> dict[Cell, OtherEpoch]:
    """The cells that train on another epoch than the plainest cell of their batch size."""
    launches: dict[Cell, list[Measurement]] = {}
    for trial in trials:
        measured = trial.result.measurement
        if trial.request.kind != "compute" and trial.usable and measured is not None:
            launches.setdefault(trial.cell, []).append(measured)
    found = {}
    for cell, own in launches.items():
        plain = _plainest(cell, list(launches))
        if plain is None:
            continue
        other = _compared(cell, own, plain, launches[plain])
        if other is not None:
            found[cell] = other
    return found


def has_other_epoch(cell: Cell, others: Iterable[Cell]) -> bool:
    """Whether a cell is one of these, or has the same loader with as many workers as one."""
    return any(
        (cell.loader, cell.workers, cell.batch_size, cell.nproc)
        == (other.loader, other.workers, other.batch_size, other.nproc)
        for other in others
    )


def launches_of_the_same_epoch(cell: Cell, trials: Sequence[Trial]) -> list[Measurement]:
    """Launches of other cells with its batch size that are not known to have another epoch.

    The plainest cell's come first.
    """
    others = other_epochs(trials)
    if has_other_epoch(cell, others):
        return []
    like = [
        t
        for t in trials
        if t.request.kind != "compute" and t.usable and t.cell != cell and t.cell not in others
        and t.cell.batch_size == cell.batch_size and t.result.measurement is not None
    ]  # fmt: skip
    like.sort(key=lambda t: (t.cell.workers, t.cell.loader != cell.loader))
    return [t.result.measurement for t in like if t.result.measurement is not None]


def _plainest(cell: Cell, others: Sequence[Cell]) -> Cell | None:
    """The cell to compare this one with: fewer workers, and if possible the same loader."""
    like = [c for c in others if c.batch_size == cell.batch_size and c.workers < cell.workers]
    return min(like, key=lambda c: (c.workers, c.loader != cell.loader), default=None)


def _compared(
    cell: Cell, own: Sequence[Measurement], plain: Cell, theirs: Sequence[Measurement]
) -> OtherEpoch | None:
    ours, others = epoch_length(own), epoch_length(theirs)
    if others.basis in ("counted", "exact") and others.batches:
        if ours.basis == "counted":
            return _counts(cell, ours, plain, others)
        if ours.seen > others.batches * (1 + _SAME) + cell.workers:
            text = (
                f"{_with(cell)} an epoch goes on beyond the {_batches(others)} that it has "
                f"{_with(plain)}: {format_count(ours.seen)} came without an end"
            )
            return OtherEpoch(cell=cell, text=text)
    if cell.workers > 1 and _repeats(own) and not _repeats(theirs):
        first, second = _repeated(own[0].batch_hashes) or (1, 2)
        text = (
            f"{_with(cell)} batches {first} and {second} of an epoch are the same, and "
            f"{_with(plain)} they are not: every worker reads the same rows"
        )
        return OtherEpoch(cell=cell, text=text, confidence="medium")
    return None


def _counts(cell: Cell, ours: EpochLength, plain: Cell, others: EpochLength) -> OtherEpoch | None:
    """Compare two counted epochs: by rows if known, else by batches."""
    rows, known = ours.rows, others.rows or _exact_rows(others)
    if rows is not None and known is not None:
        left_out = _left_out(cell, ours) + _left_out(plain, others)
        ratio, same = rows / known, abs(rows - known) <= max(left_out, _SAME * known)
    else:
        have, batches = ours.batches or 0, others.batches or 1
        ratio = have / batches
        same = abs(have - batches) <= max(cell.workers, _SAME * batches)
    if same:
        return None
    text = (
        f"{_with(cell)} an epoch has {_batches(ours)}, but it has {_batches(others)} "
        f"{_with(plain)}: {_reason(ratio, cell.workers)}"
    )
    return OtherEpoch(cell=cell, text=text)


def _exact_rows(length: EpochLength) -> int | None:
    """Rows of an epoch that was not counted, if its length is exact and nothing is dropped."""
    facts = length.facts
    if length.basis != "exact" or facts is None or facts.drop_last:
        return None
    return facts.dataset_rows


def _left_out(cell: Cell, length: EpochLength) -> int:
    """The most rows that `drop_last` drops: less than a batch, per worker if each has its own."""
    facts = length.facts
    if facts is None or not facts.drop_last:
        return 0
    return (facts.batch_size or cell.batch_size) * max(1, cell.workers)


def _reason(ratio: float, workers: int) -> str:
    """The likely reason for this ratio of rows."""
    if workers > 1 and abs(ratio - workers) <= _SAME * ratio:
        return "every worker reads the whole data set, so each row comes once from each"
    if ratio > 1:
        return "rows come more than once"
    if workers > 1 and abs(ratio * workers - 1) <= _SAME:
        return "only one worker's rows come, and those of the others are lost"
    return f"{format_percent(1 - ratio)} of the rows are lost"


def _repeats(launches: Sequence[Measurement]) -> bool:
    return any(_repeated(m.batch_hashes) is not None for m in launches)


def _repeated(hashes: Sequence[str]) -> tuple[int, int] | None:
    """The numbers of the first two equal batches; None if there are none."""
    seen: dict[str, int] = {}
    for number, text in enumerate(hashes, start=1):
        if text and text in seen:
            return seen[text], number
        seen.setdefault(text, number)
    return None


def _with(cell: Cell) -> str:
    if not cell.workers:
        return "without workers"
    return "with 1 worker" if cell.workers == 1 else f"with {cell.workers} workers"


def _batches(length: EpochLength) -> str:
    words = f"{format_count(length.batches)} batches"
    rows = length.rows or _exact_rows(length)
    return f"{words} ({format_count(rows)} rows)" if rows else words


def other_epochs_finding(found: Sequence[OtherEpoch], all_of_them: bool) -> Finding | None:
    """A finding on how cells' epochs differ; None if they do not."""
    if not found:
        return None
    texts = list(dict.fromkeys(other.text for other in found))
    shown = "; ".join(texts[:_MOST_SHOWN])
    if len(texts) > _MOST_SHOWN:
        shown += f"; and {len(texts) - _MOST_SHOWN} more"
    advice = "let the data set share its rows out by torch.utils.data.get_worker_info()"
    end = (
        "no other configuration could be measured"
        if all_of_them
        else "such a configuration is not recommended"
    )
    confidence = "high" if any(o.confidence == "high" for o in found) else "medium"
    text = f"not all configurations train on the same epoch: {shown}; {end}; {advice}"
    return Finding(stage="epoch", share=None, worth_x=None, text=text, confidence=confidence)


def other_content_finding(cell: Cell, trials: Sequence[Trial]) -> Finding | None:
    """A finding that the chosen cell's first batches differ in content from the plainest cell's.

    Reported only if each cell gives the same batches in every launch; otherwise they are shuffled.
    """
    hashes: dict[Cell, list[list[str]]] = {}
    for trial in trials:
        measured = trial.result.measurement
        if trial.request.kind != "compute" and trial.usable and measured is not None:
            hashes.setdefault(trial.cell, []).append(measured.batch_hashes)
    plain = _plainest(cell, list(hashes))
    if plain is None or cell not in hashes:
        return None
    ours, theirs = _steady(hashes[cell]), _steady(hashes[plain])
    if not ours or not theirs or ours == theirs:
        return None
    if _first_launches(hashes[cell]) < 2 or _first_launches(hashes[plain]) < 2:
        return None
    text = (
        f"the first batch {_with(cell)} differs from the one {_with(plain)}, in every "
        "launch: other content (rows shared out by worker, or changes drawn from a worker's own "
        "seed), which is no error by itself; whether an epoch holds the same rows was compared by "
        "their number only"
    )
    return Finding(stage="epoch", share=None, worth_x=None, text=text, confidence="medium")


def _steady(launches: Sequence[Sequence[str]]) -> str:
    """The hash of the first batch, if it is the same in all launches."""
    first = {hashes[0] for hashes in launches if hashes}
    return first.pop() if len(first) == 1 else ""


def _first_launches(launches: Sequence[Sequence[str]]) -> int:
    return sum(bool(hashes) for hashes in launches)
