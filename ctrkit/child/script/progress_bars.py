"""Reads tqdm's progress bars, a second witness for the length of a script's run.

It imports nothing: a script without tqdm has no bars. A bar's total may count one epoch's batches,
the epochs, or all steps of the run; only the length of an epoch tells which. So a bar confirms what
was read from the source, contradicts it, or fills a gap.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ctrkit.child.script.length import Length


class Bar(NamedTuple):
    """A visible bar: its total, and the items done."""

    total: int
    done: int


def bars_shown() -> list[Bar]:
    """The visible bars of this process with a total."""
    module = sys.modules.get("tqdm.std")
    instances = getattr(getattr(module, "tqdm", None), "_instances", None)
    found = []
    for bar in list(instances or ()):
        total, done = getattr(bar, "total", None), getattr(bar, "n", 0)
        if isinstance(total, (int, float)) and total > 0 and total == int(total):
            found.append(Bar(int(total), int(done)))
    return found


def compared_with_bars(
    read: Length, bars: Sequence[Bar], length: int | None, group: int
) -> tuple[Length, str]:
    """The length of the run including what the bars show, and a note if they contradict it.

    Args:
        read: the length from the source or a framework.
        bars: the bars visible during an early step.
        length: batches of an epoch, if known.
        group: batches per optimizer step.
    """
    if length is None or length < 1:
        return read, ""
    steps = math.ceil(length / group)
    outer = [bar for bar in bars if bar.total not in (length, steps)]
    whole = [one for one in (_of_the_run(bar, length, steps) for bar in outer) if one is not None]
    if read.epochs is None and read.steps is None:
        return _filled(whole, outer, bars, length, steps), ""
    if read.epochs is None:
        return read, ""
    if any(read.epochs in (bar.total, epochs) for bar, epochs in whole) or any(
        bar.total in (read.epochs, read.steps) for bar in outer
    ):
        return read._replace(told_by=f"{read.told_by}; a progress bar says so, too"), ""
    if not whole or read.epochs == 1:
        return read, ""
    bar, epochs = whole[0]
    note = (
        f"ctrkit is not sure how many epochs the run has: {read.told_by} says {read.epochs}, a "
        f"progress "
        f"bar to {bar.total} says {epochs}; --epochs N settles it"
    )
    return read, note


def _of_the_run(bar: Bar, length: int, steps: int) -> tuple[Bar, int] | None:
    """The bar and its number of epochs, if it counts the batches or steps of all of them."""
    for unit in (length, steps):
        if unit > 1 and bar.total > unit and bar.total % unit == 0:
            return bar, bar.total // unit
    return None


def _filled(
    whole: Sequence[tuple[Bar, int]],
    outer: Sequence[Bar],
    bars: Sequence[Bar],
    length: int,
    steps: int,
) -> Length:
    """The length from bars alone: one over all steps, else one around the bar of an epoch."""
    if len(whole) == 1:
        bar, epochs = whole[0]
        return Length(epochs=epochs, told_by=f"a progress bar to {bar.total}", at_most=True)
    inner = any(bar.total in (length, steps) for bar in bars)
    if inner and len(outer) == 1 and not whole and outer[0].done == 0:
        total = outer[0].total
        return Length(epochs=total, told_by=f"a progress bar to {total}", at_most=True)
    return Length()
