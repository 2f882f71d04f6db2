from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.planted import (
    FIRST_DAY_S,
    REFERENCE,
    VALIDATION_DAY_S,
    Scale,
    behavior_chunks,
    beijing_hour_weekday,
    draw_impressions,
    make_world,
    random_generator,
    zipf_rank,
)
from ctrkit.ctr.data.store import IMPRESSION_COLUMNS, Store
from ctrkit.ctr.data.synthetic import generate_store

ROWS = 20_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out: Path = tmp_path_factory.mktemp("synthetic") / "store"
    generate_store(out, rows=ROWS, users=1000, items=2000, seed=42)
    return Store.open(out)


def column(store: Store, name: str) -> np.ndarray:
    return store.impressions[:, IMPRESSION_COLUMNS.index(name)]


def test_reference_scale() -> None:
    assert (REFERENCE.train_rows, REFERENCE.validation_rows) == (1_052_081, 225_446)
    assert (REFERENCE.items, REFERENCE.categories, REFERENCE.users) == (335_164, 5_480, 577_482)


def test_sizes(store: Store) -> None:
    scale = Scale(rows=ROWS, users=1000, items=2000)
    meta = store.meta
    assert meta.rows == {"train": scale.train_rows, "validation": scale.validation_rows}
    assert scale.validation_rows / ROWS == pytest.approx(225_446 / 1_277_527, abs=1e-4)
    categories = scale.categories + 2
    assert meta.vocabulary == {
        "item": 2002,
        "category": categories,
        "user": 1002,
        "history_item": 2002,
        "history_category": categories,
    }
    users, ads = store.users(), store.ads()
    assert users is not None
    assert ads is not None
    assert users.num_rows == 1000
    assert ads.num_rows == 2000
    assert "new_user_class_level" in users.column_names


def test_split_is_day_8(store: Store) -> None:
    train, validation = (store.time_s[store.rows(s)] for s in ("train", "validation"))
    assert train.min() >= FIRST_DAY_S
    assert train.max() < VALIDATION_DAY_S <= validation.min()
    assert validation.max() < VALIDATION_DAY_S + 86_400


def test_hour_and_weekday_are_beijings(store: Store) -> None:
    hours, weekdays = beijing_hour_weekday(store.time_s)
    np.testing.assert_array_equal(column(store, "hour"), hours)
    np.testing.assert_array_equal(column(store, "weekday"), weekdays)
    for index in range(0, ROWS, 997):
        there = datetime.fromtimestamp(int(store.time_s[index]), ZoneInfo("Asia/Shanghai"))
        assert (hours[index], weekdays[index]) == (there.hour, there.weekday())


def test_no_history_holds_anything_at_or_after_its_impression(store: Store) -> None:
    begin, end = column(store, "history_begin"), column(store, "history_end")
    before = end > begin
    assert before.mean() > 0.8
    # by user, then by time: the last event of a history is its newest, and slices ascend
    assert (store.behavior_time_s[end[before] - 1] < store.time_s[before]).all()
    for low, high in zip(begin[before][:500], end[before][:500], strict=True):
        assert (np.diff(store.behavior_time_s[low:high]) >= 0).all()


def test_a_history_holds_all_that_its_user_did_before() -> None:
    scale = Scale(rows=3000, users=150, items=100)
    world = make_world(scale, 7)
    impressions = draw_impressions(world)
    (chunk,) = behavior_chunks(world)
    before = (
        chunk.events_before(impressions.user, impressions.time_s) - chunk.begin[impressions.user]
    )
    user, time_s = chunk.user, chunk.time_s
    for index in range(0, 3000, 7):
        mine = user == impressions.user[index]
        assert before[index] == (time_s[mine] < impressions.time_s[index]).sum()


def test_an_event_in_the_second_of_the_impression_is_not_before_it() -> None:
    world = make_world(Scale(rows=100, users=50, items=50), 1)
    chunk = next(behavior_chunks(world))
    user, time_s = chunk.user.astype(np.int32), chunk.time_s
    at = chunk.events_before(user, time_s)
    just_after = chunk.events_before(user, time_s + 1)
    same = np.array(
        [((user == u) & (time_s == t)).sum() for u, t in zip(user, time_s, strict=True)]
    )
    np.testing.assert_array_equal(just_after - at, same)
    assert same.max() > 1, "the log holds several events of a user in one second"


def test_looks_like_the_real_data(store: Store) -> None:
    for split, ctr in store.meta.ctr.items():
        assert 0.035 < ctr < 0.07, split
    lengths = np.minimum(column(store, "history_end") - column(store, "history_begin"), 50)
    assert 18 < lengths.mean() < 28
    assert (lengths == 50).any()
    assert 0.04 < (lengths == 0).mean() < 0.16
    unknown = (column(store, "user") == 1) | (column(store, "item") == 1)
    assert 0.02 < unknown.mean() < 0.1
    told = sum(store.meta.bad_rows.values())
    both = ((column(store, "user") == 1) & (column(store, "item") == 1)).sum()
    assert unknown.sum() == told - both
    np.testing.assert_array_equal(column(store, "item") == 1, column(store, "category") == 1)


def test_unknown_users_keep_their_histories(store: Store) -> None:
    unknown = column(store, "user") == 1
    assert (column(store, "history_end") > column(store, "history_begin"))[unknown].any()


def test_ids_are_zipf(store: Store) -> None:
    for name in ("user", "item", "category"):
        counts = np.sort(np.bincount(column(store, name)))[::-1]
        tenth = max(1, np.count_nonzero(counts) // 10)
        assert counts[:tenth].sum() > 0.2 * ROWS, name


def test_the_oracle_is_learnable_and_exact(store: Store) -> None:
    from sklearn.metrics import roc_auc_score

    impressions = draw_impressions(make_world(Scale(rows=ROWS, users=1000, items=2000), 42))
    np.testing.assert_array_equal(impressions.label, column(store, "label"))
    for split in ("train", "validation"):
        part = list(store.rows(split))
        auc = roc_auc_score(impressions.label[part], impressions.probability[part])
        assert store.meta.oracle_auc[split] == pytest.approx(auc)
        assert auc > 0.7
    # calibrated: clicks come with the probabilities that are told
    assert impressions.probability.mean() == pytest.approx(0.0514, abs=1e-4)


def test_clicks_prefer_preferred_categories_and_histories_show_them() -> None:
    world = make_world(Scale(rows=60_000, users=500, items=500), 5)
    impressions = draw_impressions(world)
    category = world.item_category[impressions.item]
    liked = (world.preferred[impressions.user] == category[:, None]).any(axis=1)
    # against the category alone: the mean click rate of each category, liked and not
    rate = [np.bincount(category[part], impressions.label[part], world.scale.categories)
            / np.maximum(1, np.bincount(category[part], minlength=world.scale.categories))
            for part in (liked, ~liked)]  # fmt: skip
    shown = np.bincount(category[liked], minlength=world.scale.categories)
    assert np.average(rate[0], weights=shown) > 1.3 * np.average(rate[1], weights=shown)
    (chunk,) = behavior_chunks(world)
    in_log = (world.preferred[chunk.user] == chunk.category[:, None]).any(axis=1)
    assert in_log.mean() > 0.75


def test_equal_seeds_give_equal_stores_others_do_not(tmp_path: Path) -> None:
    def fingerprint(name: str, seed: int) -> str:
        return generate_store(tmp_path / name, rows=200, users=20, items=30, seed=seed).fingerprint

    assert fingerprint("a", 1) == fingerprint("b", 1)
    assert fingerprint("c", 2) != fingerprint("d", 1)


def test_progress_ascends_to_one(tmp_path: Path) -> None:
    told: list[tuple[str, float]] = []
    generate_store(
        tmp_path / "s", rows=50, users=5, items=5, on_progress=lambda *said: told.append(said)
    )
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert told[-1] == ("done", 1.0)


@pytest.mark.parametrize(
    ("size", "option"),
    [({"rows": 9}, "--rows"), ({"users": 0}, "--users"), ({"items": -1}, "--items"),
     ({"seed": -1}, "--seed")],
)  # fmt: skip
def test_sizes_out_of_range(tmp_path: Path, size: dict[str, int], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        generate_store(tmp_path / "s", **({"rows": 50, "users": 5, "items": 5} | size))
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_store_can_be_opened(tmp_path: Path) -> None:
    meta = generate_store(tmp_path / "s", rows=10, users=1, items=1)
    assert sum(meta.rows.values()) == 10
    assert Store.open(tmp_path / "s").meta == meta


def test_zipf_ranks_follow_the_power_law() -> None:
    rank = zipf_rank(random_generator(1, "test"), 1000, 200_000, 0.9)
    assert rank.min() == 0
    assert rank.max() == 999
    counts = np.bincount(rank, minlength=1000)
    # the integral of x^-0.9 over [1, 2] and over [100, 101]
    expected = [(b**0.1 - a**0.1) / (1001**0.1 - 1) for a, b in ((1, 2), (100, 101))]
    assert counts[0] / 200_000 == pytest.approx(expected[0], rel=0.05)
    assert counts[99] / 200_000 == pytest.approx(expected[1], rel=0.2)
