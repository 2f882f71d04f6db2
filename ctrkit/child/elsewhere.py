"""Lets a DataLoader continue later in its epoch: the sampler skips batches without loading them.

The first batches come in the order as written, so that they can be compared with those of any other
launch. Then the sampler skips to a later place in the epoch. The next epoch is whole again. An
iterable data set or a generator cannot skip: its batches exist only once they are made.

A sampler may be slow, above all one that reads each row to learn its length. A real run never skips
batches, so the time that skipping took is reported, and the measurement subtracts it.

Standard library only, and Python 3.9: it also runs inside a script's own interpreter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

#: At least so many steps of the epoch remain, so that there is something to measure.
_LEAST_STEPS = 8
#: A sampler takes about a second to draw the numbers of so many rows.
_MOST_ROWS = 20_000_000
#: If less than this share of the epoch could be skipped, nothing is.
_LEAST_SHARE = 0.1


def batches_to_leave_out(batches: int, share: float, *, before: int, steps: int) -> int:
    """How many batches to skip, so that the epoch continues at this share of it.

    Args:
        batches: number of batches in the epoch.
        share: where to continue, from 0 (the first batch) to 1 (the end).
        before: batches before the measured ones: taken as written, or only to warm up.
        steps: the least number of steps to measure.
    """
    most = batches - before - max(2 * steps, _LEAST_STEPS)
    left_out = min(int(share * batches), most)
    return left_out if left_out >= _LEAST_SHARE * batches else 0


class LaterSampler:
    """A sampler that once skips `left_out` of its items, after the first `after` ones.

    In everything else it behaves as the sampler that it wraps. It calls `took` with the seconds
    that skipping took.
    """

    def __init__(
        self, sampler: Any, after: int, left_out: int, took: Callable[[float], None]
    ) -> None:
        self._sampler, self._after, self.left_out = sampler, after, left_out
        self._took = took

    def __iter__(self) -> Iterator[Any]:
        left_out, self.left_out = self.left_out, 0
        items = iter(self._sampler)
        yield from islice(items, self._after)
        if left_out:
            began_s = time.monotonic()
            for _ in islice(items, left_out):
                pass
            self._took(time.monotonic() - began_s)
        yield from items

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:
        if name == "_sampler":  # not set yet, as while unpickling: avoid endless recursion
            raise AttributeError(name)
        return getattr(self._sampler, name)


class Elsewhere:
    """Lets one iterator of a DataLoader skip batches: the one made between install and restore."""

    def __init__(self, loader: Any, after: int, left_out: int) -> None:
        self.loader, self.after, self.left_out = loader, after, left_out
        #: called with the seconds that skipping took
        self.took: Callable[[float], None] = _nobody
        self._name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        self._own = getattr(loader, self._name)

    def install(self) -> None:
        """Put the skipping sampler in; call this before the iterator is made.

        Writes to `__dict__`, because a DataLoader's own setter refuses to change its sampler.
        """
        sampler = LaterSampler(self._own, self.after, self.left_out, self.took)
        self.loader.__dict__[self._name] = sampler

    def restore(self) -> None:
        """Put the loader's own sampler back. The iterator keeps the one that it was made with."""
        self.loader.__dict__[self._name] = self._own


def _nobody(seconds: float) -> None:
    pass


def elsewhere_of(loader: Any, share: float, *, after: int, steps: int) -> Elsewhere | None:
    """How an iterator of this loader can skip batches; None if it cannot.

    Args:
        loader: any loader; only a DataLoader that draws its batches in torch's own way can skip.
        share: where in the epoch to continue, from 0 to 1.
        after: batches that come in the order as written.
        steps: the least number of steps to measure.
    """
    try:
        if not _draws_as_torch_does(loader):
            return None
        sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        batches = len(sampler)
        left_out = batches_to_leave_out(batches, share, before=after, steps=steps)
        rows = left_out * int(getattr(sampler, "batch_size", None) or loader.batch_size or 1)
    except Exception:  # a sampler without a length; a user's sampler may raise anything
        return None
    if not left_out or rows > _MOST_ROWS:
        return None
    return Elsewhere(loader, after, left_out)


def _draws_as_torch_does(loader: Any) -> bool:
    """Whether it is a map-style DataLoader whose iterator asks its sampler for each batch."""
    from torch.utils.data import DataLoader, IterableDataset

    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    if loader.__dict__.get("_iterator") is not None:  # a kept iterator has its own sampler
        return False
    own = type(loader)
    return bool(
        own.__dict__.get("_index_sampler", DataLoader._index_sampler) is DataLoader._index_sampler
        and not own.__module__.startswith("torchdata")
    )
