"""Chooses where in the epoch a trial continues, after a few batches in the order as written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ctrkit.child.elsewhere import Elsewhere, batches_to_leave_out, elsewhere_of
from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Batch, EpochLoader


@dataclass(frozen=True)
class EpochPlace:
    """Where a loader continues: `after` batches come as written, then `left_out` are skipped.

    A loader of ctrkit's protocol skips by itself; a DataLoader skips by its sampler (`elsewhere`).
    """

    left_out: int = 0
    after: int = 0
    elsewhere: Elsewhere | None = None

    @property
    def is_native(self) -> bool:
        """Whether the loader skips by itself."""
        return self.left_out > 0 and self.elsewhere is None

    def tell(self, loader: EpochLoader, epoch: int) -> None:
        """Tell the loader the next epoch, and the batch at which it begins."""
        if self.is_native:
            loader.set_epoch(epoch, first_batch=self.left_out)
        else:
            loader.set_epoch(epoch)

    def iterator_of(self, loader: EpochLoader, took: Callable[[float], None]) -> Iterator[Batch]:
        """The loader's iterator, which skips at this place.

        Args:
            loader: the trial's loader.
            took: called with the seconds that its sampler took to skip batches.
        """
        if self.elsewhere is None:
            return iter(loader)
        self.elsewhere.took = took
        self.elsewhere.install()
        try:
            return iter(loader)
        finally:
            self.elsewhere.restore()


def place_of(
    loader: EpochLoader, batches: int | None, share: float, warmup: int, steps: int
) -> EpochPlace:
    """The place nearest to this share of the epoch at which the loader can continue.

    Args:
        loader: the trial's loader.
        batches: number of batches in its epoch; None if unknown.
        share: where to continue, from 0 (the beginning) to 1.
        warmup: steps before the measured ones.
        steps: the least number of steps to measure.
    """
    if not share or batches is None:
        return EpochPlace()
    if isinstance(loader, IterableLoader):
        elsewhere = elsewhere_of(loader.iterable, share, after=warmup, steps=steps)
        left_out = 0 if elsewhere is None else min(elsewhere.left_out, batches - warmup - 1)
        if elsewhere is None or left_out <= 0:
            return EpochPlace()
        elsewhere.left_out = left_out
        return EpochPlace(left_out, warmup, elsewhere)
    if "first_batch" not in inspect.signature(loader.set_epoch).parameters:
        return EpochPlace()
    return EpochPlace(batches_to_leave_out(batches, share, before=warmup, steps=steps))
