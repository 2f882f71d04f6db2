"""Lets a DataLoader continue later in its epoch: the sampler skips batches without loading them.

The first batches come as written, so that they can be compared with those of any other launch; then
the sampler goes on further down the epoch. The next epoch is whole again. What only an iterator
knows (an iterable data set, a generator) cannot be brought forward without making it.

A sampler may be slow, one that reads each row to learn its length above all. No run leaves batches
out, so whoever measures is told what that took, and leaves it out of its times.

Standard library only, and Python 3.9: it also runs inside a script's own interpreter.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

#: Steps that are left of the epoch at least, so that there is something to measure.
_LEAST_STEPS = 8
#: Naming so many rows takes about a second.
_MOST_ROWS = 20_000_000
#: An epoch of which less than this share could be left out begins as written.
_LEAST_SHARE = 0.1


def batches_to_leave_out(batches: int, share: float, *, before: int, steps: int) -> int:
    """How many batches to leave out of an epoch, so that it goes on at this share of it.

    Args:
        batches: of the epoch.
        share: where to begin, 0 the first batch.
        before: batches that are taken as written, or only warm up.
        steps: to be measured at least.
    """
    most = batches - before - max(2 * steps, _LEAST_STEPS)
    left_out = min(int(share * batches), most)
    return left_out if left_out >= _LEAST_SHARE * batches else 0


class LaterSampler:
    """A sampler that once leaves out `left_out` of its items, after the first few.

    Else it is as the one that it stands for. `took` is told the seconds that leaving out took.
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
        if name == "_sampler":  # not made yet: there is nothing to stand for
            raise AttributeError(name)
        return getattr(self._sampler, name)


class Elsewhere:
    """A DataLoader of which one iterator will leave batches out: the one made while `installed`."""

    def __init__(self, loader: Any, after: int, left_out: int) -> None:
        self.loader, self.after, self.left_out = loader, after, left_out
        #: told the seconds that leaving out took
        self.took: Callable[[float], None] = _nobody
        self._name = "sampler" if loader.batch_sampler is None else "batch_sampler"
        self._own = getattr(loader, self._name)

    def install(self) -> None:
        """Before the iterator is made. The loader's own setter refuses a change for good."""
        sampler = LaterSampler(self._own, self.after, self.left_out, self.took)
        self.loader.__dict__[self._name] = sampler

    def restore(self) -> None:
        """Once the iterator is made: it keeps the sampler that it was made with."""
        self.loader.__dict__[self._name] = self._own


def _nobody(seconds: float) -> None:
    pass


def elsewhere_of(loader: Any, share: float, *, after: int, steps: int) -> Elsewhere | None:
    """How an iterator of a DataLoader would leave batches out; None where that cannot be.

    Args:
        loader: any loader; only a DataLoader of torch's own way to draw batches can.
        share: where in the epoch to go on.
        after: batches that come as written.
        steps: to be measured at least.
    """
    try:
        if not _draws_as_torch_does(loader):
            return None
        sampler = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
        batches = len(sampler)
        left_out = batches_to_leave_out(batches, share, before=after, steps=steps)
        rows = left_out * int(getattr(sampler, "batch_size", None) or loader.batch_size or 1)
    except Exception:  # a sampler without a length, or one of its own mind
        return None
    if not left_out or rows > _MOST_ROWS:
        return None
    return Elsewhere(loader, after, left_out)


def _draws_as_torch_does(loader: Any) -> bool:
    """Whether it is a map-style DataLoader whose iterator asks its sampler for each batch."""
    from torch.utils.data import DataLoader, IterableDataset

    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    if loader.__dict__.get("_iterator") is not None:  # kept, with the sampler that it was made with
        return False
    own = type(loader)
    return bool(
        own.__dict__.get("_index_sampler", DataLoader._index_sampler) is DataLoader._index_sampler
        and not own.__module__.startswith("torchdata")
    )
