"""Finds what may be wrong with a readable table: ids, times and quotes that look odd."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from ctrkit.core.units import format_count, format_value
from ctrkit.ctr.data.tables import ids, time_forms
from ctrkit.ctr.data.tables.parquet import exact_limit
from ctrkit.ctr.data.tables.reading import FIELDS, ParquetPart, Source
from ctrkit.ctr.data.tables.times import TimeRule
from ctrkit.ctr.data.workspace import Workspace

#: SQL pattern: a time of day followed by `Z`, `UTC`, `+08` or `-05:00`
_OFFSET = (
    r"regexp_matches(time_text, ':[0-9.,]+ *([zZ]|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2})?)( .*|\])?$')"
)
_SINGLE = (2**24, 2**11)  # where float32 and float16 begin to skip whole numbers


def find_doubts(space: Workspace, source: Source, rule: TimeRule) -> list[str]:
    """The doubts about the table `cells`, a sentence each."""
    found = list(source.files.copies)
    for name in FIELDS[:3]:
        if name not in source.asked:
            continue
        limits = [
            exact_limit(part.kinds[name])
            for part in source.parts
            if isinstance(part, ParquetPart) and name in part.kinds
        ]
        limit = min((limit for limit in limits if limit), default=ids.EXACT_LIMIT)
        odd = ids.odd_sql(f"{name}_text")
        columns = ids.profile_sql(f"{name}_text", limit)
        counts = space.rows(f"SELECT {columns} FROM cells WHERE flaw = 0 AND {odd}")[0]
        profile = ids.IdProfile(*counts)
        found += ids.id_warnings(source.asked[name], limit, profile)
        found += _two_ways(space, source, name, profile)
        found += _zeros(space, source, name) if profile.padded else []
        found += _look_alikes(space, source, name, profile)
    found += _rounded_times(space, source) or _single_precision(space, source)
    found += _mixed_offsets(space, source)
    found += _zone_names(space, source, rule)
    found += _open_quotes(space, source)
    return found


def _two_ways(space: Workspace, source: Source, name: str, profile: ids.IdProfile) -> list[str]:
    """Ids written as 57.0 or +57 where others are written as 57."""
    odd = {"57.0": profile.pointed, "+57": profile.signed}
    if not any(odd.values()):
        return []
    plain = space.value(
        f"SELECT count(*) FROM cells WHERE regexp_full_match({name}_text, '-?[0-9]+')"
    )
    ways = {"57": plain} | odd
    ways = {way: count for way, count in ways.items() if count}
    if len(ways) < 2:
        return []
    counted = [f"{format_count(count)} times like {way}" for way, count in ways.items()]
    return [
        f"column {format_value(source.asked[name])} is written in"
        f" {'two' if len(ways) == 2 else 'three'} ways,"
        f" {', '.join(counted[:-1])} and {counted[-1]};"
        f" {'both' if len(ways) == 2 else 'all'} are read as 57"
    ]


def _look_alikes(space: Workspace, source: Source, name: str, profile: ids.IdProfile) -> list[str]:
    """Ids that differ only in case, or in how a number is written."""
    found = []
    cell = ids.id_sql(f"{name}_text")
    if profile.upper and profile.lower:
        found += _alike(space, source, name, f"lower({cell})", "differ by capital letters only")
    if profile.grouped:
        groups = f"regexp_full_match({cell}, '[0-9]{{1,3}}(,[0-9]{{3}})+')"
        without = f"regexp_replace({cell}, ',0+$', '')"
        plain = f"CASE WHEN {groups} THEN replace({cell}, ',', '') ELSE {without} END"
        found += _alike(space, source, name, plain, "are the same number with and without a comma")
    if profile.programmed:
        plain = ids.plain_number_sql(cell)
        found += _alike(space, source, name, plain, "are the same number in another notation")
    if profile.decorated:
        found += _alike(
            space, source, name, ids.bare_sql(cell), "differ by what stands around them only"
        )
    if profile.powers:
        whole = f"coalesce(try_cast(try_cast({cell} AS DOUBLE) AS HUGEINT)::VARCHAR, {cell})"
        found += _alike(space, source, name, whole, "are the same number with and without a power")
    return found


def _alike(space: Workspace, source: Source, name: str, key: str, words: str) -> list[str]:
    """A sentence if several ids have the same key."""
    count, pair = space.rows(
        "SELECT count(*), min([first, last]) FROM"
        f" (SELECT min(id) AS first, max(id) AS last FROM (SELECT {ids.id_sql(f'{name}_text')}"
        f" AS id, {key} AS key FROM cells WHERE flaw = 0) WHERE id IS NOT NULL"
        " GROUP BY key HAVING min(id) <> max(id))"
    )[0]
    if not count:
        return []
    return [
        f"column {format_value(source.asked[name])}: {format_value(pair[0])} and"
        f" {format_value(pair[1])} {words}, but they are different ids here"
        + f" (one of {format_count(count)} such cases)"
        * (count > 1)
    ]


def _zeros(space: Workspace, source: Source, name: str) -> list[str]:
    """Ids that differ only in leading zeros, such as 007 and 7."""
    cell = f"{name}_text"
    count, first, last = space.rows(
        "SELECT count(*), min(first), arg_min(last, first) FROM"
        f" (SELECT min({cell}) AS first, max({cell}) AS last FROM cells"
        f" WHERE regexp_full_match({cell}, '[0-9]+') GROUP BY ltrim({cell}, '0')"
        f" HAVING min({cell}) <> max({cell}))"
    )[0]
    if not count:
        return []
    return [
        f"column {format_value(source.asked[name])} has {format_count(count)} numbers with and"
        f" without zeros before them, such as {format_value(first)} and {format_value(last)}:"
        " they are different ids here"
    ]


def _rounded_times(space: Workspace, source: Source) -> list[str]:
    rounded, sample = space.rows(
        f"SELECT count(*), min(time_text) FROM cells WHERE flaw = 0 AND {time_forms.rounded_sql()}"
    )[0]
    if not rounded:
        return []
    return [
        f"column {format_value(source.asked['time'])} has {format_count(rounded)} values such"
        f" as {format_value(sample)}, which are rounded: times are right to"
        " their last digit only; export them in full"
    ]


def _mixed_offsets(space: Workspace, source: Source) -> list[str]:
    """Times of which some have an offset from UTC and others do not."""
    with_offset, of, sample = space.rows(
        f"SELECT count(*) FILTER ({_OFFSET}), count(*), min(time_text) FILTER (NOT {_OFFSET})"
        " FROM cells WHERE flaw = 0 AND contains(time_text, ':')"
    )[0]
    if not 0 < with_offset < of:
        return []
    return [
        f"column {format_value(source.asked['time'])} has {format_count(with_offset)} times with an"
        f" offset from UTC and {format_count(of - with_offset)} without, such as"
        f" {format_value(sample)}: those without are read as UTC"
    ]


#: an abbreviation such as CST, which is -06:00, -05:00 or +08:00, depending on who wrote it
_ZONE_NAME = r"regexp_matches(time_text, '[0-9] *[A-Z]{3,4}$')"
_NO_ZONE = r"regexp_matches(time_text, '(UTC|GMT)$')"


def _zone_names(space: Workspace, source: Source, rule: TimeRule) -> list[str]:
    """Times with the abbreviation of a time zone, which means several zones."""
    count, sample, time_s = space.rows(
        f"SELECT count(*), arg_min(time_text, (file, place)), arg_min({rule.sql}, (file, place))"
        f" FROM cells WHERE flaw = 0 AND {_ZONE_NAME} AND NOT {_NO_ZONE}"
        f" AND ({rule.sql}) IS NOT NULL"
    )[0]
    if not count:
        return []
    shown = datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return [
        f"column {format_value(source.asked['time'])} has {format_count(count)} times with the"
        f" abbreviation of a time zone: {format_value(sample)} is read as {shown}, but several"
        " zones share such names; write the offset instead, such as +08:00, if that is wrong"
    ]


#: if so many bits are always zero, that is no chance
_BITS_BEYOND_CHANCE = 24
_SINGLE_BITS = 24
_LOOKED_AT = 10_000


def _single_precision(space: Workspace, source: Source) -> list[str]:
    """Times that were once single-precision numbers, which skip most whole numbers."""
    numbers = "SELECT try_cast(time_text AS DOUBLE) AS n FROM cells WHERE flaw = 0"
    single = "n::FLOAT::DOUBLE = n OR n::FLOAT::VARCHAR::DOUBLE = n"
    if space.value(f"SELECT bool_and({single}) FROM ({numbers} LIMIT {_LOOKED_AT})") is False:
        return []  # the usual case
    rows = f"SELECT DISTINCT n FROM ({numbers}) WHERE abs(n) > {2**_SINGLE_BITS} AND isfinite(n)"
    # multiples of a day are such numbers anyway, multiples of a minute are when they were printed
    exact, printed, most, distinct = space.rows(
        "SELECT bool_and(n = n::FLOAT::DOUBLE) AND NOT bool_and(n % 86400 = 0),"
        " bool_and(n::FLOAT::VARCHAR::DOUBLE = n) AND NOT bool_and(n % 60 = 0),"
        f" max(abs(n)), count(*) FROM ({rows})"
    )[0]
    if not (exact or printed):
        return []
    skipped_bits = math.floor(math.log2(most)) + 1 - _SINGLE_BITS
    kinds = [part.kinds.get("time") for part in source.parts if isinstance(part, ParquetPart)]
    is_single = any(kind is not None and (exact_limit(kind) or 0) in _SINGLE for kind in kinds)
    if not is_single and distinct * skipped_bits < _BITS_BEYOND_CHANCE:
        return []
    return [
        f"column {format_value(source.asked['time'])} holds numbers of single precision (float32):"
        f" near {most:.0f} only each {2**skipped_bits:,}th number can be written, so times that"
        " differ by less have become one; export it as integers or in double precision"
    ]


def _open_quotes(space: Workspace, source: Source) -> list[str]:
    count, file, place = space.rows(
        "SELECT count(*), arg_min(file, (file, place)), arg_min(place, (file, place)) FROM cells"
        " WHERE open_quote"
    )[0]
    if not count:
        return []
    return [
        f"{format_count(count)} line{'s' * (count > 1)} with a quote that is never closed, first"
        f" {source.files.place(file, place)}: the quote is read as a character of its value"
    ]
