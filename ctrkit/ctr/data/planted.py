"""The truth behind the generated data: tastes of users, which ads they saw when, and their clicks.

All ids here count from 0. Each user prefers a few categories. The user's behaviours come mostly
from these, ads are targeted at them, and ads of a preferred category are clicked more. Besides this
affinity, categories, items, hours and users (through traits of their preferred categories) have
effects of their own, so both ids and histories predict clicks. What is *not* modelled: sessions, an
effect of the order of a history, and any effect of one impression on a later one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.store import Int32Array, Int64Array

FloatArray = npt.NDArray[np.float64]

BEIJING_OFFSET_S = 8 * 3600
DAY_S = 86_400
#: 2017-05-06 00:00 in Beijing, when the impressions' eight days begin
FIRST_DAY_S = 1_494_000_000
#: 2017-05-13 00:00 in Beijing: day 8, the validation day
VALIDATION_DAY_S = 1_494_604_800
END_S = VALIDATION_DAY_S + DAY_S
#: the behaviour log begins two weeks before the first impression
LOG_BEGIN_S = FIRST_DAY_S - 14 * DAY_S

CLICK_RATE = 0.0514
PREFERRED = 4
_TARGETED = 0.4
_FAITHFUL = 0.75
_GHOST_USERS = 0.04
_GHOST_ITEMS = 0.01
_SILENT_USERS = 0.06
_MEAN_EVENTS = 38.0
_MOST_EVENTS = 500
_SAME_SECOND = 0.005
_CATEGORY_SD, _ITEM_SD, _TRAIT_SD, _AFFINITY, _HOUR = 1.3, 0.1, 0.6, 0.8, 0.25
_USERS_PER_CHUNK = 1 << 15
_SHIFT = 32


@dataclass(frozen=True)
class Scale:
    """How much to generate.

    Attributes:
        rows: impressions.
        users: users with a profile.
        items: ads with a row in the ad table.
        behaviors: approximate number of events in the log; None: as many per user as the reference.
    """

    rows: int
    users: int
    items: int
    behaviors: int | None = None

    @property
    def validation_rows(self) -> int:
        """Impressions of day 8: the reference's share of `rows`, at least one."""
        return max(1, round(self.rows * 225_446 / 1_277_527))

    @property
    def train_rows(self) -> int:
        """Impressions of days 1 to 7."""
        return self.rows - self.validation_rows

    @property
    def categories(self) -> int:
        """Categories in the reference's proportion to `items`."""
        return min(self.items, max(8, round(self.items * 5_480 / 335_164)))

    @property
    def all_users(self) -> int:
        """Users with and without a profile."""
        return self.users + round(self.users * _GHOST_USERS)

    @property
    def events_factor(self) -> float:
        """Events per user, as a multiple of the reference's."""
        if self.behaviors is None:
            return 1.0
        per_user = self.behaviors / (self.all_users * (1 - _SILENT_USERS))
        # the drawn number of events is rounded down; this exponential mean then gives `per_user`
        return 1 / math.log1p(1 / per_user) / _MEAN_EVENTS


#: the scale of the run with the known results (5,480 categories)
REFERENCE = Scale(rows=1_277_527, users=577_482, items=335_164)


@dataclass(frozen=True)
class World:
    """Users, items and categories.

    Users from `scale.users` on have no profile row, and items from `scale.items` on no ad row: a
    store knows those only as unknown.

    Attributes:
        item_category: (all items,) category of each item.
        items_by_category: (all items,) items by category, most popular first within each.
        category_begin: (categories + 1,) where each category begins in `items_by_category`.
        category_by_rank: (categories,) categories, most popular first.
        user_by_rank: (all users,) users, most active first.
        preferred: (all users, PREFERRED) preferred categories of each user.
        events: (all users,) number of behaviours of each user.
        category_effect, item_effect, user_effect: effects on the log-odds of a click.
    """

    scale: Scale
    seed: int
    item_category: Int32Array
    items_by_category: Int32Array
    category_begin: Int64Array
    category_by_rank: Int32Array
    user_by_rank: Int32Array
    preferred: Int32Array
    events: Int64Array
    category_effect: FloatArray
    item_effect: FloatArray
    user_effect: FloatArray


@dataclass(frozen=True)
class Impressions:
    """All impressions in order of time, each array (rows,); the last ones are for validation."""

    user: Int32Array
    item: Int32Array
    time_s: Int32Array
    probability: FloatArray
    label: Int32Array


@dataclass(frozen=True)
class BehaviorChunk:
    """All behaviours of users `first_user` to `end_user` (exclusive), by user, then by time.

    `begin` (users of the chunk + 1,) is where each user's events begin in the chunk. `key` is
    ascending: user minus `first_user`, shifted, plus seconds since LOG_BEGIN_S.
    """

    first_user: int
    end_user: int
    begin: Int64Array
    key: Int64Array
    item: Int32Array
    category: Int32Array

    @property
    def user(self) -> Int64Array:
        """The user of each event."""
        return (self.key >> _SHIFT) + self.first_user

    @property
    def time_s(self) -> Int32Array:
        """The time of each event, Unix seconds."""
        return ((self.key & ((1 << _SHIFT) - 1)) + LOG_BEGIN_S).astype(np.int32)

    def events_before(self, user: Int32Array, time_s: Int32Array) -> Int64Array:
        """Number of events in the chunk before each history's end, strictly before `time_s`."""
        key = ((user.astype(np.int64) - self.first_user) << _SHIFT) + (time_s - LOG_BEGIN_S)
        before: Int64Array = np.searchsorted(self.key, key, side="left")
        return before


def random_generator(seed: int, purpose: str) -> np.random.Generator:
    """A random generator per purpose, so that more draws for one purpose never change another."""
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose.encode()]))


def check_scale(scale: Scale, seed: int) -> None:
    """Raise UsageError for a size from which nothing can be generated."""
    for option, number, least in (
        ("--rows", scale.rows, 10),
        ("--users", scale.users, 1),
        ("--items", scale.items, 1),
        ("--behaviors", scale.users if scale.behaviors is None else scale.behaviors, 1),
        ("--seed", seed, 0),
    ):
        if not least <= number < 2**30:
            raise UsageError(f"{option} is {number}, but must lie in {least} .. {2**30 - 1}")


def beijing_hour_weekday(time_s: Int32Array) -> tuple[Int32Array, Int32Array]:
    """Hour 0..23 and weekday 0..6 (Monday is 0) in Beijing of Unix seconds, each of shape (n,)."""
    local = time_s.astype(np.int64) + BEIJING_OFFSET_S
    hour = (local % DAY_S) // 3600
    weekday = (local // DAY_S + 3) % 7  # 1970-01-01 was a Thursday
    return hour.astype(np.int32), weekday.astype(np.int32)


def zipf_rank(
    random: np.random.Generator, count: int | Int64Array, size: int, exponent: float
) -> Int64Array:
    """Draw ranks 0 .. count-1 with density (rank+1)^-exponent, by the inverse of its integral.

    Args:
        random: the random generator.
        count: number of ranks, one for all draws or one per draw.
        size: number of draws.
        exponent: any number but 1.
    """
    power = 1.0 - exponent
    top = np.power(np.asarray(count, np.float64) + 1.0, power) - 1.0
    rank = np.power(1.0 + random.random(size) * top, 1.0 / power) - 1.0
    clipped: Int64Array = np.minimum(rank.astype(np.int64), np.asarray(count, np.int64) - 1)
    return clipped


def make_world(scale: Scale, seed: int) -> World:
    """Draw users, items and categories."""
    check_scale(scale, seed)
    categories = scale.categories
    items = scale.items + round(scale.items * _GHOST_ITEMS)
    users = scale.all_users

    random = random_generator(seed, "items")
    category_by_rank = random.permutation(categories).astype(np.int32)
    rank = zipf_rank(random, categories, items, 0.9)
    rank[:categories] = np.arange(categories)  # so that no category is empty
    item_category = category_by_rank[rank]
    by_popularity = random.permutation(items)
    items_by_category = by_popularity[np.argsort(item_category[by_popularity], kind="stable")]
    category_begin = np.zeros(categories + 1, np.int64)
    np.cumsum(np.bincount(item_category, minlength=categories), out=category_begin[1:])

    random = random_generator(seed, "users")
    preferred = category_by_rank[zipf_rank(random, categories, users * PREFERRED, 0.7)]
    preferred = preferred.reshape(users, PREFERRED)
    factor = scale.events_factor
    events = random.exponential(_MEAN_EVENTS * factor, users).astype(np.int64)
    events = np.minimum(events, round(_MOST_EVENTS * factor))
    events[random.random(users) < _SILENT_USERS] = 0

    effects = random_generator(seed, "effects")
    trait = effects.normal(0.0, _TRAIT_SD, categories)
    return World(
        scale=scale,
        seed=seed,
        item_category=item_category,
        items_by_category=items_by_category.astype(np.int32),
        category_begin=category_begin,
        category_by_rank=category_by_rank,
        user_by_rank=random.permutation(users).astype(np.int32),
        preferred=preferred,
        events=events,
        category_effect=effects.normal(0.0, _CATEGORY_SD, categories),
        item_effect=effects.normal(0.0, _ITEM_SD, items),
        user_effect=trait[preferred].sum(axis=1) / np.sqrt(PREFERRED),
    )


def _draw_items(
    world: World, random: np.random.Generator, user: npt.NDArray[np.integer], faithful: float
) -> Int32Array:
    """Draw an item per entry of `user`, with probability `faithful` from a preferred category."""
    size = len(user)
    picked = world.preferred[user, random.integers(0, PREFERRED, size)]
    popular = world.category_by_rank[zipf_rank(random, len(world.category_by_rank), size, 0.9)]
    category = np.where(random.random(size) < faithful, picked, popular)
    begin = world.category_begin[category]
    rank = zipf_rank(random, world.category_begin[category + 1] - begin, size, 0.9)
    item: Int32Array = world.items_by_category[begin + rank]
    return item


def _draw_times(random: np.random.Generator, scale: Scale) -> Int32Array:
    """Ascending Unix seconds: `train_rows` on days 1 to 7, `validation_rows` on day 8."""
    hours = np.arange(24)
    weight = 1.1 + np.sin((hours - 9) / 24 * 2 * np.pi)  # few at night, most in the afternoon
    hour = random.choice(24, scale.rows, p=weight / weight.sum())
    day = np.full(scale.rows, 7, np.int64)
    day[: scale.train_rows] = random.integers(0, 7, scale.train_rows)
    second = random.integers(0, 3600, scale.rows)
    return np.sort(FIRST_DAY_S + day * DAY_S + hour * 3600 + second).astype(np.int32)


def draw_impressions(world: World) -> Impressions:
    """Draw which user saw which item when, and the clicks from their true probabilities."""
    random = random_generator(world.seed, "impressions")
    scale = world.scale
    time_s = _draw_times(random, scale)
    user = world.user_by_rank[zipf_rank(random, len(world.user_by_rank), scale.rows, 0.6)]
    item = _draw_items(world, random, user, _TARGETED)
    category = world.item_category[item]
    hour, _ = beijing_hour_weekday(time_s)
    logit = (
        world.category_effect[category]
        + world.item_effect[item]
        + world.user_effect[user]
        + _AFFINITY * (world.preferred[user] == category[:, None]).any(axis=1)
        + _HOUR * np.sin((hour - 15) / 24 * 2 * np.pi)
    )
    probability = 1.0 / (1.0 + np.exp(-(logit + _intercept(logit))))
    label = random_generator(world.seed, "clicks").random(scale.rows) < probability
    return Impressions(
        user=user,
        item=item,
        time_s=time_s,
        probability=probability,
        label=label.astype(np.int32),
    )


def _intercept(logit: FloatArray) -> float:
    """The intercept with a mean click probability of CLICK_RATE, by bisection."""
    low, high = -30.0, 30.0
    for _ in range(30):
        middle = (low + high) / 2
        if np.mean(1.0 / (1.0 + np.exp(-(logit + middle)))) < CLICK_RATE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def behavior_chunks(world: World) -> Iterator[BehaviorChunk]:
    """Draw the behaviours by user; holds only one chunk at a time."""
    random = random_generator(world.seed, "behaviors")
    users = len(world.events)
    step = max(1, round(_USERS_PER_CHUNK / max(1.0, world.scale.events_factor)))
    for first in range(0, users, step):
        end = min(first + step, users)
        begin = np.zeros(end - first + 1, np.int64)
        np.cumsum(world.events[first:end], out=begin[1:])
        user = np.repeat(np.arange(end - first, dtype=np.int64), world.events[first:end])
        key = (user << _SHIFT) + random.integers(0, END_S - LOG_BEGIN_S, len(user))
        key.sort()
        # The log holds several events of one user in the same second.
        same = (random.random(len(key)) < _SAME_SECOND) & (user == np.roll(user, 1))
        same[:1] = False
        key[same] = key[np.flatnonzero(same) - 1]
        item = _draw_items(world, random, user + first, _FAITHFUL)
        yield BehaviorChunk(
            first_user=first,
            end_user=end,
            begin=begin,
            key=key,
            item=item,
            category=world.item_category[item],
        )
