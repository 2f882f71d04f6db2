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
    """Counts of a column of ids, whole.

    Attributes:
        whole: cells such as 57.
        pointed: cells such as 57.0.
        beyond: floating-point cells so large that whole numbers are not all apart.
        largest: of the floating-point cells.
        rounded: a cell such as 1.23457E+12, None where there is none.
    """

    whole: int
    pointed: int
    beyond: int
    largest: float | None
    rounded: str | None


def missing_sql(cell: str) -> str:
    """SQL: a cell that is there, but stands for nothing."""
    texts = ", ".join(f"'{text}'" for text in _MISSING)
    lower = ", ".join(f"'{text}'" for text in _MISSING_LOWER)
    return f"({cell} IN ({texts}) OR lower({cell}) IN ({lower}))"


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
    number = f"abs(try_cast({cell} AS DOUBLE))"
    inexact = f"(contains({cell}, '.') OR contains(lower({cell}), 'e+')) AND isfinite({number})"
    return (
        f"count(*) FILTER (regexp_full_match({cell}, '[+-]?[0-9]+')),"
        f" count(*) FILTER (regexp_full_match({cell}, '{_POINT}')),"
        f" count(*) FILTER ({inexact} AND {number} > {exact_limit}),"
        f" max({number}) FILTER ({inexact}),"
        f" min({cell}) FILTER (regexp_full_match({cell}, '{_ROUNDED}'))"
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
            f" {exact_limit:,}, such as {profile.largest:.17g}: from there on different ids may"
            " have become one; export them as integers or as text"
        )
    elif profile.rounded:
        found.append(
            f"{column} has values such as {format_value(profile.rounded)}, which are rounded:"
            " different ids may have become one; export them in full"
        )
    if profile.whole and profile.pointed:
        found.append(
            f"{column} is written in two ways, {format_count(profile.whole)} times like 57 and"
            f" {format_count(profile.pointed)} times like 57.0; both are read as 57"
        )
    return found
