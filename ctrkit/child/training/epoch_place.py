"""Chooses where in the epoch a trial continues, after a few batches in the order as written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ctrkit.child.elsewhere import Elsewhere, batches_to_leave_out, elsewhere_of
from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Batch, EpochLoader


@dataclass(frozen=True)
class Place:
    """`left_out` batches of the epoch do not come; `after` come as written before that.

    A loader of its own begins there by itself, a DataLoader by its sampler (`elsewhere`).
    """

    left_out: int = 0
    after: int = 0
    elsewhere: Elsewhere | None = None

    @property
    def is_native(self) -> bool:
        """Whether the loader itself begins there."""
        return self.left_out > 0 and self.elsewhere is None

    def tell(self, loader: EpochLoader, epoch: int) -> None:
        """Tell the loader which epoch comes, and where it is to begin."""
        if self.is_native:
            loader.set_epoch(epoch, first_batch=self.left_out)
        else:
            loader.set_epoch(epoch)

    def iterator_of(self, loader: EpochLoader, took: Callable[[float], None]) -> Iterator[Batch]:
        """The loader's iterator, from here on.

        Args:
            loader: of the trial.
            took: is told the seconds that its sampler took to leave batches out.
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
) -> Place:
    """Where the loader can begin nearest to this share of its epoch.

    Args:
        loader: of the trial.
        batches: of its epoch, None where nobody knows.
        share: 0 is the epoch's begin.
        warmup: steps before those that are measured.
        steps: to be measured at least.
    """
    if not share or batches is None:
        return Place()
    if isinstance(loader, IterableLoader):
        elsewhere = elsewhere_of(loader.iterable, share, after=warmup, steps=steps)
        left_out = 0 if elsewhere is None else min(elsewhere.left_out, batches - warmup - 1)
        if elsewhere is None or left_out <= 0:
            return Place()
        elsewhere.left_out = left_out
        return Place(left_out, warmup, elsewhere)
    if "first_batch" not in inspect.signature(loader.set_epoch).parameters:
        return Place()
    return Place(batches_to_leave_out(batches, share, before=warmup, steps=steps))
