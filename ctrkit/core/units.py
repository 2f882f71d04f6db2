"""Durations, sizes, counts and signals, from and to text that people read."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime

from ctrkit.core.errors import UsageError

_SECONDS_PER = {"ms": 1e-3, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES_PER = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
_BYTES_PER |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4}
_NUMBER_AND_UNIT = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*")


def parse_duration_s(text: str) -> float:
    """Seconds of a duration such as `120s`, `10m`, `1.5h` or plain `90`.

    Raises:
        UsageError: the text is no positive duration.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2].lower() not in _SECONDS_PER or float(match[1]) <= 0:
        raise UsageError(f"'{text}' is no duration; write for example 90, 120s, 10m or 1.5h")
    return float(match[1]) * _SECONDS_PER[match[2].lower()]


def parse_bytes(text: str) -> int:
    """Bytes of a size such as `2GB`, `512MiB` or plain `1000000`.

    Raises:
        UsageError: the text is no positive size.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or match[2].lower() not in _BYTES_PER or float(match[1]) <= 0:
        raise UsageError(f"'{text}' is no size; write for example 2GB, 512MiB or 1000000")
    return int(float(match[1]) * _BYTES_PER[match[2].lower()])


def format_duration(seconds: float | None) -> str:
    """Two significant units at most: `47 ms`, `3.2 s`, `4 min 10 s`, `13 h 05 min`, `2 d 3 h`."""
    if seconds is None or seconds != seconds:
        return "-"
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 0.9995:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        minutes = round(seconds / 60)
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def format_percent(share: float, *, aligned: bool = False) -> str:
    """A share as a percentage, one digit after the point below 10 %: `4.2 %`, `75 %`.

    A digit 0 is left out (`3 %`), but not of an `aligned` one, which is for columns.
    """
    digits = f"{share * 100:.1f}" if share < 0.0995 else f"{share * 100:.0f}"
    return f"{digits if aligned else digits.removesuffix('.0')} %"


def format_bytes(size_bytes: float | None) -> str:
    """Decimal units: `512 B`, `3.4 MB`, `1.2 GB`."""
    if size_bytes is None or size_bytes != size_bytes:
        return "-"
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def format_count(count: float | None) -> str:
    """A whole number with thousands separators: `1,277,527`."""
    return "-" if count is None or count != count else f"{round(count):,}"


def format_factor(factor: float) -> str:
    """Two significant digits: `3.4x`, `1,800x`."""
    return f"{factor:.2g}x" if factor < 100 else f"{float(f'{factor:.2g}'):,.0f}x"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` where the system has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def printable(text: str) -> str:
    """A text without characters that a terminal could obey or hide: they are escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def format_value(value: object, width: int = 40) -> str:
    """A value of somebody's file, in quotes and safe to print; a long one ends with `...`."""
    shown = printable(str(value))
    return f"'{shown[: width - 3]}...'" if len(shown) > width else f"'{shown}'"


def format_time(time_s: float) -> str:
    """Unix seconds as a date: `2014-10-21 00:00:05 UTC`, or `-` where there is none."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return "-"
