from dataclasses import replace

import numpy as np
import pytest

from ctrkit.measure.content import content_of, first_batches_only

COSTS = np.random.default_rng(5).gamma(4, 0.25, 200)


def launches(measured, *, content, noise, first=(0, 0, 0), steps=30, hashes=("a", "a", "a")):
    random = np.random.default_rng(8)
    found = []
    for begin, text in zip(first, hashes, strict=True):
        costs = COSTS[begin : begin + steps] if content else np.ones(steps)
        times = costs + random.normal(0, noise, steps)
        found.append(replace(measured(list(times)), first_batch=begin, batch_hashes=[text]))
    return found


def test_the_same_batches_tell_content_from_noise(measured):
    content = content_of(launches(measured, content=True, noise=0.02), 200)
    noise = content_of(launches(measured, content=False, noise=0.2), 200)
    assert content.share > 0.95
    assert noise.share < 0.45
    assert content.distinct == noise.distinct == 30


def test_a_few_common_batches_may_all_be_content(measured):
    assert content_of(launches(measured, content=False, noise=0.2, steps=5), 200).share == 1


@pytest.mark.parametrize(
    ("first", "hashes"), [((0, 50, 100), ("a", "a", "a")), ((0, 0, 0), ("a", "b", "c"))]
)
def test_other_batches_are_no_repetition(measured, first, hashes):
    seen = launches(measured, content=True, noise=0.02, first=first, hashes=hashes)
    assert content_of(seen, 200) is None


def test_where_all_began_with_the_epoch_nothing_else_was_seen(measured):
    alike = launches(measured, content=True, noise=0.02)
    assert first_batches_only(alike) == 31
    assert first_batches_only(launches(measured, content=True, noise=0, first=(0, 9, 0))) is None
    assert first_batches_only([replace(alike[0], epoch_complete=True)]) is None
    assert first_batches_only([]) is None
