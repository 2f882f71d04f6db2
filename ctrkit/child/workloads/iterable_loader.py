"""Makes an `EpochLoader` of any iterable of batches: a DataLoader, a list, a generator."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ctrkit.child.workloads.loader_parts import tell_epoch
from ctrkit.child.workloads.protocol import Batch, EpochLoader
from ctrkit.child.workloads.returned import UsedUpError, checked_batches, is_iterator


def as_epoch_loader(made: Any) -> EpochLoader:
    """What a workload's `train_loader` returned; a plain DataLoader or iterable is wrapped."""
    if all(callable(getattr(made, name, None)) for name in ("set_epoch", "close", "__iter__")):
        loader: EpochLoader = made
        return loader
    return IterableLoader(made)


class IterableLoader:
    """Any iterable as an `EpochLoader`. The iterable, its samplers and its data set get the epoch.

    To start later in an epoch, `iter` has to take and discard the batches before `first_batch`; it
    calls `on_skip` for each of them.

    Args:
        iterable: yields batches; anything else is a `NotBatchesError`.
        make_again: makes a new iterable for each further epoch, if it can be iterated only once.
    """

    def __init__(
        self, iterable: Iterable[Batch], make_again: Callable[[], Iterable[Batch]] | None = None
    ) -> None:
        self.iterable: Iterable[Batch] | None = checked_batches(iterable)
        self.first_batch = 0
        self.on_skip: Callable[[], None] | None = None
        self._make_again, self._is_used = make_again, False

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.first_batch = first_batch
        if self._is_used and is_iterator(self.iterable):
            self._begin_anew()
        tell_epoch(self.iterable, epoch)

    def _begin_anew(self) -> None:
        used, self.iterable = self.iterable, None
        kind = type(used).__name__
        made = None if self._make_again is None else self._make_again()
        if made is None or made is used:
            self.iterable = iter(())
            raise UsedUpError(
                f"make_loader returned a {kind} that was made before, which can be iterated once "
                "only: there is no further epoch; make it inside make_loader, or return a "
                "DataLoader, a list or an object with `__iter__`",
                used,
            )
        self.iterable = made

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        assert self.iterable is not None, "the loader is closed"
        self._is_used = True
        batches = iter(self.iterable)
        for _ in itertools.islice(batches, self.first_batch):
            if self.on_skip is not None:
                self.on_skip()
        return batches

    def close(self) -> None:
        self.iterable = None
        gc.collect()  # a DataLoader ends its workers when nothing refers to it any more
