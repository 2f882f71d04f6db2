"""Converts durations, sizes, counts and signals to text that people read, and back."""

from __future__ import annotations

import math
import re
import signal
from datetime import UTC, datetime

from ctrkit.core.errors import UsageError

_SECONDS_PER = {"": 1.0}
_SECONDS_PER |= dict.fromkeys(("us", "\u00b5s", "\u03bcs", "microsecond", "microseconds"), 1e-6)
_SECONDS_PER |= dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3)
_SECONDS_PER |= dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0)
_SECONDS_PER |= dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0)
_SECONDS_PER |= dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0)
_SECONDS_PER |= dict.fromkeys(("d", "day", "days"), 86400.0)
_BYTES_PER = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
_BYTES_PER |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4, "pb": 1000**5}
_NUMBER = r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER_AND_UNIT = re.compile(rf"\s*{_NUMBER}\s*([^\W\d_]*)\s*", re.ASCII | re.IGNORECASE)
_PART = re.compile(rf"\s*{_NUMBER}\s*([a-z\u00b5\u03bc]*)", re.IGNORECASE)
_MOST_BYTES = 10**18
_LONGEST_S = 1e6 * 86400.0  # nobody waits longer than this


def parse_duration_s(text: str) -> float:
    """Seconds of a duration: `120s`, `10m`, `1.5h`, `1h30m`, `1 h 30 min`, plain `90`.

    It accepts everything that `format_duration` writes. Units go from the largest to the smallest,
    each once; only a single number may omit its unit, and means seconds.

    Raises:
        UsageError: the text is no positive duration.
    """
    seconds = _duration_s(text)
    if seconds is None or not 0 < seconds <= _LONGEST_S:
        raise UsageError(
            f"{format_value(text)} is not a duration; write for example 90, 120s, 10m, 1.5h or "
            "1h30m"
        )
    return seconds


def _duration_s(text: str) -> float | None:
    total_s, place, smallest_s = 0.0, 0, float("inf")
    text = text.rstrip()
    while place < len(text) or not place:
        part = _PART.match(text, place)
        if part is None:
            return None
        unit_s = _SECONDS_PER.get(part[2].lower())
        alone = part.span() == (0, len(text))
        if unit_s is None or unit_s >= smallest_s or not (part[2] or alone):
            return None
        total_s += float(part[1].replace(",", "")) * unit_s
        place, smallest_s = part.end(), unit_s
    return total_s


def parse_bytes(text: str) -> int:
    """Bytes of a size such as `2GB`, `512MiB` or plain `1000000`.

    Raises:
        UsageError: the text is no positive size.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text)
    factor = _BYTES_PER.get(match[2].lower()) if match else None
    number = float(match[1].replace(",", "")) if match else 0.0
    if factor is None or not 0 < number * factor < _MOST_BYTES:
        raise UsageError(
            f"{format_value(text)} is not a size; write for example 2GB, 512MiB or 1000000"
        )
    return int(number * factor)


def format_duration(seconds: float | None) -> str:
    """A duration in at most two units: `47 ms`, `3.2 s`, `4 min 10 s`, `13 h 05 min`, `2 d 3 h`.

    An unknown duration is `-`, an infinite one `forever`.
    """
    if seconds is None or seconds != seconds:
        return "-"
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds == float("inf"):
        return "forever"
    # each unit begins where the smaller one would be rounded up to it
    if seconds < 0.9995e-3:
        return f"{format_significant(seconds * 1e6)} us" if seconds >= 1e-9 else "0 ms"
    if seconds < 0.9995:
        return f"{format_significant(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{format_significant(seconds)} s"
    if seconds < 3599.5:
        whole = round(seconds)
        return f"{whole // 60} min {whole % 60:02d} s"
    if seconds < 86370:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24:,} d {hours % 24} h"


def format_significant(number: float, digits: int = 3) -> str:
    """A number with so many significant digits; with an exponent only if it is tiny."""
    words = f"{number:.{digits}g}"
    if "e" not in words:
        return words
    rounded = float(words)
    return f"{rounded:,.0f}" if abs(rounded) >= 1 else words


def format_percent(share: float, *, aligned: bool = False) -> str:
    """A share as a percentage, with one decimal below 10 %: `4.2 %`, `75 %`.

    A decimal 0 is left out (`3 %`), unless `aligned`, which is for columns.
    """
    if not math.isfinite(share):
        return "-"
    digits = f"{share * 100:.1f}" if share < 0.0995 else f"{share * 100:.0f}"
    return f"{digits if aligned else digits.removesuffix('.0')} %"


def format_bytes(size_bytes: float | None) -> str:
    """A size in decimal units: `512 B`, `3.4 MB`, `1.2 GB`."""
    if size_bytes is None or not math.isfinite(size_bytes):
        return "-"
    if size_bytes < 0:
        return "-" + format_bytes(-size_bytes)
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= 0.9995 * factor:
            return f"{format_significant(size_bytes / factor)} {unit}"
    return f"{size_bytes:.0f} B"


def format_count(count: float | None) -> str:
    """A whole number with thousands separators: `1,277,527`."""
    return "-" if count is None or not math.isfinite(count) else f"{round(count):,}"


def format_factor(factor: float) -> str:
    """A factor with two significant digits: `3.4x`, `1,800x`."""
    if not math.isfinite(factor):
        return "-"
    return f"{format_significant(factor, 2)}x"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` if the system has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def printable(text: str) -> str:
    """The text with characters escaped that a terminal could obey or hide."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def format_value(value: object, width: int = 40) -> str:
    """A value from a user's file, quoted and safe to print; a long one ends with `...`."""
    shown = printable(str(value))
    return f"'{shown[: width - 3]}...'" if len(shown) > width else f"'{shown}'"


def sentences(*texts: str) -> str:
    """Texts as sentences, one after the other, without the last full stop; empty ones left out."""
    return ". ".join(text[0].upper() + text[1:].rstrip(".") for text in texts if text)


def format_time(time_s: float) -> str:
    """Unix seconds as a date: `2014-10-21 00:00:05 UTC`, or `-` if it is out of range."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "-"
