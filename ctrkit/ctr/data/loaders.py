"""Four ways to load the same batches: rows, batches, thread and resident."""

from __future__ import annotations

import torch

from ctrkit.core.cell import WITHOUT_WORKERS
from ctrkit.core.config import LOADERS, Cell
from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.resident_loader import ResidentLoader
from ctrkit.ctr.data.store import SPLITS, Store
from ctrkit.ctr.data.store_loader import StoreLoader
from ctrkit.ctr.data.thread_loader import ThreadLoader
from ctrkit.ctr.data.worker_loaders import BatchesLoader, RowsLoader


def make_loader(
    store: Store,
    cell: Cell,
    *,
    split: str,
    seed: int,
    history_length: int,
    drop_last: bool = False,
    rank: int = 0,
    ranks: int = 1,
    block_rows: int | None = None,
) -> StoreLoader:
    """Make the loader of a cell. All loaders yield the same batches, byte for byte.

    A batch is a dict of tensors: `user`, `item`, `category`, `hour`, `weekday`, `history_length`
    int32 (B,), `label` float32 (B,), `history_item` and `history_category` int32 (B, L). The
    tensors are on the host; those of `resident` are on `cell.device`.

    Args:
        store: the store with the rows.
        cell: loader, workers, start method, prefetch, persistent, pin, batch size, device.
        split: `train` or `validation`.
        seed: seed of the order of training rows.
        history_length: L, the most events of a history.
        drop_last: drop a short last batch.
        rank: number of the rank that this loader is for.
        ranks: number of ranks; each yields its contiguous part of every global batch. In a short
            last batch that part may be empty.
        block_rows: shuffle by blocks of so many rows, as `block_order` does; None shuffles all
            rows.

    Raises:
        UsageError: no loader can serve the cell.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'; known are {', '.join(SPLITS)}")
    if cell.loader not in LOADERS:
        raise UsageError(f"unknown loader '{cell.loader}'; known are {', '.join(LOADERS)}")
    if cell.workers and cell.loader in WITHOUT_WORKERS:
        raise UsageError(
            f"--loader {cell.loader} has no workers, but {cell.workers} are asked for;"
            " use --workers 0 or another loader"
        )
    if cell.pin and not torch.cuda.is_available():
        raise UsageError("pinned memory needs CUDA, which is not available here; leave out pin")
    kinds: dict[str, type[StoreLoader]] = {
        "rows": RowsLoader,
        "batches": BatchesLoader,
        "thread": ThreadLoader,
        "resident": ResidentLoader,
    }
    return kinds[cell.loader](
        store,
        cell,
        split=split,
        seed=seed,
        history_length=history_length,
        drop_last=drop_last,
        rank=rank,
        ranks=ranks,
        block_rows=block_rows,
    )
