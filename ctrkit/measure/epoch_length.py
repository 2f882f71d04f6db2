"""How long an epoch is: what `len()` promises, what was counted, whether they agree.

`len()` is a claim. A counted epoch overrides it, and so does a batch beyond it. If the epoch was
too long to count, the claim is compared with what the loader says about itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ctrkit.core.child_records import LoaderFacts, Measurement
from ctrkit.core.config import RunSizes
from ctrkit.core.records import Finding
from ctrkit.core.units import format_count

Basis = Literal["counted", "exact", "claimed", "rows", "beyond", "unknown"]
#: A counted and a claimed length agree within this share, or within a batch per worker.
_SAME = 0.01
#: A loader without a length that gives so many batches is taken for endless.
_ENDLESS = 1000


@dataclass(frozen=True, kw_only=True)
class EpochLength:
    """What is known about the length of an epoch.

    Args:
        batches: the number to project from; None if unknown.
        basis: where it comes from. `counted`: an epoch ran to its end; `exact`: the loader draws
            exactly so many; `claimed`: unchecked; `rows`: the claim counts rows; `beyond`: the
            loader went beyond its claim; `unknown`: there is no claim.
        claimed: what `len()`, or the workload, says.
        seen: most batches that any launch took of one epoch.
        rows: rows of a counted epoch.
        rows_a_batch: rows per batch of those taken.
        facts: what the loader says about itself.
        told: what the workload says.
    """

    batches: int | None
    basis: Basis
    claimed: int | None = None
    told: int | None = None
    seen: int = 0
    rows: int | None = None
    rows_a_batch: float | None = None
    facts: LoaderFacts | None = None

    @property
    def is_sure(self) -> bool:
        """Whether it was counted, or follows from the indices to draw."""
        return self.basis in ("counted", "exact")


def epoch_length(measurements: Sequence[Measurement], claimed: int | None = None) -> EpochLength:
    """The length of an epoch from the launches of one cell.

    Args:
        measurements: launches of one cell, or of cells with the same epoch.
        claimed: the workload's claim, if the launches claim nothing themselves.
    """
    whole = [m for m in measurements if m.epoch_complete and m.epoch_batches > 0]
    said = [c for c in map(claim_of, measurements) if c is not None]
    facts = next((m.loader for m in measurements if m.loader is not None), None)
    most = max(measurements, key=lambda m: m.epoch_batches, default=None)
    known = EpochLength(
        batches=None,
        basis="unknown",
        claimed=said[0] if said else claimed,
        told=next((m.sizes.train_batches for m in measurements if m.sizes is not None), claimed),
        seen=most.epoch_batches if most else 0,
        rows_a_batch=most.epoch_rows / most.epoch_batches if most and most.epoch_rows else None,
        facts=facts,
    )
    if whole:
        counts = sorted(m.epoch_batches for m in whole)
        middle = counts[len(counts) // 2]
        rows = next((m.epoch_rows for m in whole if m.epoch_batches == middle), 0)
        return replace(known, batches=middle, basis="counted", rows=rows or None)
    if known.claimed is None:
        return known
    if known.seen > known.claimed:
        return replace(known, basis="beyond")
    if facts is not None and facts.length_is_exact:
        return replace(known, batches=known.claimed, basis="exact")
    if in_rows := _batches_of_rows(known):
        return replace(known, batches=in_rows, basis="rows")
    return replace(known, batches=known.claimed, basis="claimed")


def length_in(
    measurements: Sequence[Measurement],
    elsewhere: Sequence[Measurement] = (),
    claimed: int | None = None,
) -> EpochLength:
    """The length of an epoch in a cell; if not counted there, as in another cell.

    Args:
        measurements: launches of the cell.
        elsewhere: launches of a cell with the same epoch.
        claimed: the workload's claim.
    """
    own, other = epoch_length(measurements, claimed), epoch_length(elsewhere)
    if own.is_sure or not other.is_sure or own.seen > (other.batches or 0):
        return own
    return replace(other, seen=max(own.seen, other.seen))


def claim_of(measurement: Measurement) -> int | None:
    """The batches of an epoch that a launch's loader claims, or else its workload."""
    if measurement.loader is not None and measurement.loader.claimed_batches is not None:
        return measurement.loader.claimed_batches
    return measurement.sizes.train_batches if measurement.sizes is not None else None


def has_one_epoch(measurements: Sequence[Measurement]) -> bool:
    """Whether a second epoch has no batch: a generator, or a file read to its end."""
    ended = [m.second_batches for m in measurements if m.second_batches is not None]
    return bool(ended) and not any(ended)


def _batches_of_rows(known: EpochLength) -> int | None:
    """Batches of an epoch if the claim seems to count rows; None if it does not.

    An iterable data set that makes its own batches promises as many batches as its own `len()`; but
    that may count rows, while batches of several rows come.
    """
    facts, rows = known.facts, known.rows_a_batch
    if facts is None or not facts.iterable or facts.batch_size is not None:
        return None
    if rows is None or rows < 2 or known.claimed is None or facts.dataset_rows != known.claimed:
        return None
    return max(1, math.ceil(known.claimed / rows))


def with_length(sizes: RunSizes | None, length: EpochLength) -> RunSizes | None:
    """The run's sizes with what is known about its epochs."""
    if sizes is None:
        if length.batches is None:
            return None
        sizes = RunSizes()
    if length.basis == "counted":
        return replace(
            sizes, train_batches=length.batches, train_rows=length.rows or sizes.train_rows
        )
    told = sizes.train_batches
    if told is None or length.basis not in ("exact", "claimed"):
        return replace(sizes, train_batches=length.batches)
    # a run may take less than an epoch, but never more than the loader draws
    known = length.batches if length.basis == "exact" else None
    return replace(sizes, train_batches=min(told, known or told))


def length_finding(length: EpochLength) -> Finding | None:
    """A finding on an epoch's length; None if there is nothing to say."""
    claimed, seen = length.claimed, length.seen
    if length.basis == "counted":
        return _counted(length)
    if length.basis == "beyond":
        return _finding(
            f"len() promises {_batches(claimed)}, but the loader continued beyond that: "
            f"{_batches(seen)} came, with no end in sight. It seems endless, so ctrkit cannot "
            f"project an epoch; configurations are ranked by rows per second",
            "high",
        )
    if length.basis == "unknown":
        is_endless = "seems to be endless" if seen >= _ENDLESS else (
            "may be endless; a longer --budget may reach its end"
        )  # fmt: skip
        return _finding(
            f"the loader has no length and did not end within {_batches(seen)}: it {is_endless}; "
            "nothing can be projected, and configurations are ranked by rows per second",
            "high",
        )
    if length.basis == "rows":
        return _finding(
            f"len() promises {_batches(claimed)}, but the batches have "
            f"{format_count(round(length.rows_a_batch or 0))} rows and the data set's own len() is "
            f"{format_count(claimed or 0)}, too: it seems to count rows. ctrkit projects "
            f"{_batches(length.batches)}, unchecked, since no epoch reached its end",
            "low",
        )
    if length.basis == "exact" and (length.told or 0) > (length.batches or 0):
        return _finding(
            f"the workload says that an epoch has {_batches(length.told)}, and its DataLoader asks "
            f"for {_batches(length.batches)}: ctrkit projects what it asks for",
            "high",
        )
    if length.basis == "claimed":
        return _finding(
            f"len() promises {_batches(claimed)}: that is unchecked, since no epoch was seen to "
            f"its end (at most {_batches(seen)} were taken); a longer --budget may count one",
            "medium",
        )
    return None


def _counted(length: EpochLength) -> Finding | None:
    claimed, counted = length.claimed, length.batches or 0
    if claimed is None or claimed == counted:
        return None
    workers = length.facts.workers or 0 if length.facts else 0
    if abs(claimed - counted) <= max(workers, _SAME * claimed):
        return None
    rows = f" ({format_count(length.rows)} rows)" if length.rows else ""
    return _finding(
        f"an epoch has {_batches(counted)}{rows}, counted to its end, and len() promises "
        f"{_batches(claimed)}: {_reason(length)}; the projection uses what was counted",
        "high",
    )


def _reason(length: EpochLength) -> str:
    """The likely reason why the count differs from the claim; guesses are marked as such."""
    facts, claimed, counted = length.facts, length.claimed or 0, length.batches or 0
    rows, a_batch = length.rows, length.rows_a_batch or 0.0
    if rows and a_batch > 1 and abs(rows - claimed) <= _SAME * claimed:
        return "len() counts rows"
    workers = facts.workers or 0 if facts is not None else 0
    if facts is not None and 0 < claimed - counted <= facts.failed_batches:
        return (
            f"{_batches(facts.failed_batches)} raised an error that the script caught, so that it "
            "trained without their rows"
        )
    if facts is not None and facts.iterable and workers > 1:
        if abs(counted - workers * claimed) <= max(workers, _SAME * counted):
            return f"each of the {workers} workers reads the whole data set"
        return "the data set's len() does not know how the workers share the rows out"
    if facts is not None and facts.iterable:
        return "the data set's len() does not say how many rows come"
    if facts is not None and not facts.length_is_exact:
        return "the len() of its sampler or of the loader's class is wrong"
    if facts is not None and counted < claimed and facts.left_early:
        return (
            "the loop leaves the loader before its end, by a break, a zip with a shorter loader or "
            "a limit on its batches"
        )
    if facts is not None and counted < claimed:
        return (
            "its sampler asks for that many, so a StopIteration inside the data set or the collate "
            "function ends each epoch early and loses the rows behind it: raise another error there"
        )
    return "its len() is wrong"


def _batches(count: int | None) -> str:
    count = count or 0
    return f"{format_count(count)} batch" if count == 1 else f"{format_count(count)} batches"


def _finding(text: str, confidence: str) -> Finding:
    return Finding(stage="epoch", share=None, worth_x=None, text=text, confidence=confidence)
