"""Helpers for tests of tables: a small log in any form, and its store."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ctrkit.ctr.data.interactions import TableOptions, prepare_table
from ctrkit.ctr.data.store import Reading, Store, StoreMeta

COLUMNS = {"user": "user", "item": "item", "time": "ts", "label": "label"}
BEGIN_S = 1_494_000_000  # 2017-05-05 16:00 UTC
Row = tuple[int, int, int, int]


def log_rows(count: int = 120) -> list[Row]:
    """Rows of user, item, Unix seconds and label, always the same; 20 users, 30 items."""
    chance = random.Random(7)
    return [
        (
            chance.randrange(20),
            chance.randrange(30),
            BEGIN_S + number * 3571,
            int(chance.random() < 0.3),
        )
        for number in range(count)
    ]


def log_text(
    rows: Sequence[Row],
    *,
    header: str | None = "user,item,ts,label",
    delimiter: str = ",",
    end: str = "\n",
    user: Callable[[int], str] = str,
    time: Callable[[int], str] = str,
    label: Callable[[int], str] = str,
) -> str:
    """A log as text, each column written as asked."""
    lines = [] if header is None else [header.replace(",", delimiter)]
    lines += [delimiter.join((user(u), str(i), time(t), label(y))) for u, i, t, y in rows]
    return "".join(line + end for line in lines)


def utc(time_s: float) -> datetime:
    return datetime.fromtimestamp(time_s, UTC)


@dataclass(frozen=True)
class Prepared:
    """A store made of a table, and what a test asks of it."""

    meta: StoreMeta
    store: Store

    @property
    def reading(self) -> Reading:
        assert self.meta.reading is not None
        return self.meta.reading

    @property
    def users(self) -> int:
        return self.meta.vocabulary["user"] - 2

    @property
    def positives(self) -> int:
        return int(self.store.impressions[:, 5].sum())

    @property
    def times(self) -> list[int]:
        return sorted(int(time_s) for time_s in np.asarray(self.store.time_s))


def prepared(table: Path, out: Path, **said: Any) -> Prepared:
    """Prepare a table; `said` are options by their name, columns among them.

    Whatever it is: its rows add up.
    """
    columns = {name: said.pop(name, COLUMNS.get(name)) for name in (*COLUMNS, "category")}
    text = {name: said.pop(name) for name in ("header", "delimiter", "encoding") if name in said}
    names = ("accept_loss", "split", "seed")
    others = {name: said.pop(name) for name in names if name in said}
    options = TableOptions.of(columns, text, said, **others)
    meta = prepare_table(table, out, options, memory_limit_bytes=10**9, threads=2)
    result = Prepared(meta, Store.open(out))
    assert result.reading.used == sum(meta.rows.values()) == len(result.store.impressions)
    assert result.reading.rows == result.reading.used + sum(meta.bad_rows.values())
    assert set(result.reading.first_bad) == set(meta.bad_rows)
    return result
