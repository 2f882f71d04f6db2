"""Times whole epochs by the wall clock, without either tool: one JSON line on stdout.

CASE=input python bench/sidebyside/epochs.py '{"num_workers": 2}' EPOCHS THREADS
"""

from __future__ import annotations

import json
import sys
import time

import torch
from common import BATCH_SIZE, Rows, make_model, make_optimizer
from torch.utils.data import DataLoader


def main() -> None:
    options, epochs = json.loads(sys.argv[1]), int(sys.argv[2])
    if sys.argv[3] != "None":
        torch.set_num_threads(int(sys.argv[3]))
    loader = DataLoader(Rows(), batch_size=BATCH_SIZE, shuffle=True, drop_last=True, **options)
    model = make_model()
    optimizer = make_optimizer(model)
    walls, rows = [], 0
    for _ in range(epochs):
        began_s = time.perf_counter()
        for batch in loader:
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            rows += len(batch)
        walls.append(time.perf_counter() - began_s)
    print(json.dumps({"epoch_s": walls, "rows_per_epoch": rows // epochs}))


if __name__ == "__main__":
    main()
