from __future__ import annotations

import json
import pickle
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.builder import StoreBuilder, output_folder
from ctrkit.ctr.data.store import Store, StoreMeta

VOCABULARY = {"user": 4, "item": 5, "category": 4, "history_item": 6, "history_category": 4}
ROWS = np.array(
    # user item category hour weekday label begin end
    [
        [2, 2, 2, 0, 5, 1, 0, 0],
        [2, 3, 2, 1, 5, 0, 0, 2],
        [3, 4, 3, 2, 6, 0, 3, 5],
        [1, 1, 1, 3, 6, 1, 5, 5],
    ],
    np.int32,
)
TIMES = np.array([10, 20, 30, 40], np.int32)
BEHAVIORS = ([2, 3, 4, 5, 2], [2, 2, 3, 3, 3], [11, 12, 25, 5, 6])


def build(
    out: Path, *, cuts: tuple[int, ...] = (), behaviors: Any = BEHAVIORS, **changes: Any
) -> StoreMeta:
    fields: dict[str, Any] = {
        "name": "tiny",
        "source": "test",
        "vocabulary": VOCABULARY,
        "rows": {"train": 3, "validation": 1},
        "split": "time",
        "split_detail": "by hand",
        "history": {"kind": "behaviors", "item": "item"},
    }
    impressions = changes.pop("impressions", ROWS)
    with output_folder(out) as aside, StoreBuilder(aside) as builder:
        builder.add_behaviors(*behaviors)
        bounds = (0, *cuts, len(impressions))
        for low, high in pairwise(bounds):
            builder.add_impressions(impressions[low:high], TIMES[low:high])
        return builder.finish(**(fields | changes))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    build(tmp_path / "store")
    return Store.open(tmp_path / "store")


def test_what_was_added_comes_back(store: Store) -> None:
    np.testing.assert_array_equal(store.impressions, ROWS)
    np.testing.assert_array_equal(store.time_s, TIMES)
    np.testing.assert_array_equal(store.behavior_item, BEHAVIORS[0])
    np.testing.assert_array_equal(store.behavior_category, BEHAVIORS[1])
    np.testing.assert_array_equal(store.behavior_time_s, BEHAVIORS[2])
    assert store.rows("train") == range(3)
    assert store.rows("validation") == range(3, 4)
    assert store.users() is None
    assert store.ads() is None


def test_arrays_are_views_of_the_files_and_cannot_be_written(store: Store) -> None:
    for array in (store.impressions, store.time_s, store.behavior_item, store.behavior_time_s):
        assert array.dtype == np.int32
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_statistics_are_of_what_was_added(store: Store) -> None:
    meta = store.meta
    assert meta.behaviors == 5
    assert meta.ctr == {"train": pytest.approx(1 / 3), "validation": 1.0}
    lengths = meta.history_length_stats
    assert lengths == {"mean": 1.0, "p50": 0.0, "p90": 2.0, "max": 2.0, "empty_share": 0.5}


def test_percentiles_agree_with_numpy(tmp_path: Path) -> None:
    lengths = np.random.default_rng(1).integers(0, 60, 997)
    rows = np.zeros((997, 8), np.int32)
    rows[:, 7] = lengths
    out = tmp_path / "store"
    with output_folder(out) as aside, StoreBuilder(aside) as builder:
        builder.add_behaviors(*np.full((3, 60), 2))
        builder.add_impressions(rows, np.zeros(997))
        meta = builder.finish(
            name="", source="", vocabulary=VOCABULARY, rows={"train": 997, "validation": 0},
            split="time", split_detail="", history={},
        )  # fmt: skip
    stats = meta.history_length_stats
    assert stats["mean"] == pytest.approx(lengths.mean())
    for name, share in (("p50", 0.5), ("p90", 0.9)):
        assert stats[name] == np.quantile(lengths, share, method="inverted_cdf")
    assert stats["max"] == lengths.max()
    assert meta.ctr == {"train": 0.0, "validation": 0.0}


def test_fingerprint_depends_on_content_not_on_chunks(tmp_path: Path) -> None:
    first = build(tmp_path / "a").fingerprint
    assert build(tmp_path / "b", cuts=(1, 3)).fingerprint == first
    other = ROWS.copy()
    other[2, 5] = 1
    assert build(tmp_path / "c", impressions=other).fingerprint != first
    changed = build(tmp_path / "d", rows={"train": 2, "validation": 2})
    assert changed.fingerprint != first
    moved = (BEHAVIORS[0], BEHAVIORS[1], [11, 12, 25, 5, 7])
    assert build(tmp_path / "e", behaviors=moved).fingerprint != first


def test_side_tables(tmp_path: Path) -> None:
    with output_folder(tmp_path / "s") as aside, StoreBuilder(aside) as builder:
        builder.add_behaviors(*BEHAVIORS)
        builder.add_impressions(ROWS, TIMES)
        builder.add_users(pa.table({"user": [2, 3], "age": [None, 4]}))
        builder.add_ads(pa.table({"item": [2], "price": [1.5]}))
        builder.finish(
            name="", source="", vocabulary=VOCABULARY, rows={"train": 4, "validation": 0},
            split="time", split_detail="", history={},
        )  # fmt: skip
    store = Store.open(tmp_path / "s")
    users, ads = store.users(), store.ads()
    assert users is not None
    assert ads is not None
    assert users.to_pydict() == {"user": [2, 3], "age": [None, 4]}
    assert ads.to_pydict() == {"item": [2], "price": [1.5]}


def test_a_store_without_behaviors_and_without_validation(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[:, 6:] = 0
    sizes = {"train": 4, "validation": 0}
    build(tmp_path / "s", impressions=rows, behaviors=([], [], []), rows=sizes)
    store = Store.open(tmp_path / "s")
    assert len(store.behavior_item) == 0
    assert len(store.rows("validation")) == 0


def test_pickles_as_its_path(store: Store) -> None:
    assert len(pickle.dumps(store)) < 1000
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.impressions, store.impressions)
    assert again.path.is_absolute()


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, 4, "user: values"),
        (1, -1, "item: values"),
        (2, 4, "category: values"),
        (3, 24, "hour: values"),
        (4, 7, "weekday: values"),
        (5, 2, "label: values"),
        (7, 6, "history_end: values"),
        (6, 1, "ends before it begins"),
    ],
)
def test_values_out_of_range_are_refused(
    tmp_path: Path, column: int, value: int, words: str
) -> None:
    rows = ROWS.copy()
    rows[0, column] = value
    with pytest.raises(ValueError, match=words):
        build(tmp_path / "store", impressions=rows)
    assert list(tmp_path.iterdir()) == []


def test_a_count_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 were added, but 5 are told of"):
        build(tmp_path / "store", rows={"train": 4, "validation": 1})
    with pytest.raises(ValueError, match="do not fit into int32"):
        build(tmp_path / "store", behaviors=([2], [2], [2**31]))
    with pytest.raises(ValueError, match="differ in length"):
        build(tmp_path / "store", behaviors=([2, 3], [2], [1]))


def test_a_build_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    whole = build(tmp_path / "whole")
    with output_folder(tmp_path / "store") as aside:
        with StoreBuilder(aside) as builder:
            builder.add_behaviors(*BEHAVIORS)
            builder.add_impressions(ROWS[:2], TIMES[:2])
            saved = builder.save()
            builder.add_impressions(ROWS[:1], TIMES[:1])  # lost: it was not saved
        assert saved == {"impressions": 2, "behaviors": len(BEHAVIORS[0])}
        with StoreBuilder(aside, keep=saved) as builder:
            assert builder.behavior_times().tolist() == list(BEHAVIORS[2])
            builder.add_impressions(ROWS[2:], TIMES[2:])
            meta = builder.finish(
                name="", source="", vocabulary=VOCABULARY, rows={"train": 3, "validation": 1},
                split="time", split_detail="", history={},
            )  # fmt: skip
    assert meta.fingerprint == whole.fingerprint
    assert not list((tmp_path / "store").glob("*.part"))


def test_a_file_that_lost_what_was_saved_is_not_gone_on_with(tmp_path: Path) -> None:
    with StoreBuilder(tmp_path) as builder:
        builder.add_behaviors(*BEHAVIORS)
        saved = builder.save()
    (tmp_path / "behavior_time_s.part").write_bytes(b"1234")
    with pytest.raises(UsageError, match=r"behavior_time_s.part: shorter than it was"):
        StoreBuilder(tmp_path, keep=saved)


def test_an_interrupted_build_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with output_folder(tmp_path / "out") as aside, StoreBuilder(aside) as builder:
            builder.add_behaviors(*BEHAVIORS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_output_folder_must_be_new_or_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        build(tmp_path / "file")
    with pytest.raises(UsageError, match="not empty"):
        build(tmp_path)
    with pytest.raises(UsageError, match="cannot be written"):
        build(tmp_path / "file" / "below")
    (tmp_path / "empty").mkdir()
    build(tmp_path / "empty")
    assert Store.open(tmp_path / "empty").meta.name == "tiny"


def error_of(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        Store.open(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_store(tmp_path: Path) -> None:
    assert "no such folder" in error_of(tmp_path / "missing")
    assert "no meta.json" in error_of(tmp_path)


def test_other_schema_version(store: Store) -> None:
    change_meta(store.path, schema_version=99)
    assert "schema version 99, but this ctrkit reads version 1" in error_of(store.path)


def test_damaged_meta(store: Store) -> None:
    change_meta(store.path, rows={"train": 4})
    assert "rows lacks 'validation'" in error_of(store.path)
    (store.path / "meta.json").write_text("[]")
    assert "not the description of a store" in error_of(store.path)
    (store.path / "meta.json").write_text("{")
    assert "cannot be read" in error_of(store.path)


def change_meta(path: Path, **changes: Any) -> None:
    values = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(values | changes))


@pytest.mark.parametrize("file", ["impressions.arrow", "behaviors.arrow"])
def test_missing_or_truncated_arrow_file(store: Store, tmp_path: Path, file: str) -> None:
    whole = (store.path / file).read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 1):
        copy = tmp_path / f"copy-{size}"
        shutil.copytree(store.path, copy)
        (copy / file).write_bytes(whole[:size])
        message = error_of(copy)
        assert file in message
        assert "truncated or damaged" in message
    (copy / file).unlink()
    assert f"{file}: missing from the store" in error_of(copy)


def test_sizes_that_do_not_fit(store: Store) -> None:
    change_meta(store.path, behaviors=6)
    assert "meta.json says (6,)" in error_of(store.path)
    change_meta(store.path, behaviors=5, rows={"train": 3, "validation": 2})
    assert "meta.json says (5, 8)" in error_of(store.path)


def test_another_arrow_file_in_its_place(store: Store) -> None:
    shutil.copy(store.path / "behaviors.arrow", store.path / "impressions.arrow")
    assert "truncated or damaged" in error_of(store.path)


def test_truncated_side_table(store: Store) -> None:
    (store.path / "users.arrow").write_bytes(b"ARROW1")
    with pytest.raises(UsageError, match="users.arrow: truncated"):
        store.users()
