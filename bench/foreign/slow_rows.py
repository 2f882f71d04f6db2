"""A script whose rows take time to make, as decoding and augmentation do."""

import numpy as np
import torch
from torch.utils.data import Dataset


class SlowRows(Dataset):
    """Row `index` is always the same; it takes some 0.5 ms of computing."""

    def __init__(self, rows: int, width: int = 64, sorts: int = 3) -> None:
        self.rows, self.width, self.sorts = rows, width, sorts

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int):
        if not 0 <= index < self.rows:
            raise IndexError(index)
        values = np.random.default_rng(index).standard_normal(12_000)
        for _ in range(self.sorts):
            values = np.sort(values)[::-1].copy()
        row = torch.from_numpy(values[: self.width].astype("float32"))
        return row, torch.tensor(float(index % 2))
