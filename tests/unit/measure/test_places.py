import math
from dataclasses import replace

import numpy as np
import pytest

from ctrkit.core.config import RunSizes
from ctrkit.core.launch_spread import SHIPPED
from ctrkit.measure.places import VARIES, places_of, profile_of
from ctrkit.measure.projection import project

BATCHES = 1000


def launches(measured, costs, first, steps=20):
    random = np.random.default_rng(2)
    found = []
    for begin in first:
        times = [costs(begin + i) * random.normal(1, 0.02) for i in range(steps)]
        found.append(replace(measured(times), first_batch=begin))
    return found


def rising(batch):
    return 0.004 + 0.3 * batch / BATCHES


def test_places_are_where_the_steps_were(measured):
    found = places_of(launches(measured, rising, [500, 0]), BATCHES)
    assert [round(place.begin, 3) for place in found] == [0.001, 0.501]


def test_sorted_data_are_projected_along_the_places(measured):
    seen = launches(measured, rising, [0, 500, 900])
    profile = profile_of(seen, BATCHES, SHIPPED)
    assert profile.mean_s == pytest.approx(0.154, rel=0.03)
    assert profile.low_s < 0.154 < profile.high_s < math.inf
    projection = project(seen, RunSizes(epochs=2, train_batches=BATCHES))
    assert projection.epoch.low < 154 < projection.epoch.high
    assert VARIES in projection.flags


def test_nothing_bounds_what_rises_beyond_the_last_place(measured):
    profile = profile_of(launches(measured, rising, [0, 500]), BATCHES, SHIPPED)
    assert math.isinf(profile.high_s)
    falling = launches(measured, lambda batch: rising(BATCHES - batch), [0, 500])
    assert profile_of(falling, BATCHES, SHIPPED).high_s < math.inf


@pytest.mark.parametrize("first", [[0, 0, 0], [0, 500, 900]])
def test_alike_places_are_no_profile(measured, first):
    assert profile_of(launches(measured, lambda _: 0.1, first), BATCHES, SHIPPED) is None


def test_launches_that_differ_where_they_saw_the_same_are_no_profile(measured):
    seen = [*launches(measured, lambda _: 0.1, [0]), *launches(measured, lambda _: 0.2, [0])]
    assert profile_of(seen, BATCHES, SHIPPED) is None
