"""Words and formats of reports: times with intervals, shares, cells, flags, safe text."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Sequence

from ctrkit.core.cell import Cell, axes_of
from ctrkit.core.records import ONE_EPOCH, Recommendation
from ctrkit.core.units import format_count, format_duration, format_percent, format_significant

# The meaning of each flag of a record or recommendation; other flags are shown as they are.
FLAG_WORDS = {
    "provisional": "provisional: ctrkit measured too few launches, validation batches or "
    "checkpoints",
    "checkpoint not measured": "checkpoint not measured: no trial reached one, so the projection "
    "leaves it out, and the run takes longer; a longer --budget measures it",
    "metrics not measured": "metrics not measured: no trial reached the end of an epoch, so the "
    "projection has no time for metrics; a longer --budget measures it",
    "low confidence": "low confidence: the interval is wider than a quarter of the time",
    "few steps": "few steps: too few steps were measured for a narrow interval; a longer --budget "
    "measures more",
    "launches differ": "launches differ: launches of the same configuration took different times, "
    "or were too few to tell; a longer --budget makes more of them",
    "varies over the epoch": "varies over the epoch: steps take more or less time elsewhere in "
    "the epoch; the projection follows the places that were measured",
    "heavy tail": "heavy tail: a few steps, or stretches of them, took much longer than the "
    "others, and may do so again; the interval allows for more of them",
    "not steady": "not steady: steps were still getting faster or slower when the trial ended; the "
    "interval allows for either pace, and for more where only the begin of an epoch was seen",
    "slower and slower": "slower and slower: steps get slower all through the epoch",
    "faster and faster": "faster and faster: steps get faster all through the epoch",
    "drift": "drift: the machine changed its pace during the probe: the first configuration took "
    "more or less time when it ran again at the end, by more than launches differ; the interval "
    "allows for as much again, and has no upper end if it got slower by over 10 %",
    ONE_EPOCH: "one epoch only: the loader has no batch in a second epoch",
    "other epoch": "other epoch: it does not train on the same epoch as without workers",
    "host slept": "host slept: the host slept during the trial; its times cannot be relied on",
    "was stopped": "was stopped: a process of the trial was stopped for a while from outside",
    "tied": "tied: the measurement cannot tell the best cells apart",
}


def clean(text: str, limit: int = 400) -> str:
    """One line without characters that could control a terminal or reorder text; cut at `limit`.

    Text of workloads, paths and exceptions is never trusted: control, format (also right-to-left
    overrides), surrogate and private characters become visible escapes.
    """
    shown = []
    for character in " ".join(text.split()):
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co"):
            shown.append(f"\\x{ord(character):02x}")
        else:
            shown.append(character)
    line = "".join(shown)
    return line if len(line) <= limit else line[: limit - 1] + "…"


# Hebrew, Arabic and similar scripts, from the first such character to the last
_WIDE = 0.5  # as a share of a factor; more digits of one with a wider interval say nothing
_MANY = 3.0  # from this factor on, a percentage is hard to read
_RIGHT_TO_LEFT = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
    "(?:.*[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff])?"
)


def isolated(text: str, before: str = "\u2068", after: str = "\u2069") -> str:
    """The text with its right-to-left part between marks, so that it reorders nothing else.

    Without marks, numbers beside it, such as the next columns of a table, would be shown reversed.
    The default marks have no width; `clean` has escaped any such marks of the text itself.
    """
    if text.isascii():
        return text
    return _RIGHT_TO_LEFT.sub(lambda match: f"{before}{match[0]}{after}", text)


def range_words(low_s: float, high_s: float) -> str:
    """An interval in one unit, `25.1 .. 29.4 h`; both ends in full if they are far apart."""
    if low_s > 0 and high_s / low_s > 20:
        return f"{format_duration(low_s)} .. {format_duration(high_s)}"
    limits = ((1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (72 * 3600, 3600, "h"))
    factor, unit = next(((f, u) for limit, f, u in limits if high_s < limit), (86400, "d"))
    low, high = low_s / factor, high_s / factor
    most = 2 if high < 10 else 1
    width = max(high - low, 1e-9)
    decimals = min(most, max(0, 1 - math.floor(math.log10(width))))
    return f"{low:.{decimals}f} .. {high:.{decimals}f} {unit}"


def between_words(low_s: float | None, high_s: float | None) -> str:
    """An interval in brackets: ` (25.1 .. 29.4 h)`, ` (at least 75 s)`; empty without one."""
    if low_s is None:
        return ""
    return f" (at least {format_duration(low_s)})" if high_s is None else (
        f" ({range_words(low_s, high_s)})"
    )  # fmt: skip


def projection_words(value_s: float | None, low_s: float | None, high_s: float | None) -> str:
    """`1 d 3 h (25.1 .. 29.4 h)`, without the interval if there is none.

    Without an upper end: `3 min 05 s (at least 75 s)`.
    """
    between = "" if value_s is None else between_words(low_s, high_s)
    return format_duration(value_s) + between


def step_words(value_s: float | None, low_s: float | None, high_s: float | None) -> str:
    """`11.2 s ±0.3`: three digits, and the wider half of the interval in the same unit."""
    if value_s is None:
        return ""
    factor, unit = (1e-3, "ms") if value_s < 0.9995 else (1.0, "s")
    value = value_s / factor
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2
    words = f"{value:.{decimals}f} {unit}"
    if low_s is None or high_s is None:
        return words
    half = max(high_s - value_s, value_s - low_s) / factor
    least = 10.0**-decimals
    return f"{words} ±{half:.{decimals}f}" if half >= least / 2 else f"{words} ±<{least:g}"


def factor_writer(
    factor: float, low: float | None, high: float | None, *, decimals: int
) -> Callable[[float], str]:
    """How to write a factor and the ends of its interval: two digits if the interval is wide.

    `decimals`: how many it has if the interval is narrower.
    """
    if low is not None and high is not None and high - low > _WIDE * factor:
        return lambda number: format_significant(number, 2)
    return lambda number: f"{number:.{decimals}f}"


def percent(share: float | None) -> str:
    """A share as a percentage for a column; empty if unknown."""
    if share is None or math.isnan(share):
        return ""
    return format_percent(share, aligned=True)


def rate_words(rows_per_s: float | None) -> str:
    """Rows per second, three digits below 100."""
    if rows_per_s is None or math.isnan(rows_per_s):
        return ""
    return f"{rows_per_s:.3g}" if rows_per_s < 99.95 else format_count(rows_per_s)


def deviation_words(actual_s: float, projected_s: float) -> str:
    """The deviation from the projection: `+4.6 %`, `6.0x as long`; `-3.0 %` if faster."""
    if projected_s <= 0:
        return ""
    ratio = actual_s / projected_s
    return f"{ratio:.1f}x as long" if ratio >= _MANY else f"{(ratio - 1) * 100:+.1f} %"


def plural(count: int, noun: str) -> str:
    """`1 epoch`, `15 epochs`."""
    return f"{format_count(count)} {noun}" if count == 1 else f"{format_count(count)} {noun}s"


def cell_words(cell: Cell) -> str:
    """`cpu, batches loader, 2 workers (spawn, prefetch 2), 2 threads, batch 2,048`."""
    rows = axes_of(type(cell))
    parts = []
    for row in rows:
        value = getattr(cell, row.name)
        said = row.always_said or value != row.default
        if row.of_workers or row.name in cell.unheeded or not said:
            continue
        words = row.words(value) if row.words else axis_label(row.name, value)
        if row.name == "workers" and value:
            of_workers = [(one, getattr(cell, one.name)) for one in rows if one.of_workers]
            how = [one.words(v) for one, v in of_workers if one.words and v is not None]
            words += f" ({', '.join(filter(None, how))})"
        parts.append(words)
    return clean(", ".join(filter(None, parts)))


def epochs_projected(best: Recommendation, planned: int | None) -> int:
    """The number of epochs in the projected total: at most as many as the loader has."""
    return 1 if ONE_EPOCH in best.flags else planned or 0


def no_total_words(best: Recommendation) -> str:
    """Why a recommendation has no time for the whole run."""
    if best.projected_epoch_s is None:
        return "the length of an epoch is not known"
    return "how many epochs it has is not known; say it with --epochs N"


def axis_label(name: str, value: object) -> str:
    """A value of an axis without words of its own: `bf16`, `compile`, `no compile`, `depth 3`."""
    name = name.replace("_", " ")
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return clean(value, 20) if isinstance(value, str) else f"{name} {clean(str(value), 20)}"


def flag_words(flags: Sequence[str]) -> list[str]:
    """The meaning of each flag, once."""
    return list(dict.fromkeys(FLAG_WORDS.get(flag, clean(flag)) for flag in flags))


def sentence(text: str) -> str:
    """The text made safe, with a capital letter and a full stop; empty if it is empty."""
    line = clean(text)
    if not line:
        return ""
    return line[0].upper() + line[1:] + ("" if line[-1] in ".!?…" else ".")
