import random

import numpy as np
import torch

from ctrkit.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.training.seeding import rng_state, seed_everything, set_rng_state


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
