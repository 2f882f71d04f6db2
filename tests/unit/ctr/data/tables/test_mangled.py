"""A clean log, mangled as people's logs are: nothing is lost or wrong silently."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import BEGIN_S, Prepared, Row, log_rows, prepared, utc

#: how a column of times may be written, in seconds that it keeps
TIMES = {
    "seconds": (str, 1),
    "milliseconds": (lambda s: str(s * 1000), 1),
    "either": (lambda s: str(s * 1000 if s % 2 else s), 1),
    "iso": (lambda s: utc(s).isoformat(), 1),
    "hours": (lambda s: utc(s).strftime("%y%m%d%H"), 3600),
    "day first": (lambda s: utc(s).strftime("%d/%m/%Y %H:%M:%S"), 1),
    "month first": (lambda s: utc(s).strftime("%m/%d/%Y %H:%M"), 60),
}
LABELS = [("0", "1"), ("0.0", "1.0"), ("no", "yes"), ("False", "True")]
MISSING = ["", "NaN", "NULL", r"\N", "NA"]
#: what may stand in the other column: no delimiter where nothing is quoted
TITLES = ["tv", 'a 5" tv', "it's", "käse", "", "o''o"]
QUOTED_TITLES = [*TITLES, 'say "hi"', "one, two; three|four", "two\nlines", "\n\n, \n"]


@dataclass(frozen=True)
class Mangling:
    """What is done to a log.

    Attributes:
        order: of the columns user, item, title, ts, label.
        broken: by row, a line that is no row any more: short, long or not UTF-8.
        missing: by row, which column lacks and how that is written.
    """

    order: tuple[int, ...]
    delimiter: str
    quoted: bool
    encoding: str
    end: str
    time: str
    labels: tuple[str, str]
    titles: list[str]
    pointed: bool
    trailing: bool
    index: bool
    packed: bool
    repeated: int
    broken: dict[int, str] = field(default_factory=dict)
    missing: dict[int, tuple[str, str]] = field(default_factory=dict)


@st.composite
def manglings(draw: st.DrawFn) -> Mangling:
    quoted = draw(st.booleans())
    rows = st.integers(0, 119)
    kinds = st.sampled_from(["short", "long", "open"])
    gaps = st.tuples(st.sampled_from(["user", "item", "ts", "label"]), st.sampled_from(MISSING))
    return Mangling(
        order=tuple(draw(st.permutations(range(5)))),
        delimiter=draw(st.sampled_from([",", ";", "\t", "|", "::"])),
        quoted=quoted,
        encoding=draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])),
        end=draw(st.sampled_from(["\n", "\r\n"])),
        time=draw(st.sampled_from(sorted(TIMES))),
        labels=draw(st.sampled_from(LABELS)),
        titles=draw(st.lists(st.sampled_from(QUOTED_TITLES if quoted else TITLES), min_size=1)),
        pointed=draw(st.booleans()),
        trailing=draw(st.booleans()),
        index=draw(st.booleans()),
        packed=draw(st.booleans()),
        repeated=draw(st.integers(0, 20)),
        broken=draw(st.dictionaries(rows, kinds, max_size=8)),
        missing=draw(st.dictionaries(rows, gaps, max_size=8)),
    )


def _cells(row: Row, number: int, how: Mangling) -> dict[str, str]:
    user, item, time_s, label = row
    cells = {
        "user": f"{user}.0" if how.pointed and number % 3 == 0 else str(user),
        "item": str(item),
        # what is broken counts by lines
        "title": "tv" if number in how.broken else how.titles[number % len(how.titles)],
        "ts": TIMES[how.time][0](time_s),
        "label": how.labels[label],
    }
    if number in how.missing:
        column, text = how.missing[number]
        cells[column] = text
    return cells


def _text(rows: list[Row], how: Mangling) -> bytes:
    names = ["user", "item", "title", "ts", "label"]
    names = [names[place] for place in how.order]

    def value(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if how.quoted else text

    def line(fields: list[str], number: int | None) -> str:
        fields = [*([str(number or "")] if how.index else []), *fields, *([""] * how.trailing)]
        return how.delimiter.join(fields) + how.end

    lines = [line(names, None)]
    for number, row in enumerate(rows):
        cells = _cells(row, number, how)
        fields = [value(cells[name]) for name in names]
        match how.broken.get(number):
            case "short":
                lines.append(how.delimiter.join(fields[:3]) + how.end)
            case "long":
                lines.append(line([*fields, "more", "more"], number))
            case "open":  # a quote that is never closed, in the column that nobody asks for
                fields[names.index("title")] = '"never closed'
                lines.append(line(fields, number))
            case _:
                lines.append(line(fields, number))
    return "".join(lines).encode(how.encoding)


def _expected(rows: list[Row], how: Mangling) -> list[Row]:
    """The rows that can be used, with their times as far as they are written."""
    unit_s = TIMES[how.time][1]
    return [
        (user, item, time_s // unit_s * unit_s, label)
        for number, (user, item, time_s, label) in enumerate(rows)
        if number not in how.missing and how.broken.get(number) not in ("short", "long")
    ]


def _found(result: Prepared) -> list[Row]:
    """The rows of a store, with the ids of the table."""
    users, items = result.store.users(), result.store.ads()
    assert users is not None
    assert items is not None
    user_of = dict(zip(users["user"].to_pylist(), users["user_id"].to_pylist(), strict=True))
    item_of = dict(zip(items["item"].to_pylist(), items["item_id"].to_pylist(), strict=True))
    return [
        (int(user_of[row[0]]), int(item_of[row[1]]), int(time_s), row[5])
        for row, time_s in zip(
            result.store.impressions.tolist(), result.store.time_s.tolist(), strict=True
        )
    ]


@settings(max_examples=25)
@given(manglings())
def test_a_mangled_text_loses_what_is_broken_and_says_so(how: Mangling) -> None:
    # over weeks, so that days of the month decide which number is the month
    rows = [(u, i, BEGIN_S + 8 * (time_s - BEGIN_S), y) for u, i, time_s, y in log_rows()]
    rows += rows[: how.repeated]
    data = _text(rows, how)
    with TemporaryDirectory() as folder:
        path = Path(folder, "log.csv")
        path.write_bytes(gzip.compress(data) if how.packed else data)
        result = prepared(path, Path(folder, "store"), accept_loss=True)
        assert sorted(_found(result)) == sorted(_expected(rows, how))
        assert result.reading.rows == len(rows)
        opened = sum(kind == "open" for kind in how.broken.values())
        assert any("never closed" in each for each in result.reading.warnings) == bool(opened)


@settings(max_examples=12)
@given(
    st.sampled_from(["int64", "int32", "double", "string", "decimal", "dictionary"]),
    st.sampled_from(["int64", "double", "string", "timestamp", "hours"]),
    st.sampled_from(["int8", "bool", "double", "string"]),
    st.sets(st.integers(0, 119), max_size=8),
    st.permutations(["user", "item", "ts", "label", "x", "x"]),
)
def test_types_of_parquet_do_not_change_a_row(
    user: str, time: str, label: str, without_user: set[int], order: list[str]
) -> None:
    rows = log_rows()
    users, items, times, labels = (list(column) for column in zip(*rows, strict=True))
    ids = pa.array([None if n in without_user else u for n, u in enumerate(users)], pa.int64())
    kinds = {"decimal": pa.decimal128(24, 2), "dictionary": pa.string()}
    user_column = ids.cast(kinds.get(user) or user)
    if time == "hours":
        time_column = pa.array([int(utc(s).strftime("%Y%m%d%H")) for s in times])
    elif time == "timestamp":
        time_column = pa.array(times, pa.timestamp("s"))
    else:
        time_column = pa.array(times).cast(time)
    label_column = pa.array(labels).cast("bool" if label == "bool" else label)
    columns = {
        "user": user_column.dictionary_encode() if user == "dictionary" else user_column,
        "item": pa.array(items),
        "ts": time_column,
        "label": label_column,
        "x": pa.array(users),
    }
    table = pa.Table.from_arrays([columns[name] for name in order], names=list(order))
    unit_s = 3600 if time == "hours" else 1
    with TemporaryDirectory() as folder:
        path = Path(folder, "log.parquet")
        pq.write_table(table, path)
        result = prepared(path, Path(folder, "store"))
        assert sorted(_found(result)) == sorted(
            (u, i, s // unit_s * unit_s, y)
            for n, (u, i, s, y) in enumerate(rows)
            if n not in without_user
        )
        assert result.meta.bad_rows == (
            {"log.parquet: user is empty": len(without_user)} if without_user else {}
        )
