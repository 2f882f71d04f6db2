"""Our side of `epoch.py`: a `Workload` on the store, for `ctrkit train --workload`.

The settings' path is in the environment variable EPOCH_SETTINGS. Run as a program, it only checks
that the model is the same as the others'.
"""

from __future__ import annotations

import os

from epoch_model import EpochTask, check
from epoch_settings import Settings, contend

from ctrkit.child.workloads.protocol import EpochLoader, Task, Workload
from ctrkit.core.config import LOADERS, Cell, RunSizes
from ctrkit.ctr.data.loaders import make_loader
from ctrkit.ctr.data.store import Store


class EpochWorkload(Workload):
    """The rows of a store in ctrkit's loaders; without histories, only their last event is read."""

    name = "epoch"
    axes = ("loader", "workers", "start_method", "prefetch", "threads", "batch_size")
    loaders = LOADERS

    def __init__(self, settings: Settings) -> None:
        self.given, self.store = settings, Store.open(settings.store)

    def data_fingerprint(self) -> str:
        return self.store.meta.fingerprint

    def default_batch_size(self) -> int:
        return self.given.batch_size

    def sizes(self, batch_size: int) -> RunSizes:
        train, validation = (self.store.meta.rows[split] for split in ("train", "validation"))
        return RunSizes(
            epochs=self.given.epochs,
            train_rows=train,
            train_batches=-(-train // batch_size),
            validation_rows=validation,
            validation_batches=-(-validation // batch_size),
            patience=0,
        )

    def train_loader(self, cell: Cell) -> EpochLoader:
        return self._loader(cell, "train")

    def validation_loader(self, cell: Cell) -> EpochLoader:
        return self._loader(cell, "validation")

    def _loader(self, cell: Cell, split: str) -> EpochLoader:
        return make_loader(
            self.store,
            cell,
            split=split,
            seed=self.given.seed + self.given.order,
            history_length=self.given.history or 1,
        )

    def make_task(self, cell: Cell) -> Task:
        return EpochTask(self.given)


def workload() -> EpochWorkload:
    return EpochWorkload(Settings.read(os.environ["EPOCH_SETTINGS"]))


def run(settings: Settings) -> None:
    task = EpochTask(settings)
    task.answer.save(**check(task, settings))


if __name__ == "__main__":
    contend(run)
