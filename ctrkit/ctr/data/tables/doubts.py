"""What may be wrong with a table although it can be read: ids, times and quotes that look odd."""

from __future__ import annotations

from ctrkit.core.units import format_count, format_value
from ctrkit.ctr.data.tables import ids, time_forms
from ctrkit.ctr.data.tables.parquet import exact_limit
from ctrkit.ctr.data.tables.reading import FIELDS, ParquetPart, Source
from ctrkit.ctr.data.workspace import Workspace


def find_doubts(space: Workspace, source: Source) -> list[str]:
    """The doubts about the table `cells`, a sentence each."""
    found = []
    for name in FIELDS[:3]:
        if name not in source.asked:
            continue
        limits = [
            exact_limit(part.kinds[name])
            for part in source.parts
            if isinstance(part, ParquetPart) and name in part.kinds
        ]
        limit = min((limit for limit in limits if limit), default=ids.EXACT_LIMIT)
        columns = ids.profile_sql(f"{name}_text", limit)
        counts = space.rows(f"SELECT {columns} FROM cells WHERE flaw = 0")[0]
        profile = ids.IdProfile(*counts)
        found += ids.id_warnings(source.asked[name], limit, profile)
        found += _points(space, source, name, profile.pointed) if profile.pointed else []
        found += _zeros(space, source, name) if profile.padded else []
    found += _rounded_times(space, source) + _open_quotes(space, source)
    return found


def _points(space: Workspace, source: Source, name: str, pointed: int) -> list[str]:
    """Ids that are numbers with a point, such as 57.0, where others have none."""
    whole = space.value(
        f"SELECT count(*) FROM cells WHERE regexp_full_match({name}_text, '[+-]?[0-9]+')"
    )
    if not whole:
        return []
    return [
        f"column {format_value(source.asked[name])} is written in two ways,"
        f" {format_count(whole)} times like 57 and {format_count(pointed)} times like 57.0;"
        " both are read as 57"
    ]


def _zeros(space: Workspace, source: Source, name: str) -> list[str]:
    """Ids that differ by zeros before them only, such as 007 and 7."""
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
