"""Generates the synthetic data set as a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ctrkit.ctr.auc import auc
from ctrkit.ctr.data.builder import StoreBuilder, output_folder
from ctrkit.ctr.data.planted import (
    REFERENCE,
    Impressions,
    Scale,
    World,
    behavior_chunks,
    beijing_hour_weekday,
    check_scale,
    draw_impressions,
    make_world,
)
from ctrkit.ctr.data.sidetables import NEW_USER_CLASS, ad_features, user_profiles
from ctrkit.ctr.data.store import FIRST_REAL_ID, UNKNOWN_ID, Int32Array, Int64Array, StoreMeta

if TYPE_CHECKING:
    import pyarrow as pa

#: increase it whenever a seed generates something else
GENERATOR_VERSION = 1

OnProgress = Callable[[str, float], None]
"""`on_progress("behaviours", 0.4)`: what is being done, and the share of the whole done so far."""


def generate_store(
    out: Path,
    *,
    rows: int = REFERENCE.rows,
    users: int = REFERENCE.users,
    items: int = REFERENCE.items,
    seed: int = 42,
    on_progress: OnProgress | None = None,
) -> StoreMeta:
    """Generate a store; equal arguments give equal stores.

    A vocabulary's table has two rows more than real ids (padding and unknown). Users without a
    profile and items without an ad row are unknown in the impressions, but keep their histories.

    Args:
        out: the store's folder, missing or empty.
        rows: impressions; 225,446 of 1,277,527 lie on day 8 and are for validation.
        users: number of real user ids.
        items: number of real item ids; there are 5,480 categories for 335,164 items.
        seed: 0 or more.
        on_progress: called now and then.

    Raises:
        UsageError: a size is out of range, or the folder is not empty or cannot be written.
    """
    scale = Scale(rows=rows, users=users, items=items)
    check_scale(scale, seed)
    tell = on_progress or (lambda _text, _share: None)
    with output_folder(out) as aside, StoreBuilder(aside) as builder:
        tell("users and items", 0.0)
        world = make_world(scale, seed)
        tell("impressions", 0.05)
        impressions = draw_impressions(world)
        begin, end = _add_behaviors(builder, world, impressions, tell)
        tell("store", 0.85)
        _add_impressions(builder, world, impressions, begin, end)
        builder.add_users(_user_table(world))
        builder.add_ads(_ad_table(world))
        tell("oracle", 0.92)
        oracle = _oracle_auc(scale, impressions)
        meta = _finish(builder, world, impressions, oracle)
    tell("done", 1.0)
    return meta


def _add_behaviors(
    builder: StoreBuilder, world: World, impressions: Impressions, tell: OnProgress
) -> tuple[Int64Array, Int64Array]:
    """Write all behaviours; returns the bounds (rows,) of each impression's history."""
    by_user = np.argsort(impressions.user, kind="stable")
    user_sorted = impressions.user[by_user]
    begin = np.zeros(len(by_user), np.int64)
    end = np.zeros(len(by_user), np.int64)
    written = 0
    for chunk in behavior_chunks(world):
        low, high = np.searchsorted(user_sorted, (chunk.first_user, chunk.end_user))
        mine = by_user[low:high]
        begin[mine] = written + chunk.begin[impressions.user[mine] - chunk.first_user]
        end[mine] = written + chunk.events_before(impressions.user[mine], impressions.time_s[mine])
        item = _known_ids(chunk.item, world.scale.items)
        builder.add_behaviors(item, chunk.category + FIRST_REAL_ID, chunk.time_s)
        written += len(item)
        tell("behaviours", 0.2 + 0.6 * chunk.end_user / len(world.events))
    return begin, end


def _known_ids(index: Int32Array, known: int) -> Int32Array:
    """Ids as a store has them: from 2 on, and unknown (1) for those without a row of their own."""
    return np.where(index < known, index + FIRST_REAL_ID, UNKNOWN_ID).astype(np.int32)


def _add_impressions(
    builder: StoreBuilder,
    world: World,
    impressions: Impressions,
    begin: Int64Array,
    end: Int64Array,
) -> None:
    item = _known_ids(impressions.item, world.scale.items)
    category = world.item_category[impressions.item] + FIRST_REAL_ID
    hour, weekday = beijing_hour_weekday(impressions.time_s)
    packed = np.empty((len(item), 8), np.int32)
    packed[:, 0] = _known_ids(impressions.user, world.scale.users)
    packed[:, 1] = item
    # The category comes from the ad's row, so an ad without a row has no known category.
    packed[:, 2] = np.where(item == UNKNOWN_ID, UNKNOWN_ID, category)
    packed[:, 3] = hour
    packed[:, 4] = weekday
    packed[:, 5] = impressions.label
    packed[:, 6] = begin
    packed[:, 7] = end
    builder.add_impressions(packed, impressions.time_s)


def _user_table(world: World) -> pa.Table:
    import pyarrow as pa

    columns = user_profiles(world)
    columns[NEW_USER_CLASS.strip()] = columns.pop(NEW_USER_CLASS)
    user = np.arange(world.scale.users, dtype=np.int32) + FIRST_REAL_ID
    return pa.table({"user": user, **columns})


def _ad_table(world: World) -> pa.Table:
    import pyarrow as pa

    item = np.arange(world.scale.items, dtype=np.int32) + FIRST_REAL_ID
    category = world.item_category[: world.scale.items] + FIRST_REAL_ID
    return pa.table({"item": item, "category": category, **ad_features(world)})


def _oracle_auc(scale: Scale, impressions: Impressions) -> dict[str, float]:
    """AUC of the true click probability per split; a split with a single class has none."""
    found = {}
    for split, part in (
        ("train", slice(0, scale.train_rows)),
        ("validation", slice(scale.train_rows, None)),
    ):
        label = impressions.label[part]
        if label.any() and not label.all():
            found[split] = auc(label, impressions.probability[part])
    return found


def _finish(
    builder: StoreBuilder, world: World, impressions: Impressions, oracle: dict[str, float]
) -> StoreMeta:
    scale = world.scale
    no_profile = impressions.user >= scale.users
    no_ad = impressions.item >= scale.items
    return builder.finish(
        name="generated",
        source=f"ctrkit generator, version {GENERATOR_VERSION}",
        vocabulary={
            "item": scale.items + FIRST_REAL_ID,
            "category": scale.categories + FIRST_REAL_ID,
            "user": scale.users + FIRST_REAL_ID,
            "history_item": scale.items + FIRST_REAL_ID,
            "history_category": scale.categories + FIRST_REAL_ID,
        },
        rows={"train": scale.train_rows, "validation": scale.validation_rows},
        split="time",
        split_detail="days 1-7 (2017-05-06 .. 05-12, Beijing) train, day 8 validation",
        history={"kind": "behaviors", "item": "item"},
        bad_rows={
            "impression without a user profile, user set to unknown": int(no_profile.sum()),
            "impression without an ad row, item and category set to unknown": int(no_ad.sum()),
        },
        oracle_auc=oracle,
        seed=world.seed,
    )
