"""A training script that goes wrong in one of five ways: `accelerator_hang.py CASE DEVICE`.

Plain torch, as a stranger's script would be: `bench/accelerator.py` runs it under `ctrkit train`.
The guilty line of each case ends with its name, by which the bench finds it.
"""

from __future__ import annotations

import sys
import threading
import time

import torch
from torch.utils.data import DataLoader, Dataset

CASE, DEVICE = sys.argv[1], sys.argv[2]
LOCK = threading.Lock()
AT = 12  # the batch that goes wrong


class Rows(Dataset):  # noqa: D101
    def __len__(self) -> int:
        return 4000

    def __getitem__(self, index: int) -> torch.Tensor:
        if CASE == "forked-worker":
            return torch.ones(4, device=DEVICE).cpu()  # forked-worker
        if CASE == "lock":
            with LOCK:  # lock
                return torch.ones(4)
        return torch.ones(4)


def hold_the_lock() -> None:
    """Hold the lock in a thread, so that workers are forked while it is held."""
    LOCK.acquire()
    time.sleep(3600)


def go_wrong(x: torch.Tensor) -> None:
    if CASE == "endless-kernel":
        if DEVICE == "cuda":
            torch.cuda._sleep(2**62)
            torch.cuda.synchronize()  # endless-kernel
        while True:
            x = x.matmul(x.t()).matmul(x)  # endless-kernel
    if CASE == "assert":
        index = torch.full((4,), 99, device=DEVICE)
        picked = torch.ones(4, device=DEVICE)[index]
        print(picked.sum().item())  # assert
    if CASE == "out-of-memory":
        kept, many = [], 2**50 if DEVICE == "cpu" else 2**30
        if DEVICE == "mps":  # otherwise the whole Mac would begin to swap
            torch.mps.set_per_process_memory_fraction(0.2)
        while True:
            kept.append(torch.ones(many, device=DEVICE))  # out-of-memory


def main() -> None:
    model = torch.nn.Linear(4, 4).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    workers = 2 if CASE in ("forked-worker", "lock") else 0
    if CASE == "lock":
        threading.Thread(target=hold_the_lock, daemon=True).start()
        time.sleep(0.2)
    loader = DataLoader(Rows(), batch_size=8, num_workers=workers,
                        multiprocessing_context="fork" if workers else None)  # fmt: skip
    for i, batch in enumerate(loader):
        x = batch.to(DEVICE)
        if i == AT:
            go_wrong(x)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
