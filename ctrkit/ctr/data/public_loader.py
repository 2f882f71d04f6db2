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
    """Batches of a store, as a `torch.utils.data.DataLoader` gives them: `len` and `iter`.

    Each `iter()` is an epoch with an order of its own, which depends on nothing but the seed and
    the epoch's number: 1, 2, ... as they are begun, or what `set_epoch` says. An epoch that was
    broken off is not gone on with, the next `iter()` begins the next one; but after
    `load_state_dict` it goes on exactly where `state_dict` was called.

    A batch is a dict of tensors on the host (of `loader="resident"` on `device`): `user`, `item`,
    `category`, `hour`, `weekday`, `history_length` int32 (B,), `label` float32 (B,),
    `history_item` and `history_category` int32 (B, L). Batches may be kept as long as one likes;
    memory of those that are not is used again.

    Args:
        store: a store or its folder.
        batch_size: rows of a batch; with `ranks`, of the batch of all ranks together.
        seed: of the order of the training rows.
        split: `train`, shuffled, or `validation`, in the order of the store.
        loader: `thread`, `resident`, `batches` or `rows`.
        history_length: L, the most events of a history.
        drop_last: leave out a last batch that is short.
        block_rows: for a store larger than memory: shuffle by blocks of so many rows, 16 of which
            are mixed at a time (`sample_order.block_order`); another order, so another experiment.
            None shuffles all rows.
        device: where the tables of `resident` live.
        workers: processes, of `batches` and `rows` alone.
        start_method: of the workers: `spawn`, `fork`, `forkserver`.
        prefetch: batches made ahead, per worker where there are some; None lets `thread` choose.
        persistent: keep the workers between epochs.
        pin: batches in pinned memory, for CUDA.
        rank: which of `ranks` processes this one is; it gets its part of each batch.
        ranks: processes that train together.

    Raises:
        UsageError: no store, or a combination that no loader can serve.
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
        # what the order of the rows depends on: another value would continue another epoch
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
        self._current: object | None = None  # the iterator that the position is of

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the next epoch, or those left of the one that a state stands in."""
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
            del batch  # else its memory could not be used for the next one
        if current is self._current:
            self.set_epoch(self._epoch + 1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next `iter()`, which begins with its first batch."""
        self._epoch, self._batch, self._current = epoch, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, counting each batch as soon as it was handed out: plain values.

        Between epochs it is the beginning of the next one.
        """
        return {**self._settings, "epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next `iter()` go on where `state_dict` was called, in any kind of loader.

        Raises:
            UsageError: the state is of other data, or of another order.
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
        """End threads and workers, and the epoch; leaving a `with` does it, too.

        `state_dict` still says where the loader stood.
        """
        if self._current is not None:
            self._current = object()  # what the iterator says from now on does not count
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
