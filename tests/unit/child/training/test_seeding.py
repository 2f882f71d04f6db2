import random

import numpy as np
import torch

from ctrkit.child.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.child.training.seeding import (
    rng_of_rank,
    rng_state,
    seed_everything,
    seed_rank,
    set_rng_state,
)


def _draw():
    return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.gauss(0, 1)


def test_equal_seeds_give_equal_streams():
    seed_everything(2**40 + 7)
    first = _draw()
    seed_everything(2**40 + 7)
    assert _draw() == first
    seed_everything(8)
    assert _draw() != first


def test_streams_go_on_from_a_saved_state(tmp_path):
    seed_everything(3)
    random.gauss(0, 1), np.random.normal()  # both keep a second value for the next call
    save_checkpoint(tmp_path / "rng.pt", rng_state("cpu"))
    expected = _draw()
    seed_everything(4)
    set_rng_state(load_checkpoint(tmp_path / "rng.pt"), "cpu")
    assert _draw() == expected


def test_ranks_draw_from_streams_of_their_own_and_rank_0_as_one_process_does():
    drawn = []
    for rank in (0, 1, 2):
        seed_everything(7)
        seed_rank(rank)
        drawn.append(_draw())
    seed_everything(7)
    assert _draw() == drawn[0]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]
    seed_everything(8)
    seed_rank(1)
    assert _draw() != drawn[1]


def test_each_rank_finds_its_streams_and_a_new_one_gets_its_own():
    states = []
    for seed in (1, 2):
        seed_everything(seed)
        states.append(rng_state("cpu"))
    saved = {"rng": states[0], "rng_of_ranks": states[1:]}
    drawn = []
    for rank in (0, 1, 2, 3, 2):
        seed_everything(99)
        before = torch.get_rng_state()
        found = rng_of_rank(saved, rank, "cpu")
        assert torch.equal(torch.get_rng_state(), before)
        set_rng_state(found, "cpu")
        drawn.append(_draw())
    for rank, seed in ((0, 1), (1, 2)):
        seed_everything(seed)
        assert drawn[rank] == _draw()
    assert drawn[2] == drawn[4]
    assert len({str(one) for one in drawn[:4]}) == 4
