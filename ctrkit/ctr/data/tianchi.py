"""Writes the generated data set as the four Tianchi CSV files, as dirty as the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ctrkit.ctr.data.builder import output_folder
from ctrkit.ctr.data.planted import (
    REFERENCE,
    Impressions,
    Scale,
    World,
    behavior_chunks,
    check_scale,
    draw_impressions,
    make_world,
    random_generator,
)
from ctrkit.ctr.data.sidetables import NEW_USER_CLASS, ad_features, brands, user_profiles
from ctrkit.ctr.data.synthetic import OnProgress
from ctrkit.ctr.data.tianchi_files import (
    AD_FEATURE,
    BEHAVIOR_LOG,
    COLUMNS,
    RAW_SAMPLE,
    USER_PROFILE,
)

if TYPE_CHECKING:
    import pyarrow as pa

#: columns as published, with a space at the end of the last one
_PROFILE_COLUMNS = (*COLUMNS[USER_PROFILE][:-1], NEW_USER_CLASS)
_PLACES = ("430548_1007", "430539_1007")
_KINDS, _KIND_SHARES = ("pv", "cart", "fav", "buy"), (0.953, 0.022, 0.013, 0.012)
#: impossible log times: zero, negative, long before the log, years ahead (also past 2^31)
_IMPOSSIBLE_TIMES_S = (0, -1, -28_800, 631_152_000, 1_893_456_000, 4_102_444_800)
_IMPOSSIBLE = 0.002
_TWICE = 0.002
_ROWS_PER_CHUNK = 1 << 18


def generate_tianchi(
    out: Path,
    *,
    rows: int = REFERENCE.rows,
    users: int = REFERENCE.users,
    items: int = REFERENCE.items,
    behaviors: int | None = None,
    seed: int = 42,
    on_progress: OnProgress | None = None,
) -> None:
    """Write `raw_sample.csv`, `ad_feature.csv`, `user_profile.csv` and `behavior_log.csv`.

    Users, ads, impressions and clicks are those of `generate_store` with the same arguments; the
    raw ids are other numbers, and a behaviour shows its category and brand, never its item. The
    dirt: a missing brand is the literal NULL or empty, a few prices are 99999999, about 5 % of the
    impressions have no profile or no ad row, some log times are not positive or out of range, some
    log rows occur twice, and one header ends in a space.

    Args:
        out: the folder, missing or empty.
        rows: impressions.
        users: rows of `user_profile.csv`.
        items: rows of `ad_feature.csv`.
        behaviors: approximate number of rows of `behavior_log.csv`; None: as many per user as the
            reference.
        seed: 0 or more.
        on_progress: called now and then.

    Raises:
        UsageError: a size is out of range, or the folder is not empty or cannot be written.
    """
    scale = Scale(rows=rows, users=users, items=items, behaviors=behaviors)
    check_scale(scale, seed)
    tell = on_progress or (lambda _text, _share: None)
    with output_folder(out) as aside:
        tell("users and items", 0.0)
        world = make_world(scale, seed)
        _write_users(aside / USER_PROFILE, world)
        _write_ads(aside / AD_FEATURE, world)
        tell("impressions", 0.1)
        _write_impressions(aside / RAW_SAMPLE, world, draw_impressions(world))
        tell("behaviours", 0.25)
        _write_behaviors(aside / BEHAVIOR_LOG, world, tell)
    tell("done", 1.0)


class _CsvFile:
    """A CSV file, written in chunks and without quotes, like the real ones."""

    def __init__(self, file: Any, columns: Sequence[str]) -> None:
        self._file = file
        self._columns = columns
        file.write((",".join(columns) + "\n").encode())

    def write(self, columns: Mapping[str, Any]) -> None:
        """Append rows; the keys are the file's columns."""
        import pyarrow as pa
        from pyarrow import csv

        table = pa.table({name: columns[name] for name in self._columns})
        options = csv.WriteOptions(include_header=False, quoting_style="none")
        csv.write_csv(table, self._file, options)


@contextmanager
def _csv_file(path: Path, columns: Sequence[str]) -> Iterator[_CsvFile]:
    with path.open("wb") as file:
        yield _CsvFile(file, columns)


def _texts(values: tuple[str, ...], index: Any) -> pa.Array:
    """The strings at an index array."""
    import pyarrow as pa

    return pa.array(values).take(pa.array(index))


def _write_users(path: Path, world: World) -> None:
    with _csv_file(path, _PROFILE_COLUMNS) as file:
        file.write({"userid": np.arange(world.scale.users) + 1, **user_profiles(world)})


def _write_ads(path: Path, world: World) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    random = random_generator(world.seed, "missing brands")
    items = world.scale.items
    features = ad_features(world)
    # Most missing brands are the word NULL, the others an empty field.
    missing = pa.array(np.where(random.random(items) < 0.9, "NULL", ""))
    features["brand"] = pc.coalesce(features["brand"].cast(pa.string()), missing)
    with _csv_file(path, COLUMNS[AD_FEATURE]) as file:
        file.write(
            {
                "adgroup_id": np.arange(items) + 1,
                "cate_id": world.item_category[:items] + 1,
                **features,
            }
        )


def _write_impressions(path: Path, world: World, impressions: Impressions) -> None:
    random = random_generator(world.seed, "places")
    with _csv_file(path, COLUMNS[RAW_SAMPLE]) as file:
        for start in range(0, len(impressions.user), _ROWS_PER_CHUNK):
            part = slice(start, start + _ROWS_PER_CHUNK)
            label = impressions.label[part]
            file.write(
                {
                    "user": impressions.user[part] + 1,
                    "time_stamp": impressions.time_s[part],
                    "adgroup_id": impressions.item[part] + 1,
                    "pid": _texts(_PLACES, random.integers(0, 2, len(label))),
                    "nonclk": 1 - label,
                    "clk": label,
                }
            )


def _write_behaviors(path: Path, world: World, tell: OnProgress) -> None:
    random = random_generator(world.seed, "log")
    brand = brands(world)
    with _csv_file(path, COLUMNS[BEHAVIOR_LOG]) as file:
        for chunk in behavior_chunks(world):
            count = len(chunk.key)
            # The real log has no order, and some of its rows occur twice.
            twice = np.flatnonzero(random.random(count) < _TWICE)
            order = random.permutation(np.concatenate([np.arange(count), twice]))
            time_s = chunk.time_s.astype(np.int64)[order]
            impossible = random.random(len(order)) < _IMPOSSIBLE
            time_s[impossible] = random.choice(_IMPOSSIBLE_TIMES_S, int(impossible.sum()))
            kind = random.choice(len(_KINDS), len(order), p=_KIND_SHARES)
            file.write(
                {
                    "user": chunk.user[order] + 1,
                    "time_stamp": time_s,
                    "btag": _texts(_KINDS, kind),
                    "cate": chunk.category[order] + 1,
                    "brand": brand[chunk.item[order]],
                }
            )
            tell("behaviours", 0.25 + 0.7 * chunk.end_user / len(world.events))
