"""Labels: which texts of a column mark a positive row, and which a negative one."""

from __future__ import annotations

import csv
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import normalize

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count, format_value, printable
from ctrkit.ctr.data.workspace import literal

POSITIVE_WORDS = ("1", "true", "t", "yes", "y", "on")
NEGATIVE_WORDS = ("0", "false", "f", "no", "n", "off")
#: of the texts for events, those that a model of clicks or purchases should predict
_POSITIVE_EVENTS: tuple[str, ...] = (
    "click",
    "clicked",
    "clk",
    "buy",
    "bought",
    "purchase",
    "purchased",
    "order",
)
_POSITIVE_EVENTS += ("conversion", "converted", "install", "like", "liked", "positive", "pos", "+")
#: share of known labels; with a smaller share the column is something else
LEAST_KNOWN_SHARE = 0.8
#: number of distinct texts to look at, the commonest first
MOST_VALUES = 1000
_SHOWN = 5


@dataclass(frozen=True)
class LabelRule:
    """What makes a row positive.

    Attributes:
        sql: SQL for 1, 0, or NULL if the text column `label_value` is no label.
        words: the rule in words, such as `rating >= 4`.
        expected: what a cell should be, for the count of those that are not.
    """

    sql: str
    words: str
    expected: str


def choose_rule(
    where: str,
    column: str,
    values: Sequence[tuple[str, int]],
    *,
    threshold: float | None = None,
    positive: Sequence[str] | None = None,
) -> LabelRule:
    """Choose the rule for a column.

    Args:
        where: the file, for messages.
        column: its name.
        values: distinct non-missing texts with their row counts, the commonest first.
        threshold: a number of at least this is positive.
        positive: texts that are positive; all others are negative.

    Raises:
        UsageError: no rule fits the values; the message shows some.
    """
    cell = "label_value"
    number = f"try_cast({cell} AS DOUBLE)"
    if positive is not None:
        there = {text for text, _ in values}
        meant = [text if text in there else _as_written(text) for text in positive]
        absent = next((text for text in meant if text not in there), None)
        if absent is not None and 0 < len(values) < MOST_VALUES:
            whole = ",".join(positive)
            with_comma = next((text for text in there if "," in text and text in whole), None)
            raise UsageError(
                f"{where}: column {format_value(column)} has no value {format_value(absent)}, which"
                f" --positive names; it holds {_shown(values)}"
                + (f"; put a value that has a comma in quotes: {_option(with_comma)}")
                * (with_comma is not None)
            )
        texts = ", ".join(literal(text) for text in meant)
        words = f"{column} is {' or '.join(positive)}"
        return LabelRule(f"({cell} IN ({texts}))::INTEGER", words, "there")
    if threshold is not None:
        rule = f"CASE WHEN NOT isnan({number}) THEN ({number} >= {threshold!r})::INTEGER END"
        return LabelRule(rule, f"{column} >= {threshold:g}", "a number")
    _check_known(where, column, values)
    ones, zeros = (
        f"lower({cell}) IN ({', '.join(literal(word) for word in words)})"
        for words in (POSITIVE_WORDS, NEGATIVE_WORDS)
    )
    sql = f"CASE WHEN {ones} OR {number} = 1 THEN 1 WHEN {zeros} OR {number} = 0 THEN 0 END"
    return LabelRule(sql, "label 1", "0 or 1")


def _check_known(where: str, column: str, values: Sequence[tuple[str, int]]) -> None:
    """Check that a column holds zeros and ones, or words for them, except for a few others."""
    unknown = [(text, count) for text, count in values if not _is_known(text)]
    known = [pair for pair in values if pair not in unknown]
    numbers = [text for text, _ in unknown if _number(text) is not None]
    share = sum(count for _, count in unknown) / max(1, sum(count for _, count in values))
    if numbers:
        advice = (
            "say with --label-threshold from which number on a row is positive, or with --positive"
            " which values are"
        )
    elif share > 1 - LEAST_KNOWN_SHARE:
        advice = f"say which are positive: {_positive_option(unknown)}"
    else:
        return
    raise UsageError(
        f"{where}: column {format_value(column)} holds {_shown([*unknown, *known])}, but a label is"
        f" 0 or 1, true or false, yes or no, on or off; {advice}"
    )


def _is_known(text: str) -> bool:
    return text.lower() in POSITIVE_WORDS + NEGATIVE_WORDS or _number(text) in (0, 1)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number else None


def _as_written(text: str) -> str:
    """The user's value in the column's form: `2.0` is `2`, accents in one form."""
    return normalize("NFC", re.sub(r"^\+?(-?\d+)(\.0*)?$", r"\1", text.strip()))


def _positive_option(unknown: Sequence[tuple[str, int]]) -> str:
    """The option to paste if a single value is surely positive, else its form."""
    events = [text for text, _ in unknown if text.lower() in _POSITIVE_EVENTS]
    if len(events) == 1:
        return _option(events[0])
    return "--positive VALUE,VALUE,..."


def _option(text: str | None) -> str:
    """`--positive` with a value, quoted for the list and for the shell."""
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow([printable(text or "")])
    return f"--positive {shlex.quote(written.getvalue())}"


def _shown(values: Sequence[tuple[str, int]]) -> str:
    """`'pv' (300 rows), 'buy' (20 rows) and 2 other values`."""
    shown = ", ".join(
        f"{format_value(text)} ({format_count(count)} row{'s' * (count > 1)})"
        for text, count in values[:_SHOWN]
    )
    more = len(values) - _SHOWN
    return shown + (f" and {format_count(more)} other values" if more > 0 else "")
