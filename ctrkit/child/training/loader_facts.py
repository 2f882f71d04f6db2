"""What a training loader says about itself: its length, and whether that length can be trusted."""

from __future__ import annotations

from typing import Any

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from ctrkit.child.workloads.loader_parts import find_dataloader
from ctrkit.core.child_records import LoaderFacts
from ctrkit.core.units import format_count

#: Samplers that yield exactly as many indices as their length says.
_EXACT_SAMPLERS = (
    SequentialSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler,
    DistributedSampler,
)  # fmt: skip


def facts_of(loader: Any) -> LoaderFacts:
    """The facts of any training loader.

    A user's own loader class can declare its length exact by an attribute `length_is_exact`.
    """
    claimed, found = length_of(loader), find_dataloader(loader)
    exact = bool(getattr(loader, "length_is_exact", False))
    if found is None:
        return LoaderFacts(claimed_batches=claimed, length_is_exact=exact)
    iterable = isinstance(found.dataset, IterableDataset)
    batches = found.batch_sampler
    size = found.batch_size if found.batch_size is not None else getattr(batches, "batch_size", 0)
    # a wrapper with another length overrides it
    wraps = claimed is not None and claimed != length_of(found)
    return LoaderFacts(
        claimed_batches=claimed,
        dataset=type(found.dataset).__name__,
        dataset_rows=length_of(found.dataset),
        iterable=iterable,
        batch_size=size if isinstance(size, int) and size > 0 else None,
        drop_last=bool(found.drop_last or getattr(batches, "drop_last", False)),
        workers=found.num_workers,
        length_is_exact=exact or (not iterable and not wraps and _asks_for_so_many(found)),
    )


def length_of(value: Any) -> int | None:
    """`len()` of anything; None if it has none or raises."""
    try:
        return len(value)
    except Exception:
        return None


def _asks_for_so_many(loader: DataLoader[Any]) -> bool:
    """Whether the DataLoader's `len()` is exact, because a stock sampler gives its indices."""
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    if type(sampler) is BatchSampler:
        sampler = sampler.sampler
    return type(sampler) in _EXACT_SAMPLERS and type(loader) is DataLoader


def no_batch_words(loader: Any, batch_size: int, heeds_batch_size: bool) -> str:
    """A message: why a loader has no batch, and which batch size would give one."""
    facts, found = facts_of(loader), find_dataloader(loader)
    size = facts.batch_size or batch_size
    words = f"the training loader has no batch at batch size {format_count(size)}"
    if facts.claimed_batches is not None:
        words += f" (its length is {format_count(facts.claimed_batches)})"
    rows = _rows_to_take(found, facts)
    if rows == 0:
        return f"{words}: its data set {facts.dataset} is empty; look where it reads its rows"
    if facts.drop_last and rows is not None:
        words += f": drop_last leaves out an incomplete batch, and {_row_words(found, rows)}"
        if not heeds_batch_size:
            return (
                f"{words}; make_loader takes no batch_size, so make it {format_count(rows)} or "
                "less there, or leave out drop_last"
            )
        return f"{words}; give --batch-size {rows} or less, or leave out drop_last"
    if facts.drop_last:
        return f"{words}: drop_last leaves out an incomplete batch; give a smaller --batch-size"
    if facts.claimed_batches and facts.length_is_exact:
        return (
            f"{words}, and none came: a StopIteration inside its data set {facts.dataset} or its "
            "collate function ended it; raise another error there"
        )
    if facts.claimed_batches:
        return f"{words}, and none came: it must hold data and start anew each time it is iterated"
    return f"{words}; it must hold data and start anew each time it is iterated"


def _rows_to_take(loader: DataLoader[Any] | None, facts: LoaderFacts) -> int | None:
    """Rows that can fill the first batch: the sampler's, or the data set's; None if unknown."""
    if loader is None:
        return None
    if facts.iterable:
        return facts.dataset_rows
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    return length_of(sampler) if length_of(sampler) is not None else facts.dataset_rows


def _row_words(loader: DataLoader[Any] | None, rows: int) -> str:
    whole = length_of(loader.dataset) if loader is not None else None
    if whole is not None and whole != rows:
        return f"there are {format_count(rows)} rows of {format_count(whole)} to take"
    return f"there are {format_count(rows)} rows"
