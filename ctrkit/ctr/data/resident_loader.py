"""The `resident` loader: the tables live on the device and are gathered there."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from ctrkit.core.config import Cell
from ctrkit.ctr.data.buffers import Batch, BlockMaker, BlockPool
from ctrkit.ctr.data.gather import COLUMN, ID_COLUMNS, Gatherer
from ctrkit.ctr.data.store import IndexArray, Store
from ctrkit.ctr.data.store_loader import StoreLoader

#: number of batches whose memory is kept for reuse
_KEPT_BLOCKS = 4


class _ResidentTables:
    """The tables of a store on a device, shared by the loaders of both splits."""

    def __init__(self, store: Store, device: str) -> None:
        def moved(column: Any) -> torch.Tensor:
            # A mapped file is read-only, which torch does not know, so it gets a copy.
            return torch.from_numpy(np.array(column)).to(device)

        self.impressions = moved(store.impressions)
        # One event that belongs to no history, so that an index into an empty table is still valid.
        nothing = np.zeros(1, np.int32)
        self.behavior_item = moved(np.concatenate([store.behavior_item, nothing]))
        self.behavior_category = moved(np.concatenate([store.behavior_category, nothing]))


_tables_in_use: weakref.WeakValueDictionary[tuple[str, str, str], _ResidentTables] = (
    weakref.WeakValueDictionary()
)


def _resident_tables(store: Store, device: str) -> _ResidentTables:
    key = (str(store.path.absolute()), store.meta.fingerprint, device)
    tables = _tables_in_use.get(key)
    if tables is None:
        tables = _tables_in_use[key] = _ResidentTables(store, device)
    return tables


class ResidentLoader(StoreLoader):
    """The tables live on the device and are gathered there: no transfer per step."""

    def __init__(self, store: Store, cell: Cell, **kwargs: Any) -> None:
        super().__init__(store, cell, **kwargs)
        self._tables = _resident_tables(store, cell.device)

    def _batches(self) -> Iterator[Batch]:
        order = self.order()
        if self.cell.device == "cpu":
            return self._batches_on_host(order)
        return self._batches_on_device(torch.from_numpy(order).to(self.cell.device))

    def _batches_on_host(self, order: IndexArray) -> Iterator[Batch]:
        """Gather batches as the other loaders do, but from memory instead of a mapped file."""
        tables, length = self._tables, self.history_length
        pool = BlockPool(self.cell.batch_size, length, keep=_KEPT_BLOCKS, pin=self.cell.pin)
        gatherer = Gatherer(
            tables.impressions.numpy(),
            tables.behavior_item.numpy(),
            tables.behavior_category.numpy(),
            length,
        )
        make = BlockMaker(gatherer, pool)
        for part in self.slices():
            yield make(order[part]).batch()

    def _batches_on_device(self, order: torch.Tensor) -> Iterator[Batch]:
        slot = torch.arange(self.history_length, device=self.cell.device)
        for part in self.slices():
            yield self._gather(order[part].long(), slot)

    def _gather(self, indices: torch.Tensor, slot: torch.Tensor) -> Batch:
        tables = self._tables
        columns = tables.impressions[indices].unbind(dim=1)
        end = columns[COLUMN["history_end"]].long()
        begin = torch.maximum(columns[COLUMN["history_begin"]].long(), end - self.history_length)
        length = end - begin
        real = slot < length[:, None]
        position = torch.where(real, begin[:, None] + slot, 0)
        batch = {name: columns[COLUMN[name]].contiguous() for name in ID_COLUMNS}
        batch["label"] = columns[COLUMN["label"]].float()
        batch["history_item"] = torch.where(real, tables.behavior_item[position], 0)
        batch["history_category"] = torch.where(real, tables.behavior_category[position], 0)
        batch["history_length"] = length.int()
        return batch
