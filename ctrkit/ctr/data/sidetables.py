"""Generates user profiles and ads, with the gaps and outliers of the real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctrkit.ctr.data.planted import World, random_generator

if TYPE_CHECKING:
    import pyarrow as pa

#: the column of Tianchi's `user_profile.csv` whose name ends in a space
NEW_USER_CLASS = "new_user_class_level "
HIGHEST_PRICE = 99_999_999.0


def brands(world: World) -> npt.NDArray[np.int64]:
    """A brand per item, counted from 1; four neighbours of one category share a brand."""
    brand = np.empty(len(world.item_category), np.int64)
    brand[world.items_by_category] = np.arange(len(brand)) // 4 + 1
    return brand


def user_profiles(world: World) -> dict[str, pa.Array]:
    """Columns of the users with a profile, in order of their ids.

    As in the real data, about half of `pvalue_level` and a third of the last column are empty.
    """
    import pyarrow as pa

    random = random_generator(world.seed, "profiles")
    users = world.scale.users

    def level(low: int, high: int, empty: float = 0.0) -> pa.Array:
        values = random.integers(low, high + 1, users).astype(np.int16)
        return pa.array(values, mask=random.random(users) < empty)

    return {
        "cms_segid": level(0, 96),
        "cms_group_id": level(0, 12),
        "final_gender_code": level(1, 2),
        "age_level": level(0, 6),
        "pvalue_level": level(1, 3, empty=0.54),
        "shopping_level": level(1, 3),
        "occupation": level(0, 1),
        NEW_USER_CLASS: level(1, 4, empty=0.32),
    }


def ad_features(world: World) -> dict[str, Any]:
    """Columns of the items with an ad row, in order of their ids.

    A third of the brands is missing; a few prices are absurd (HIGHEST_PRICE).
    """
    import pyarrow as pa

    random = random_generator(world.seed, "ads")
    items = world.scale.items
    price = np.round(np.exp(random.normal(5.0, 1.2, items)), 2)
    price[random.random(items) < 0.0005] = HIGHEST_PRICE
    price[items // 2] = HIGHEST_PRICE  # at every scale
    return {
        "campaign_id": pa.array(random.integers(1, max(2, items // 2), items)),
        "customer": pa.array(random.integers(1, max(2, items // 4), items)),
        "brand": pa.array(brands(world)[:items], mask=random.random(items) < 0.3),
        "price": pa.array(price),
    }
