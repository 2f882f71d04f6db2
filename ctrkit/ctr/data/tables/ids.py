"""Ids: which texts mean "missing", which mean the same id, which have lost digits."""

from __future__ import annotations

from typing import NamedTuple

from ctrkit.core.units import format_count, format_value
from ctrkit.ctr.data.workspace import literal

_MISSING = ("", "NA", "\\N")
_MISSING_LOWER: tuple[str, ...] = (
    "nan",
    "-nan",
    "null",
    "(null)",
    "[null]",
    "<null>",
    "none",
    "nat",
    "nil",
    "n/a",
)
_MISSING_LOWER += ("<na>", "#n/a", "#na", "#n/a n/a", "undefined", "-1.#ind")
#: texts of spreadsheets for a failed formula, and of programs for "not a number"
_MISSING_LOWER += ("#null!", "#value!", "#ref!", "#name?", "#num!", "#div/0!", "inf", "-inf")
_MISSING_LOWER += ("+inf", "infinity", "-infinity", "+infinity")
#: `-`, `--`, `?`, `.` and the like; as labels they may mean something
_DASHES = "[-?._\u2013\u2014]+"
_DASHES_LENGTH = 12
#: ids that may stand for a missing one
_DOUBTFUL: tuple[str, ...] = (
    "unknown",
    "anonymous",
    "guest",
    "missing",
    "(not set)",
    "(none)",
    "not set",
    "n.a.",
)
_DOUBTFUL += ("00000000-0000-0000-0000-000000000000",)
#: characters that exports put around an id
_AROUND = "{}()[]<>=#'\"`"
_WIDE_BLANKS = (
    " \u00a0\u1680\u2002\u2003\u2007\u2009\u200a\u200b\u200c\u200d\u202f\u2060\u3000\ufeff"
)
#: digits of other scripts, each row ten of them, that stand for 0 to 9
_OTHER_DIGITS = "".join(
    chr(zero + digit) for zero in (0x660, 0x6F0, 0x966, 0x9E6, 0xE50, 0xFF10) for digit in range(10)
)
#: 0x1f, 0b11 and 1_000, as programmers write numbers
_PROGRAMMED = "0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]{1,3}(_[0-9]{3})+"
#: beyond it, floating-point numbers cannot tell all whole numbers apart
EXACT_LIMIT = 2**53
_POINT = r"[+-]?[0-9]+\.0*"
_PLUS = r"\+[0-9]+(\.0*)?"
_POWER = r"[+-]?[0-9](\.[0-9]+)?[eE]\+[0-9]+"  # only with a sign: `1e5` may be a hexadecimal id
_BARE_POWER = r"[0-9](\.[0-9]+)?[eE][0-9]{1,2}"
_ROUNDED = r"[+-]?[0-9]\.[0-9]{4,}[eE]\+[0-9]+"


class IdProfile(NamedTuple):
    """Counts of a column of ids.

    Attributes:
        pointed: cells such as 57.0.
        signed: cells such as +57.
        beyond: floating-point cells so large that neighbouring whole numbers are the same.
        largest: the largest floating-point cell.
        rounded: a cell such as 1.23457E+12; None if there is none.
        padded: cells with leading zeros, such as 007.
        grouped: cells that are a number with a comma, such as 1,234 or 57,0.
        powers: cells such as 1e3, which may also be a hexadecimal id.
        programmed: cells such as 0x1f or 1_000, or with digits of another script.
        decorated: cells with quotes, brackets or the like around them, such as {57} or ="57".
        upper: cells with a capital letter.
        lower: cells with a small letter.
        decomposed: cells with accents as separate characters (not in Unicode's form C).
        minus_one: cells that are -1.
        negative: other cells that begin with a minus.
        doubtful: cells such as `unknown`.
        doubtful_text: one of those; None if there is none.
    """

    pointed: int
    signed: int
    beyond: int
    largest: float | None
    rounded: str | None
    padded: int
    grouped: int
    powers: int
    programmed: int
    decorated: int
    upper: int
    lower: int
    decomposed: int
    minus_one: int
    negative: int
    doubtful: int
    doubtful_text: str | None


def missing_sql(cell: str, *, dashes: bool = True) -> str:
    """SQL test: the cell is present but means "missing"; `-` and `?` count only with `dashes`."""
    texts, lower = (", ".join(map(literal, each)) for each in (_MISSING, _MISSING_LOWER))
    found = (
        f"strlen({cell}) <= {max(map(len, _MISSING_LOWER))}"
        f" AND ({cell} IN ({texts}) OR lower({cell}) IN ({lower}))"
    )
    if dashes:
        found += (
            f" OR strlen({cell}) <= {_DASHES_LENGTH} AND regexp_full_match({cell}, '{_DASHES}')"
        )
    # a cheap test first: most cells begin with a digit, and none of these texts does
    return f"(({cell} < '0' OR {cell} >= ':') AND ({found}))"


def text_sql(cell: str) -> str:
    """SQL for a text as it is compared: in Unicode's form C, without odd blanks around it."""
    wide = f"nullif(trim(nfc_normalize({cell}), {literal(_WIDE_BLANKS)}), '')"
    return f"(CASE WHEN strlen({cell}) <> length({cell}) THEN {wide} ELSE {cell} END)"


def id_sql(cell: str, *, dashes: bool = True) -> str:
    """SQL for an id: `57.0` and `+57` become `57`, `1e+05` is `100000`, missing is NULL."""
    number = f"try_cast({cell} AS DOUBLE)"
    whole = f"regexp_full_match({cell}, '{_POWER}') AND {number} = floor({number})"
    return (
        f"CASE WHEN {cell} IS NULL OR {missing_sql(cell, dashes=dashes)} THEN NULL"
        f" WHEN contains({cell}, '+') AND regexp_full_match({cell}, '{_PLUS}')"
        rf" THEN regexp_replace(ltrim({cell}, '+'), '\.0*$', '')"
        f" WHEN contains({cell}, '.') AND regexp_full_match({cell}, '{_POINT}')"
        rf" THEN regexp_replace({cell}, '\.0*$', '')"
        f" WHEN contains({cell}, '+') AND {whole}"
        f" THEN coalesce(try_cast({number} AS HUGEINT)::VARCHAR, {cell})"
        f" ELSE {text_sql(cell)} END"
    )


def profile_sql(cell: str, exact_limit: int) -> str:
    """The SELECT list for the fields of an `IdProfile` of a text column."""
    # cheap tests first, since few tables have such cells
    inexact = f"contains({cell}, '.') OR contains({cell}, '+')"
    number = f"CASE WHEN {inexact} THEN abs(try_cast({cell} AS DOUBLE)) END"
    finite = f"CASE WHEN isfinite({number}) THEN {number} END"
    grouped = f"contains({cell}, ',') AND regexp_full_match({cell}, '[+-]?[0-9][0-9,.]*')"
    wide = f"strlen({cell}) <> length({cell})"
    words = ", ".join(map(literal, _DOUBTFUL))
    doubtful = f"length({cell}) <= {max(map(len, _DOUBTFUL))} AND lower({cell}) IN ({words})"

    def count(test: str) -> str:
        return f"count(*) FILTER ({test})"

    return ", ".join(
        (
            count(f"contains({cell}, '.') AND regexp_full_match({cell}, '{_POINT}')"),
            count(rf"contains({cell}, '+') AND regexp_full_match({cell}, '{_PLUS}')"),
            count(f"{finite} > {exact_limit}"),
            f"max({finite})",
            f"min({cell}) FILTER (contains({cell}, '+')"
            f" AND regexp_full_match({cell}, '{_ROUNDED}'))",
            count(f"starts_with({cell}, '0') AND regexp_full_match({cell}, '0[0-9]+')"),
            count(grouped),
            count(f"contains(lower({cell}), 'e') AND regexp_full_match({cell}, '{_BARE_POWER}')"),
            count(f"regexp_full_match({cell}, '{_PROGRAMMED}') OR {cell} <> {_digits_sql(cell)}"),
            count(f"{cell} <> {bare_sql(cell)}"),
            count(f"{cell} <> lower({cell})"),
            count(f"{cell} <> upper({cell})"),
            count(f"{wide} AND {cell} <> nfc_normalize({cell})"),
            count(f"{cell} = '-1'"),
            count(f"starts_with({cell}, '-') AND {cell} <> '-1'"),
            count(doubtful),
            f"min({cell}) FILTER ({doubtful})",
        )
    )


def bare_sql(cell: str) -> str:
    """SQL for a cell without quotes, brackets and the like around it."""
    return f"trim({cell}, {literal(_AROUND)})"


def _digits_sql(cell: str) -> str:
    ascii_digits = "0123456789" * (len(_OTHER_DIGITS) // 10)
    return f"translate({cell}, {literal(_OTHER_DIGITS)}, '{ascii_digits}')"


def plain_number_sql(cell: str) -> str:
    """SQL for a cell as a decimal number, where a programmer or another script wrote it."""
    return (
        f"CASE WHEN regexp_full_match({cell}, '{_PROGRAMMED}')"
        f" THEN coalesce(try_cast({cell} AS UBIGINT)::VARCHAR, {cell})"
        f" ELSE {_digits_sql(cell)} END"
    )


def odd_sql(cell: str) -> str:
    """SQL test: the cell is not a plain whole number, so there may be something to report."""
    return f"try_cast({cell} AS UBIGINT)::VARCHAR IS DISTINCT FROM {cell}"


def id_warnings(name: str, exact_limit: int, profile: IdProfile) -> list[str]:
    """Warnings about the ids of a column, in sentences.

    Args:
        name: name of the column.
        exact_limit: exact limit of its floating-point type.
        profile: profile of its cells.
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
    if profile.decomposed:
        found.append(
            f"{column} holds {format_count(profile.decomposed)} texts whose accents are characters"
            " of their own (Unicode NFD): each is the same id as the same text in the usual form"
        )
    if profile.doubtful:
        found.append(
            f"{column} holds texts such as {format_value(profile.doubtful_text)} in"
            f" {format_count(profile.doubtful)} rows: each text is taken for one id here; if it"
            " stands for none, remove those rows"
        )
    if profile.minus_one and not profile.negative:
        found.append(
            f"{column} holds -1 in {format_count(profile.minus_one)} rows and no other negative"
            " number: it is taken for one id here; if it stands for none, remove those rows"
        )
    return found
