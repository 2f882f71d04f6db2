"""A further side of `epoch.py`: our model and step with a stock per-row DataLoader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from epoch_model import EpochTask, with_lengths
from epoch_settings import Settings, contend, read_rows
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):  # type: ignore[type-arg]
    """Rows as dicts of NumPy values, which the DataLoader collates into tensors."""

    def __init__(self, columns: dict[str, np.ndarray[Any, Any]]) -> None:
        batch = with_lengths(columns)
        self.columns = {name: column.numpy() for name, column in batch.items()}

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self.columns.items()}


def run(settings: Settings) -> None:
    task = EpochTask(settings)
    if settings.check:
        raise SystemExit("nothing to check: the model is that of epoch_ctrkit.py")
    train, validation = (
        DataLoader[dict[str, Tensor]](
            Rows(read_rows(settings, split)),
            batch_size=settings.batch_size,
            shuffle=split == "train",
            num_workers=settings.workers,
        )
        for split in ("train", "validation")
    )
    for epoch in range(1, settings.epochs + 1):
        task.begin_epoch(epoch)
        for batch in train:
            task.train_step(batch, lambda _stage: None)
            task.recent_loss()
        task.begin_validation()
        for batch in validation:
            task.validation_step(batch)
        task.metrics()


if __name__ == "__main__":
    torch.multiprocessing.set_sharing_strategy("file_system")
    contend(run)
