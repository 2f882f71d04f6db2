"""Random number generators: seeds them, stores their state in a checkpoint, and restores it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch, torch on every device.

    Called right before a model is initialised, so that its parameters do not depend on anything
    that ran before: the loader, its workers or the device.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_rank(rank: int) -> None:
    """Seed a rank after its model was initialised; rank 0 continues as a single process would.

    The parameters are equal on all ranks, but the dropout masks of different rows must differ.
    """
    if rank:
        seed_everything(_mixed(torch.initial_seed(), rank))


def rng_of_rank(state: Mapping[str, Any], rank: int, device: str) -> Mapping[str, Any]:
    """A rank's random streams from a checkpoint, which holds those of the ranks that wrote it.

    A rank that did not exist then gets streams derived from rank 0's and its own number.
    """
    if rank == 0:
        return dict(state["rng"])
    others = state.get("rng_of_ranks", [])
    if rank <= len(others):
        return dict(others[rank - 1])
    with kept_rng(device):
        set_rng_state(state["rng"], device)
        seed_everything(_mixed(int(torch.randint(2**62, ())), rank))
        return rng_state(device)


def _mixed(seed: int, rank: int) -> int:
    words = np.random.SeedSequence([seed % 2**63, rank]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def rng_state(device: str) -> dict[str, Any]:
    """The states of all random streams that a step on `device` may use, as plain values."""
    twister = np.random.get_state(legacy=False)
    twister["state"]["key"] = torch.from_numpy(twister["state"]["key"].astype(np.int64))
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": twister}
    if device == "cuda":
        # only of the device that this process trains on
        state["cuda"] = [torch.cuda.get_rng_state()]
    elif device == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


@contextmanager
def kept_rng(device: str) -> Iterator[None]:
    """Code in this context leaves all random streams as they were.

    For work that happens once per process and not once per run: an import may draw from Python's
    stream, as that of scikit-learn does.
    """
    state = rng_state(device)
    try:
        yield
    finally:
        set_rng_state(state, device)


def set_rng_state(state: Mapping[str, Any], device: str) -> None:
    """Restore a `rng_state`. A device's stream that is missing in it stays as it is."""
    torch.set_rng_state(state["torch"])
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    twister = state["numpy"]
    key = twister["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**twister, "state": {**twister["state"], "key": key}})
    if device == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"][0])
    elif device == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
