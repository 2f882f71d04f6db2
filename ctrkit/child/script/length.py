"""The length of a run, and its source."""

from __future__ import annotations

from typing import NamedTuple


class Length(NamedTuple):
    """The length of a run: `epochs`, or `steps` of a loop that counts batches or optimizer steps.

    `told_by` says what tells it, in words; `at_most`: early stopping may end it sooner;
    `by_optimizer`: each of the steps is one of the optimizer, of which a batch may be a part;
    `in_stages`: several loops make the epochs, as folds or the stages of a curriculum do.
    """

    epochs: int | None = None
    steps: int | None = None
    told_by: str = ""
    at_most: bool = False
    by_optimizer: bool = False
    in_stages: bool = False


def as_said(epochs: int, read: Length | None) -> Length:
    """The length as the user said; the script's own claim is named beside it."""
    told_by = "--epochs"
    if read is not None and (read.epochs or read.steps) and read.epochs != epochs:
        own = f"{read.epochs} epochs" if read.epochs else f"{read.steps} steps"
        told_by += f"; the script says {own}: {read.told_by}"
    return Length(epochs=epochs, told_by=told_by)
