from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.interactions import TableOptions, prepare_table
from ctrkit.ctr.data.store import Store, StoreMeta

COLUMNS = {"user": "u", "item": "i", "time": "t", "label": "y"}
NOON_S = 1_500_033_600  # 2017-07-14 12:00 UTC, a Friday
LOG = f"""u,i,c,t,y
bob,10,toys,{NOON_S},1
bob,9,books,{NOON_S + 1},0
bob,10,toys,{NOON_S + 1},1
bob,9,,{NOON_S + 2},1
7,10,toys,{NOON_S + 3600},0
bob,9,books,{NOON_S + 86400},0
"""


def _prepare(path: Path, out: Path, **said: Any) -> tuple[StoreMeta, Store]:
    columns = {field: said.pop(field, COLUMNS.get(field)) for field in (*COLUMNS, "category")}
    text = {name: said.pop(name) for name in ("header", "delimiter", "encoding") if name in said}
    others = {n: said.pop(n) for n in ("accept_loss", "split", "seed") if n in said}
    options = TableOptions.of(columns, text, said, **others)
    meta = prepare_table(path, out, options, memory_limit_bytes=10**9, threads=2)
    return meta, Store.open(out)


def _write(tmp_path: Path, content: str, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


def test_store_of_a_csv_to_the_last_number(tmp_path: Path) -> None:
    meta, store = _prepare(_write(tmp_path, LOG), tmp_path / "store", category="c")
    # users 7, bob -> 2, 3 (numbers first); items 9, 10 -> 2, 3; books, toys -> 2, 3
    assert store.impressions.tolist() == [
        [2, 3, 3, 13, 4, 0, 0, 0],
        [3, 3, 3, 12, 4, 1, 0, 0],
        [3, 2, 2, 12, 4, 0, 0, 1],
        [3, 3, 3, 12, 4, 1, 0, 1],
        [3, 2, 1, 12, 4, 1, 0, 2],
        [3, 2, 2, 12, 5, 0, 0, 3],
    ]
    assert list(zip(store.behavior_item, store.behavior_category, strict=True)) == [
        (3, 3),
        (3, 3),
        (2, 1),
    ]
    assert store.behavior_time_s.tolist() == [NOON_S, NOON_S + 1, NOON_S + 2]
    assert meta.rows == {"train": 5, "validation": 1}
    assert meta.vocabulary["category"] == meta.vocabulary["history_category"] == 4
    assert meta.vocabulary["item"] == meta.vocabulary["history_item"] == 4
    users = store.users()
    assert users is not None
    assert users.to_pylist() == [{"user": 2, "user_id": "7"}, {"user": 3, "user_id": "bob"}]


def test_without_categories_there_is_one(tmp_path: Path) -> None:
    meta, store = _prepare(_write(tmp_path, LOG), tmp_path / "store")
    assert set(store.impressions[:, 2].tolist()) == {2}
    assert set(store.behavior_category.tolist()) == {2}
    assert meta.vocabulary["category"] == meta.vocabulary["history_category"] == 3


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_delimiters_and_typed_headers(tmp_path: Path, delimiter: str) -> None:
    content = LOG.replace("u,i,c,t,y", "u:token,i:token,c:token,t:float,y:float")
    path = _write(tmp_path, content.replace(",", delimiter), "log.inter")
    meta, _ = _prepare(path, tmp_path / "typed", category="c")
    plain, _ = _prepare(_write(tmp_path, LOG), tmp_path / "plain", category="c")
    assert meta.fingerprint == plain.fingerprint


def test_parquet_with_its_own_types_equals_csv(tmp_path: Path) -> None:
    lines = [line.split(",") for line in LOG.splitlines()[1:]]
    table = pa.table(
        {
            "u": [row[0] for row in lines],
            "i": [int(row[1]) for row in lines],
            "c": pa.array([row[2] or None for row in lines]).dictionary_encode(),
            "t": pa.array([datetime.fromtimestamp(int(row[3]), UTC) for row in lines]),
            "y": [row[4] == "1" for row in lines],
        }
    )
    pq.write_table(table, tmp_path / "log.parquet")
    meta, _ = _prepare(tmp_path / "log.parquet", tmp_path / "parquet", category="c")
    plain, _ = _prepare(_write(tmp_path, LOG), tmp_path / "plain", category="c")
    assert meta.fingerprint == plain.fingerprint


def _iso(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    "spelled",
    [
        lambda s: f"{s}.75",
        lambda s: str(s * 1000 + 999),
        lambda s: str(s * 10**6),
        lambda s: str(s * 10**9),
        _iso,
        lambda s: _iso(s).replace(" ", "T") + "Z",
        lambda s: _iso(s + 8 * 3600) + "+08:00",
        lambda s: _iso(s) + ".5",
    ],
)
def test_times_in_every_spelling(tmp_path: Path, spelled: Any) -> None:
    lines = [line.split(",") for line in LOG.splitlines()]
    for row in lines[1:]:
        row[3] = spelled(int(row[3]))
    path = _write(tmp_path, "".join(",".join(row) + "\n" for row in lines))
    _, store = _prepare(path, tmp_path / "store")
    assert store.time_s.tolist() == [
        NOON_S + 3600,
        NOON_S,
        NOON_S + 1,
        NOON_S + 1,
        NOON_S + 2,
        NOON_S + 86400,
    ]


def test_a_threshold_makes_labels_of_ratings(tmp_path: Path) -> None:
    path = _write(tmp_path, "u,i,t,y\na,1,1,5\na,2,2,3.5\na,3,3,4\na,4,4,1\n")
    _, store = _prepare(path, tmp_path / "store", label_threshold=4, time_unit="s")
    assert store.impressions[:, 5].tolist() == [1, 0, 1, 0]
    assert (store.impressions[:, 7] - store.impressions[:, 6]).tolist() == [0, 1, 1, 2]
    with pytest.raises(UsageError, match=r"column 'y' holds '3.5' \(1 row\).*--label-threshold"):
        _prepare(path, tmp_path / "other", time_unit="s")


def test_unusable_rows_are_counted_by_reason(tmp_path: Path) -> None:
    bad = ',1,5,1\n" ",1,5,1\nb,,5,1\nb,1,,1\nb,1,soon,1\nb,1,-3,1\nb,1,9e10,1\nb,1,inf,1\n'
    bad += "b,1,5,\nb,1,5,good\nb,1,5,nan\nb,1,5\nb,1,5,1,1\n"
    path = _write(tmp_path, f"u,i,t,y\na,1,1,1\na,2,2,true\na,3,3,0.0\n{bad}")
    meta, _ = _prepare(path, tmp_path / "store", time_unit="s", accept_loss=True)
    assert meta.rows == {"train": 2, "validation": 1}
    assert meta.bad_rows == {
        "log.csv: u is empty": 2,
        "log.csv: i is empty": 1,
        "log.csv: t is empty": 1,
        "log.csv: t is missing": 1,
        "log.csv: t is no time": 1,
        "log.csv: t is before 1970 or after 2038": 2,
        "log.csv: y is empty": 1,
        "log.csv: y is missing": 1,
        "log.csv: y is not 0 or 1": 1,
        "log.csv: line has fewer than the 4 columns of the header": 1,
        "log.csv: line has more than the 4 columns of the header": 1,
    }
    assert meta.reading is not None
    assert meta.reading.rows == 3 + sum(meta.bad_rows.values())
    assert meta.reading.first_bad["log.csv: t is no time"] == "line 9: 'soon'"
    assert (
        meta.reading.first_bad["log.csv: line has more than the 4 columns of the header"]
        == "line 17: 'b,1,5,1,1'"
    )


def test_time_split_takes_the_latest_15_percent(tmp_path: Path) -> None:
    rows = "".join(f"a,{i},{1000 + i},1\n" for i in range(100))
    meta, store = _prepare(_write(tmp_path, "u,i,t,y\n" + rows), tmp_path / "store", time_unit="s")
    assert meta.rows == {"train": 85, "validation": 15}
    assert store.time_s.tolist() == list(range(1000, 1100))


def test_random_split_is_14_of_17_and_seeded(tmp_path: Path) -> None:
    rows = "".join(f"a,{i},{1000 + i},1\n" for i in range(170))
    path = _write(tmp_path, "u,i,t,y\n" + rows)
    meta, store = _prepare(path, tmp_path / "store", split="random", time_unit="s")
    assert meta.rows == {"train": 140, "validation": 30}
    # a history is point-in-time in a random split, too
    assert (store.impressions[:, 7] == store.time_s - 1000).all()
    again, _ = _prepare(path, tmp_path / "again", split="random", time_unit="s")
    other, _ = _prepare(path, tmp_path / "other", split="random", seed=1, time_unit="s")
    assert meta.fingerprint == again.fingerprint != other.fingerprint


def test_one_time_for_all_needs_a_random_split(tmp_path: Path) -> None:
    path = _write(tmp_path, "u,i,t,y\n" + "a,1,5,1\nb,2,5,0\n" * 5)
    with pytest.raises(UsageError, match="leaves train without rows; use --split random"):
        _prepare(path, tmp_path / "store", time_unit="s")
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.csv"]


@pytest.mark.parametrize("field", ["user", "item", "time", "label", "category"])
def test_a_missing_column_is_named_with_those_that_exist(tmp_path: Path, field: str) -> None:
    path = _write(tmp_path, LOG)
    with pytest.raises(UsageError, match=r"log\.csv: no column 'x y' .*its columns are u, i, c, t"):
        _prepare(path, tmp_path / "store", **{field: "x y"})


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{name}: no such file"):
        _prepare(tmp_path / name, tmp_path / "store")


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"log\.parquet: no readable Parquet file"):
        _prepare(_write(tmp_path, LOG, "log.parquet"), tmp_path / "store")


def test_a_table_without_usable_rows(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no usable row: 1 x u is empty, first in line 2"):
        _prepare(_write(tmp_path, "u,i,t,y\n,1,1,1\n"), tmp_path / "store", time_unit="s")
    with pytest.raises(UsageError, match="no usable row: it has no rows"):
        _prepare(_write(tmp_path, "u,i,t,y\n"), tmp_path / "store")


def test_an_unknown_split(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--split user: unknown; choose time or random"):
        _prepare(_write(tmp_path, LOG), tmp_path / "store", split="user")


@pytest.mark.parametrize("rows", [1, 3])
def test_no_advice_for_a_split_that_must_fail(tmp_path: Path, rows: int) -> None:
    path = _write(tmp_path, "u,i,t,y\n" + f"a,1,{NOON_S},1\n" * rows)
    have = "one usable row" if rows == 1 else "3 usable rows, all the same"
    for split in ("time", "random"):
        with pytest.raises(UsageError, match=f"without rows; there (is|are) {have}, and training"):
            _prepare(path, tmp_path / "store", split=split)


def test_advice_for_a_split_that_works(tmp_path: Path) -> None:
    path = _write(tmp_path, "u,i,t,y\n" + "".join(f"a,{i},{NOON_S},1\n" for i in range(9)))
    with pytest.raises(UsageError, match="use --split random"):
        _prepare(path, tmp_path / "store")
    _prepare(path, tmp_path / "store", split="random")
