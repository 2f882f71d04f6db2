"""Finds the columns that were asked for, by their position in a table."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value

_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """The column of each field of a table; `category` may be None."""

    user: str
    item: str
    time: str
    label: str
    category: str | None = None

    @property
    def asked(self) -> dict[str, str]:
        """The column per field, without fields that are not requested.

        Raises:
            UsageError: two options name the same column.
        """
        asked = {field: name for field, name in vars(self).items() if name is not None}
        seen: dict[str, str] = {}
        for field, name in asked.items():
            if name in seen:
                raise UsageError(
                    f"--{seen[name]} and --{field} both name the column {format_value(name)};"
                    " each needs one of its own"
                )
            seen[name] = field
        return asked


def find_columns(asked: Mapping[str, str], names: Sequence[str]) -> dict[str, int] | None:
    """The position per field; None if a column is missing.

    `rating` matches `rating`, or else a single `rating:float`: some tools append the type to the
    name. Other names may be empty or equal.
    """
    found = {}
    for field, name in asked.items():
        places = [place for place, other in enumerate(names) if _same(other, name)] or [
            place for place, other in enumerate(names) if _same(other.partition(":")[0], name)
        ]
        if not places:
            return None
        found[field] = places[0]
    return found


def _same(name: str, other: str) -> bool:
    """True if two names are the same in any Unicode encoding of accents."""
    return name == other or normalize("NFC", name) == normalize("NFC", other)


def check_unique(path: Path, found: Mapping[str, int], names: Sequence[str]) -> None:
    """Check that no requested column occurs twice, or is requested twice.

    Raises:
        UsageError: naming both.
    """
    fields: dict[int, str] = {}
    for field, place in found.items():
        name = names[place]
        same = [number + 1 for number, other in enumerate(names) if other == name]
        if len(same) > 1:
            raise UsageError(
                f"{path}: columns {same[0]} and {same[1]} are both called {format_value(name)};"
                f" rename one, so that --{field} names a single one"
            )
        if place in fields:
            raise UsageError(
                f"{path}: --{fields[place]} and --{field} both name the column"
                f" {format_value(name)}; each needs one of its own"
            )
        fields[place] = field


def missing_column(path: Path, asked: Mapping[str, str], names: Sequence[str]) -> UsageError:
    """The error for the first missing column; it names the existing ones."""
    field, name = next(
        (field, name) for field, name in asked.items() if find_columns({field: name}, names) is None
    )
    by_lower_case = {other.lower(): other for other in names if other}
    close = difflib.get_close_matches(name.lower(), by_lower_case, n=1)
    guess = f"; is it {format_value(by_lower_case[close[0]])}?" if close else ""
    return UsageError(
        f"{path}: no column {format_value(name)} for --{field};"
        f" its columns are {shown_names(names)}{guess}"
    )


def shown_names(names: Sequence[str]) -> str:
    """The names as `user, item, time`, safe to print; of many columns only the first."""
    shown = ", ".join(format_value(name)[1:-1] if name else "(no name)" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
