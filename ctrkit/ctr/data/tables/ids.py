"""Ids: which texts stand for a missing one, which are the same number, which have lost digits."""

from __future__ import annotations

from typing import NamedTuple

from ctrkit.core.units import format_count, format_value

_MISSING = ("", "NA", "N/A", "<NA>", "#N/A", "\\N")
_MISSING_LOWER = ("nan", "null", "none", "nat")
#: floating-point numbers beyond it are not all whole ones apart
EXACT_LIMIT = 2**53
_POINT = r"[+-]?[0-9]+\.0*"
_POWER = r"[+-]?[0-9](\.[0-9]+)?[eE]\+[0-9]+"  # with its sign: `1e5` may be a hexadecimal id
_ROUNDED = r"[+-]?[0-9]\.[0-9]{4,}[eE]\+[0-9]+"


class IdProfile(NamedTuple):
    """Counts of a column of ids.

    Attributes:
        pointed: cells such as 57.0.
        beyond: floating-point cells so large that whole numbers are not all apart.
        largest: of the floating-point cells.
        rounded: a cell such as 1.23457E+12, None where there is none.
        padded: cells with zeros before a number, such as 007.
    """

    pointed: int
    beyond: int
    largest: float | None
    rounded: str | None
    padded: int


def missing_sql(cell: str) -> str:
    """SQL: a cell that is there, but stands for nothing."""
    texts = ", ".join(f"'{text}'" for text in _MISSING)
    lower = ", ".join(f"'{text}'" for text in _MISSING_LOWER)
    return f"(strlen({cell}) <= 4 AND ({cell} IN ({texts}) OR lower({cell}) IN ({lower})))"


def id_sql(cell: str) -> str:
    """SQL of an id: `57.0` is `57`, `1e+05` is `100000`, what is missing is NULL."""
    number = f"try_cast({cell} AS DOUBLE)"
    whole = f"regexp_full_match({cell}, '{_POWER}') AND {number} = floor({number})"
    return (
        f"CASE WHEN {cell} IS NULL OR {missing_sql(cell)} THEN NULL"
        f" WHEN contains({cell}, '.') AND regexp_full_match({cell}, '{_POINT}')"
        rf" THEN regexp_replace({cell}, '\.0*$', '')"
        f" WHEN contains({cell}, '+') AND {whole}"
        f" THEN coalesce(try_cast({number} AS HUGEINT)::VARCHAR, {cell}) ELSE {cell} END"
    )


def profile_sql(cell: str, exact_limit: int) -> str:
    """SELECT list of the fields of an `IdProfile` of a text column."""
    # cheap tests first: few tables have such cells
    inexact = f"contains({cell}, '.') OR contains({cell}, '+')"
    number = f"CASE WHEN {inexact} THEN abs(try_cast({cell} AS DOUBLE)) END"
    finite = f"CASE WHEN isfinite({number}) THEN {number} END"
    pointed = f"contains({cell}, '.') AND regexp_full_match({cell}, '{_POINT}')"
    rounded = f"contains({cell}, '+') AND regexp_full_match({cell}, '{_ROUNDED}')"
    padded = f"starts_with({cell}, '0') AND regexp_full_match({cell}, '0[0-9]+')"
    return (
        f"count(*) FILTER ({pointed}), count(*) FILTER ({finite} > {exact_limit}), max({finite}),"
        f" min(CASE WHEN {rounded} THEN {cell} END), count(*) FILTER ({padded})"
    )


def id_warnings(name: str, exact_limit: int, profile: IdProfile) -> list[str]:
    """What may be wrong with the ids of a column, in sentences.

    Args:
        name: of the column.
        exact_limit: of its floating-point type.
        profile: of its cells.
    """
    column = f"column {format_value(name)}"
    found = []
    if profile.beyond:
        found.append(
            f"{column} has {format_count(profile.beyond)} floating-point values above"
            f" 2^{exact_limit.bit_length() - 1} ({exact_limit:,}), such as"
            f" {profile.largest:.17g}: from there on different ids may have become one; export"
            " them as integers or as text"
        )
    elif profile.rounded:
        found.append(
            f"{column} has values such as {format_value(profile.rounded)}, which are rounded:"
            " different ids may have become one; export them in full"
        )
    return found
