"""Suggests an option for a column of times whose form is not recognised."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from ctrkit.ctr.data.tables.time_forms import EARLIEST_S
from ctrkit.ctr.data.workspace import Workspace, literal

_DATES = (
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y_%m_%d", "%Y %m %d", "%Y%m%d",
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d_%m_%Y", "%d %m %Y",
    "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%y%m%d", "%d%m%y", "%m%d%y",
    "%d %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d %b %y", "%d. %b %Y", "%d. %B %Y", "%d %B %Y", "%d%b%Y",
    "%Y-%b-%d", "%Y %b %d", "%b %d %Y", "%B %d %Y", "%b %d, %Y", "%B %d, %Y",
    "%a %d %b %Y", "%a, %d %b %Y", "%A, %d %b %Y", "%A, %d %B %Y", "%A %d %B %Y", "%a %d/%m/%Y",
    "%A, %B %d, %Y", "%a %b %d %Y",
    "%Y%j", "%Y-%j", "%Y/%j", "%G-W%V-%u", "%GW%V%u",
)  # fmt: skip
#: these mean more than a day, so no time of day follows
_COARSE = ("%Y", "%Y-%m", "%Y/%m", "%m/%Y", "%m-%Y", "%m.%Y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y",
           "%Y-%b", "%G-W%V", "%GW%V", "%G%V")  # fmt: skip
_CLOCKS = (
    "", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %H.%M", " %H.%M.%S", " %H-%M-%S", " %H%M",
    " %H%M%S", " %Hh%M", " %H:%M:%S:%g", " %I:%M %p", " %I:%M:%S %p", " %I.%M.%S %p",
    " %I.%M.%S.%f %p", " %I:%M:%S.%f %p", " %I:%M%p", "_%H-%M-%S", "_%H:%M:%S", "_%H%M",
    ":%H:%M:%S",
    "T%H-%M-%S", "T%H:%M", "T%H%M", "-%H-%M-%S", "-%H:%M:%S", "%H%M%S%g", "%H%M%S", "%H%M",
    "%H", "T%H", "_%H",
    " - %H:%M", " - %H:%M:%S", " at %H:%M", " %H:%M:%S %Z", " %H:%M %Z", " %H:%M:%S %z",
)  # fmt: skip
_BEFORE = ("%H:%M ", "%H:%M:%S ", "%H:%M, ", "%H:%M:%S, ", "%I:%M %p ")
_UNITS_S = {"d": 86_400, "h": 3_600, "min": 60}
_SAMPLE_ROWS = 100
_LEAST_SHARE = 0.99
_MOST_HINTS = 2
#: options of a query: the time to plan one grows with the square of their number
_AT_ONCE = 50


def formats() -> Iterator[str]:
    """The formats to try, the likely ones first."""
    yield from _COARSE
    for date in _DATES:
        yield from (date + clock for clock in _CLOCKS)
        yield from (clock + date for clock in _BEFORE)


def fitting_options(space: Workspace, cells: str, latest_s: float) -> Sequence[str]:
    """The first options that give plausible times for (almost) all cells of a sample.

    Args:
        space: the database.
        cells: SQL after FROM, for the rows whose column `time_text` is a time.
        latest_s: later times are implausible.
    """
    space.run(
        "CREATE OR REPLACE TEMP TABLE hint_sample AS SELECT time_text FROM"
        f" (SELECT DISTINCT time_text FROM {cells}) ORDER BY hash(time_text) LIMIT {_SAMPLE_ROWS}"
    )
    number = "try_cast(time_text AS DOUBLE)"
    tried = {f"--time-unit {unit}": f"{number} * {s}" for unit, s in _UNITS_S.items()}
    tried |= {
        f"--time-format {shlex.quote(format)}": f"epoch(try_strptime(time_text, {literal(format)}))"
        for format in formats()
    }
    every = list(tried.items())
    fitting: dict[float, str] = {}  # options that give the same times count as one
    for begin in range(0, len(every), _AT_ONCE):
        some = dict(every[begin : begin + _AT_ONCE])
        for option, sum_s in zip(some, _sums_of_fitting(space, some, latest_s), strict=True):
            if sum_s is not None:
                fitting.setdefault(sum_s, option)
        if len(fitting) >= _MOST_HINTS:
            break
    options = list(fitting.values())
    first = options[0] if options else ""
    is_coarse = first in {f"--time-format {shlex.quote(format)}" for format in _COARSE}
    return options[: 1 if is_coarse else _MOST_HINTS]


def _sums_of_fitting(
    space: Workspace, tried: Mapping[str, str], latest_s: float
) -> list[float | None]:
    """For each option the sum of the sample's times, None where it does not fit."""
    columns = ", ".join(
        f"count(*) FILTER ({time_s} BETWEEN {EARLIEST_S} AND {latest_s!r}), sum({time_s})"
        for time_s in tried.values()
    )
    total, *found = space.rows(f"SELECT count(*), {columns} FROM hint_sample")[0]
    return [
        sum_s if count and count >= _LEAST_SHARE * total else None
        for count, sum_s in zip(found[::2], found[1::2], strict=True)
    ]
