"""`ctrkit.data.Loader`: gives a store's batches to any training loop, and can stop and continue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ctrkit.core.config import make_cell
from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.buffers import Batch
from ctrkit.ctr.data.loaders import make_loader
from ctrkit.ctr.data.store import Store

_STATE_VERSION = 1


class Loader:
    """Batches of a store, with `len` and `iter` as in `torch.utils.data.DataLoader`.

    Each `iter()` is an epoch with its own order, which depends only on the seed and the epoch's
    number: 1, 2, ... in the order in which they begin, or the number given to `set_epoch`. After an
    epoch that was broken off, `iter()` begins the next one. But after `load_state_dict`, it
    continues exactly where `state_dict` was called.

    A batch is a dict of tensors on the host (with `loader="resident"`, on `device`): `user`,
    `item`, `category`, `hour`, `weekday`, `history_length` int32 (B,), `label` float32 (B,),
    `history_item` and `history_category` int32 (B, L). You may keep batches as long as you like;
    memory of the others is reused.

    Args:
        store: a store or its folder.
        batch_size: rows of a batch; with `ranks`, of the batch of all ranks together.
        seed: seed of the order of training rows.
        split: `train`, shuffled, or `validation`, in the order of the store.
        loader: `thread`, `resident`, `batches` or `rows`.
        history_length: L, the most events of a history.
        drop_last: drop a short last batch.
        block_rows: for a store larger than memory: shuffle by blocks of so many rows, 16 blocks at
            a time (`sample_order.block_order`). That is another order, so another experiment. None
            shuffles all rows.
        device: where the tables of `resident` live.
        workers: number of processes, only for `batches` and `rows`.
        start_method: start method of the workers: `spawn`, `fork`, `forkserver`.
        prefetch: batches made ahead, per worker if there are some; None lets `thread` choose.
        persistent: keep the workers between epochs.
        pin: batches in pinned memory, for CUDA.
        rank: number of this process among `ranks`; it gets its part of each batch.
        ranks: number of processes that train together.

    Raises:
        UsageError: there is no store, or no loader can serve this combination.
    """

    def __init__(
        self,
        store: Store | Path | str,
        *,
        batch_size: int = 2048,
        seed: int = 42,
        split: str = "train",
        loader: str = "thread",
        history_length: int = 50,
        drop_last: bool = False,
        block_rows: int | None = None,
        device: str = "cpu",
        workers: int = 0,
        start_method: str | None = None,
        prefetch: int | None = None,
        persistent: bool = False,
        pin: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        if block_rows is not None and block_rows < 1:
            raise UsageError(f"Loader: block_rows is {block_rows}, but must be at least 1")
        self.store = store if isinstance(store, Store) else Store.open(store)
        self.batch_size, self.drop_last = batch_size, drop_last
        cell = make_cell(
            "Loader",
            device=device,
            loader=loader,
            workers=workers,
            start_method=start_method,
            prefetch=prefetch,
            persistent=persistent,
            pin=pin,
            batch_size=batch_size,
        )
        self._loader = make_loader(
            self.store,
            cell,
            split=split,
            seed=seed,
            history_length=history_length,
            drop_last=drop_last,
            block_rows=block_rows,
            rank=rank,
            ranks=ranks,
        )
        # everything that the order of rows depends on: with other values, it would be another epoch
        self._settings = {
            "version": _STATE_VERSION,
            "data": self.store.meta.fingerprint,
            "split": split,
            "seed": seed,
            "batch_size": batch_size,
            "drop_last": drop_last,
            "block_rows": block_rows,
        }
        self._epoch, self._batch = 1, 0
        self._current: object | None = None  # the iterator that the position belongs to

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, or the rest of the epoch in a loaded state."""
        if self._current is not None:
            self.set_epoch(self._epoch + 1)
        self._current = object()
        self._loader.set_epoch(self._epoch, self._batch)
        return self._counted(iter(self._loader), self._current)

    def _counted(self, batches: Iterator[Batch], current: object) -> Iterator[Batch]:
        for batch in batches:
            if current is self._current:
                self._batch += 1
            yield batch
            del batch  # otherwise its memory could not be reused for the next one
        if current is self._current:
            self.set_epoch(self._epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next `iter()`, which begins with its first batch."""
        self._epoch, self._batch, self._current = epoch, 0, None

    def state_dict(self) -> dict[str, Any]:
        """The loader's position as plain values; a batch counts as soon as it was handed out.

        Between epochs it is the beginning of the next one.
        """
        return {**self._settings, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next `iter()` continue where `state_dict` was called, in a loader of any kind.

        Raises:
            UsageError: the state belongs to other data, or to another order.
        """
        for name, value in self._settings.items():
            if state.get(name) != value:
                raise UsageError(
                    f"loader's state: {name} is {state.get(name)!r}, but this loader's is"
                    f" {value!r}; continue with the loader that the state is of"
                )
        self.set_epoch(state["epoch"])
        self._batch = state["batch"]

    def close(self) -> None:
        """End threads, workers and the epoch; leaving a `with` block does it, too.

        `state_dict` still gives the loader's position.
        """
        if self._current is not None:
            self._current = object()  # from now on, the old iterator's position does not count
        self._loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()
