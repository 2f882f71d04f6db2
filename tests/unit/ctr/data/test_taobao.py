from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.ingest import count_lines
from ctrkit.ctr.data.stage_progress import StageProgress, Watcher
from ctrkit.ctr.data.store import FileAccount, Store, StoreMeta
from ctrkit.ctr.data.taobao import VALIDATION_BEGIN_S, prepare_tianchi
from ctrkit.ctr.data.tianchi import generate_tianchi
from ctrkit.ctr.data.tianchi_files import COLUMNS, LOG_BEGIN_S, LOG_END_S

REAL_SAMPLE = Path(__file__).parents[5] / "shared" / "data" / "taobao_real_sample"
DAY_1 = 1494000000  # 2017-05-06 00:00 in Beijing, a Saturday
DAY_8 = VALIDATION_BEGIN_S

RAW_SAMPLE = f"""user,time_stamp,adgroup_id,pid,nonclk,clk
20,{DAY_1 + 3600},7,p,1,0
20,{DAY_1 + 3600},5,p,0,1
20,{DAY_1 + 7300},900,p,1,0
3,{DAY_1 + 10},5,p,1,0
3,{DAY_8 - 1},7,p,1,0
3,{DAY_8},5,p,0,1
x,{DAY_1},5,p,1,0
3,,5,p,1,0
3,0,5,p,1,0
3,99999999999,5,p,1,0
3,{DAY_1},,p,1,0
3,{DAY_1},5,p,1,2
3,{DAY_1},5
"""
AD_FEATURE = """adgroup_id,cate_id,campaign_id,customer,brand,price
5,600,1,2,NULL,99999999.0
7,30,1,2,88,
7,31,1,2,88,5.5
8,99999,1,2,,1.0
no,1,1,2,3,4
"""
USER_PROFILE = (
    "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
    "shopping_level,occupation,new_user_class_level \n"
    "20,1,2,1,4,,3,0,2\n"
)
BEHAVIOR_LOG = f"""user,time_stamp,btag,cate,brand
20,{DAY_1 + 3600},pv,600,88
20,{DAY_1 + 3599},buy,30,9
20,{DAY_1 - 50},fav,4000,NULL
20,{DAY_1 - 60},pv,600,
3,{LOG_BEGIN_S},cart,30,9
3,{LOG_BEGIN_S - 1},pv,30,9
3,{LOG_END_S},pv,30,9
3,0,pv,30,9
3,-5,pv,30,9
3,t,pv,30,9
3,{DAY_1},pv,,9
77,{DAY_1},pv,30,9
z,{DAY_1},pv,30,9
"""
FILES = {
    "raw_sample.csv": RAW_SAMPLE,
    "ad_feature.csv": AD_FEATURE,
    "user_profile.csv": USER_PROFILE,
    "behavior_log.csv": BEHAVIOR_LOG,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for file, content in FILES.items():
        (folder / file).write_text(content)
    return folder


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "tianchi"
    generate_tianchi(folder, rows=3000, users=300, items=200, seed=7)
    return folder


def _prepare(source: Path, out: Path, **options: Any) -> tuple[StoreMeta, Store]:
    options = {"memory_limit_bytes": 10**9, "threads": 2, "accept_loss": True} | options
    meta = prepare_tianchi(source, out, **options)
    store = Store.open(out)
    assert store.meta == meta
    assert meta.reading is not None
    for file, account in meta.reading.files.items():
        lines = [line for line in (source / file).read_bytes().split(b"\n") if line.strip(b"\r")]
        assert account.rows == len(lines) - 1
        assert account.rows == account.used + account.not_needed + account.dropped
    assert meta.reading.files["raw_sample.csv"].used == sum(meta.rows.values())
    return meta, store


def _history(store: Store, row: int) -> list[tuple[int, int, int]]:
    part = slice(*store.impressions[row, 6:8])
    columns = (store.behavior_item, store.behavior_category, store.behavior_time_s)
    return [tuple(map(int, event)) for event in zip(*(c[part] for c in columns), strict=True)]


def test_behaviors_store_to_the_last_number(source: Path, tmp_path: Path) -> None:
    meta, store = _prepare(source, tmp_path / "store")
    # users 3, 20 -> 2, 3; ads 5, 7, 900 -> 2, 3, 4; categories 30, 600, 4000 -> 2, 3, 4
    assert store.impressions[:, :6].tolist() == [
        [2, 2, 3, 0, 5, 0],
        [2, 3, 2, 23, 4, 0],
        [3, 2, 3, 1, 5, 1],
        [3, 3, 2, 1, 5, 0],
        [3, 4, 1, 2, 5, 0],
        [2, 2, 3, 0, 5, 1],
    ]
    assert store.time_s.tolist()[-1] == DAY_8
    assert meta.rows == {"train": 5, "validation": 1}
    # brands 9, 88 -> 2, 3; the behaviour of the same second is not in the history
    assert _history(store, 2) == _history(store, 3)
    assert _history(store, 3) == [(1, 3, DAY_1 - 60), (1, 4, DAY_1 - 50), (2, 2, DAY_1 + 3599)]
    assert _history(store, 4) == [*_history(store, 3), (3, 3, DAY_1 + 3600)]
    assert _history(store, 5) == [(2, 2, LOG_BEGIN_S)]
    assert meta.vocabulary == {
        "user": 4,
        "item": 5,
        "category": 5,
        "history_item": 4,
        "history_category": 5,
    }
    assert meta.history["kind"] == "behaviors"
    assert "brand" in meta.history["item"]


def test_every_unusable_row_is_counted_by_reason(source: Path, tmp_path: Path) -> None:
    meta, _ = _prepare(source, tmp_path / "store")
    assert meta.bad_rows == {
        "raw_sample.csv: user is no number": 1,
        "raw_sample.csv: adgroup_id is no number": 1,
        "raw_sample.csv: time_stamp is no number": 1,
        "raw_sample.csv: time_stamp is not positive": 1,
        "raw_sample.csv: time_stamp is out of range": 1,
        "raw_sample.csv: clk is not 0 or 1": 1,
        "raw_sample.csv: line with missing columns": 1,
        "ad_feature.csv: adgroup_id is no number": 1,
        "ad_feature.csv: adgroup_id is there twice": 1,
        "behavior_log.csv: user is no number": 1,
        "behavior_log.csv: time_stamp is no number": 1,
        "behavior_log.csv: time_stamp is not positive": 2,
        "behavior_log.csv: time_stamp is outside 2017-04-01 .. 2017-05-13": 2,
        "behavior_log.csv: cate is no number": 1,
        "behavior_log.csv: user has no impression here": 1,
        "raw_sample.csv: adgroup_id not in ad_feature.csv (kept, category unknown)": 1,
        "raw_sample.csv: user not in user_profile.csv (kept, without profile)": 3,
    }


def test_each_row_of_each_file_is_accounted_for(source: Path, tmp_path: Path) -> None:
    meta, _ = _prepare(source, tmp_path / "store")
    assert meta.reading is not None
    assert meta.reading.files == {
        "raw_sample.csv": FileAccount(rows=13, used=6, dropped=7),
        "ad_feature.csv": FileAccount(rows=5, used=3, dropped=2),
        "user_profile.csv": FileAccount(rows=1, used=1),
        "behavior_log.csv": FileAccount(rows=13, used=5, not_needed=1, dropped=7),
    }
    assert meta.behaviors == 5
    first = meta.reading.first_bad
    assert first["raw_sample.csv: user is no number"] == "'x'"
    assert first["raw_sample.csv: line with missing columns"].startswith("line 14: '3,1494000000,5")
    assert first["ad_feature.csv: adgroup_id is there twice"] == "'7'"


def test_blank_lines_and_several_line_ends_are_counted_apart(source: Path, tmp_path: Path) -> None:
    path = source / "user_profile.csv"
    path.write_bytes(USER_PROFILE.replace("\n", "\r\n").encode() + b"\r\n\r\n" + b"\r\n")
    meta, _ = _prepare(source, tmp_path / "store")
    assert meta.reading is not None
    assert meta.reading.files["user_profile.csv"] == FileAccount(rows=1, used=1, blank_lines=3)


def test_a_sample_of_users_leaves_rows_that_are_not_needed(generated: Path, tmp_path: Path) -> None:
    meta, _ = _prepare(generated, tmp_path / "store", sample_users=0.3, accept_loss=False)
    assert meta.reading is not None
    account = meta.reading.files["raw_sample.csv"]
    assert (account.rows, account.dropped) == (3000, 0)
    assert account.not_needed > 1500
    assert meta.reading.files["behavior_log.csv"].not_needed > 0


def test_many_dropped_rows_of_a_file_are_an_error_unless_accepted(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UsageError,
        match=r"raw_sample.csv: 7 of 13 rows \(54 %\) cannot be used: 1 x user is no number, such"
        r" as 'x'; .*--accept-loss continues",
    ):
        _prepare(source, tmp_path / "store", accept_loss=False)


def test_lines_that_the_reader_joins_are_an_error(source: Path, tmp_path: Path) -> None:
    path = source / "ad_feature.csv"
    path.write_bytes(AD_FEATURE.replace("\n", "\r").encode() + b"1,2,3,4,5,6\n")
    with pytest.raises(UsageError):
        _prepare(source, tmp_path / "store")


@given(
    st.lists(st.sampled_from(["a,b", "", "x", " "])),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 9),
)
def test_lines_are_counted_whatever_the_blocks(
    lines: list[str], end: str, ended: bool, block: int
) -> None:
    text = end.join(lines) + end * ended
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("ctrkit.ctr.data.ingest._COUNTED_BYTES", block)
        path = Path(folder, "a.csv")
        path.write_bytes(text.encode())
        pieces = text.encode().split(b"\n")
        full = sum(bool(piece.strip(b"\r")) for piece in pieces)
        assert count_lines(path) == (full, len(pieces) - 1 - full + bool(pieces[-1].strip(b"\r")))


def test_users_and_ads_keep_their_raw_ids_and_fields(source: Path, tmp_path: Path) -> None:
    _, store = _prepare(source, tmp_path / "store")
    users, ads = store.users(), store.ads()
    assert users is not None
    assert ads is not None
    assert users.select(["user", "userid", "age_level", "pvalue_level"]).to_pylist() == [
        {"user": 2, "userid": 3, "age_level": None, "pvalue_level": None},
        {"user": 3, "userid": 20, "age_level": 4, "pvalue_level": None},
    ]
    assert users["new_user_class_level"].to_pylist() == [None, 2]
    columns = ["item", "adgroup_id", "category", "brand", "price"]
    assert [tuple(row.values()) for row in ads.select(columns).to_pylist()] == [
        (2, 5, 3, None, 99999999.0),
        (3, 7, 2, 88, None),
        (4, 900, 1, None, None),
    ]


def test_impressions_as_history_need_no_log(source: Path, tmp_path: Path) -> None:
    (source / "behavior_log.csv").unlink()
    meta, store = _prepare(source, tmp_path / "store", history="impressions")
    assert meta.history["kind"] == "impressions"
    assert meta.vocabulary["history_item"] == meta.vocabulary["item"]
    assert meta.vocabulary["history_category"] == meta.vocabulary["category"] == 4
    # two ads of one page do not see each other, clicked or not; the next page sees both
    assert _history(store, 2) == _history(store, 3) == []
    assert _history(store, 4) == [(2, 3, DAY_1 + 3600), (3, 2, DAY_1 + 3600)]
    assert [event[2] for event in _history(store, 5)] == [DAY_1 + 10, DAY_8 - 1]


@pytest.mark.parametrize("header", ["new_user_class_level", " new_user_class_level  "])
def test_the_header_may_have_blanks_or_none(source: Path, tmp_path: Path, header: str) -> None:
    path = source / "user_profile.csv"
    path.write_text(USER_PROFILE.replace("new_user_class_level ", header))
    _, store = _prepare(source, tmp_path / "store")
    users = store.users()
    assert users is not None
    assert users["new_user_class_level"].to_pylist() == [None, 2]


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(source: Path, tmp_path: Path, file: str) -> None:
    (source / file).unlink()
    with pytest.raises(UsageError, match=rf"{file}: no such file"):
        _prepare(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("file", "column"),
    [(file, column) for file, columns in COLUMNS.items() for column in columns],
)
def test_a_misnamed_column_is_named(source: Path, tmp_path: Path, file: str, column: str) -> None:
    header, _, rows = FILES[file].partition("\n")
    names = [name if name.strip() != column else "other" for name in header.split(",")]
    (source / file).write_text(",".join(names) + "\n" + rows)
    with pytest.raises(UsageError, match=rf"{file}: no column '{column}'; its columns are .*other"):
        _prepare(source, tmp_path / "store")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_users": 0.0}, "--sample-users 0: must be above 0"),
        ({"sample_users": 1.5}, "--sample-users 1.5: must be above 0 and at most 1"),
        ({"history": "clicks"}, "--history clicks: unknown; choose behaviors or impressions"),
        ({"split": "user"}, "--split user: unknown; choose time or random"),
    ],
)
def test_wrong_options(source: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _prepare(source, tmp_path / "store", **options)


@pytest.mark.parametrize("kept", [DAY_1, DAY_8])
def test_a_time_split_with_an_empty_side(source: Path, tmp_path: Path, kept: int) -> None:
    header = RAW_SAMPLE.partition("\n")[0]
    (source / "raw_sample.csv").write_text(f"{header}\n3,{kept},5,p,1,0\n3,{kept + 1},5,p,1,0\n")
    with pytest.raises(UsageError, match="without rows; use --split random"):
        _prepare(source, tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]
    meta, _ = _prepare(source, tmp_path / "store", split="random")
    assert meta.rows == {"train": 1, "validation": 1}


def test_no_usable_row_says_why(source: Path, tmp_path: Path) -> None:
    header = RAW_SAMPLE.partition("\n")[0]
    (source / "raw_sample.csv").write_text(f"{header}\n3,0,5,p,1,0\n")
    with pytest.raises(UsageError, match="no usable row: 1 x .*time_stamp is not positive"):
        _prepare(source, tmp_path / "store")


class _Interrupt(Watcher):
    """Presses Ctrl-C when a stage begins; keeps what it is told."""

    def __init__(self, at: str = "") -> None:
        self.at = at
        self.states: dict[str, str] = {}
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, progress: StageProgress) -> None:
        self.states[progress.name] = progress.state
        if progress.name == self.at:
            raise KeyboardInterrupt


STAGES = [
    *(f"reading {file}" for file in FILES if file != "behavior_log.csv"),
    "numbering users and ads",
    "reading behavior_log.csv",
    "matching users",
    "numbering brands and categories",
    "joining",
    "users and ads",
    "histories",
    "train impressions",
    "validation impressions",
    "writing the store",
]


def test_what_was_finished_before_ctrl_c_is_not_done_again(source: Path, tmp_path: Path) -> None:
    whole, _ = _prepare(source, tmp_path / "whole")
    for number, name in enumerate(STAGES):
        interrupted = _Interrupt(name)
        with pytest.raises(KeyboardInterrupt):
            _prepare(source, tmp_path / "store", watcher=interrupted)
        states = ["skipped"] * (number - 1) + ["done"] * bool(number) + ["running"]
        assert interrupted.states == dict(zip(STAGES[: number + 1], states, strict=True))
        assert "the same command continues there" in interrupted.notes[-1]
    last = _Interrupt()
    meta, _ = _prepare(source, tmp_path / "store", watcher=last)
    assert list(last.states.values()) == ["skipped"] * (len(STAGES) - 1) + ["done"]
    assert replace(meta, created="") == replace(whole, created="")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "store", "whole"]


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def _strictly_before(events: Sequence[tuple[int, ...]], time_s: int) -> list[tuple[int, ...]]:
    return [event for event in events if event[0] < time_s]


def test_no_history_holds_anything_at_or_after_its_impression(
    generated: Path, tmp_path: Path
) -> None:
    """Every history of a generated set against a plain search through the CSV files."""
    meta, store = _prepare(generated, tmp_path / "store")
    ids = {
        "user": dict(zip(*(store.users()[c].to_pylist() for c in ("userid", "user")), strict=True)),
        "item": dict(
            zip(*(store.ads()[c].to_pylist() for c in ("adgroup_id", "item")), strict=True)
        ),
    }
    log: dict[int, list[tuple[int, ...]]] = {}
    usable = [
        (int(user), int(time_s), int(cate), int(brand))
        for user, time_s, _, cate, brand in _rows(generated / "behavior_log.csv")
        if LOG_BEGIN_S <= int(time_s) < LOG_END_S and int(user) in ids["user"]
    ]
    ads = {row[0]: row[1] for row in _rows(generated / "ad_feature.csv")}
    shown = _rows(generated / "raw_sample.csv")
    cates = {cate for _, _, cate, _ in usable} | {int(ads[r[2]]) for r in shown if r[2] in ads}
    cate_ids = {cate: number + 2 for number, cate in enumerate(sorted(cates))}
    brand_ids = {b: number + 2 for number, b in enumerate(sorted({row[3] for row in usable}))}
    for user, time_s, cate, brand in usable:
        log.setdefault(user, []).append((time_s, brand_ids[brand], cate_ids[cate]))
    wanted = []
    for user, time_s, ad, _, _, click in shown:
        category = cate_ids[int(ads[ad])] if ad in ads else 1
        row = (ids["user"][int(user)], int(time_s), ids["item"][int(ad)], category, int(click))
        before = sorted(_strictly_before(log.get(int(user), []), int(time_s)))
        wanted.append((int(time_s) >= VALIDATION_BEGIN_S, row, before))
    wanted.sort(key=lambda entry: entry[:2])
    assert len(wanted) == len(store.impressions) == 3000
    lengths = 0
    for number, (_, row, before) in enumerate(wanted):
        user, item, category, _, _, label, begin, end = map(int, store.impressions[number])
        assert (user, int(store.time_s[number]), item, category, label) == row
        assert (store.behavior_time_s[begin:end] < store.time_s[number]).all()
        history = [(t, i, c) for i, c, t in _history(store, number)]
        assert history == before
        lengths += len(before)
    assert lengths > 10_000
    assert meta.behaviors == len(usable)
    assert sum(not validation for validation, _, _ in wanted) == meta.rows["train"]


def test_the_store_does_not_depend_on_line_order_or_threads(
    generated: Path, tmp_path: Path
) -> None:
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    for file in generated.iterdir():
        header, *lines = file.read_text().splitlines(keepends=True)
        random.Random(1).shuffle(lines)
        (shuffled / file.name).write_text("".join([header, *lines]))
    options = {"split": "random", "sample_users": 0.5}
    first, _ = _prepare(generated, tmp_path / "first", threads=1, **options)
    second, _ = _prepare(shuffled, tmp_path / "second", threads=3, **options)
    assert first.fingerprint == second.fingerprint
    assert first.bad_rows == second.bad_rows


def test_random_split_is_seeded_and_14_of_17(generated: Path, tmp_path: Path) -> None:
    options = {"history": "impressions", "split": "random"}
    first, store = _prepare(generated, tmp_path / "first", **options)
    other, _ = _prepare(generated, tmp_path / "other", seed=43, **options)
    assert abs(first.rows["train"] - 3000 * 14 / 17) < 3
    assert first.fingerprint != other.fingerprint
    train, validation = np.split(store.time_s, [first.rows["train"]])
    assert validation.min() < DAY_1 + 86400 < DAY_8 < train.max()
    assert len(np.unique(store.impressions[first.rows["train"] :, 0])) > 50


def test_sampled_users_keep_all_their_rows(generated: Path, tmp_path: Path) -> None:
    def rows_of_users(store: Store) -> dict[int, int]:
        users = store.users()
        assert users is not None
        raw = dict(zip(users["user"].to_pylist(), users["userid"].to_pylist(), strict=True))
        found, counts = np.unique(store.impressions[:, 0], return_counts=True)
        return {raw[user]: count for user, count in zip(found.tolist(), counts, strict=True)}

    everyone = rows_of_users(_prepare(generated, tmp_path / "all", sample_users=1.0)[1])
    half = rows_of_users(_prepare(generated, tmp_path / "half", sample_users=0.5)[1])
    third = rows_of_users(_prepare(generated, tmp_path / "third", sample_users=0.3)[1])
    assert third.items() <= half.items() <= everyone.items()
    assert 0.35 < len(half) / len(everyone) < 0.65


@pytest.mark.skipif(not REAL_SAMPLE.is_dir(), reason="the real rows may not be shipped")
def test_real_rows(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use --split random"):
        _prepare(REAL_SAMPLE, tmp_path / "store", history="impressions")
    meta, store = _prepare(REAL_SAMPLE, tmp_path / "store", history="impressions", split="random")
    assert meta.rows == {"train": 86, "validation": 19}
    assert store.impressions[:, 5].sum() == 4
    assert meta.vocabulary["item"] == 99 + 2
    assert meta.vocabulary["user"] == 24 + 2
    assert meta.bad_rows == {}
    ads = store.ads()
    assert ads is not None
    assert ads["brand"].null_count > 0
    assert ads["price"].null_count == 0
    assert (store.impressions[:, 2] > 1).all()
