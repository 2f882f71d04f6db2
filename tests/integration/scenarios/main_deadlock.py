"""Two threads of the main process, each waiting for what the other holds; no workers at all."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import torch

EXPECT = {
    "title": "deadlock in the main process, no workers",
    "cells": {"0": "deadlock"},
    "guilty": "main",
}


class Prefetching:
    """A producer thread fills a queue; both sides count under one lock."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.counting = threading.Lock()
        self.ready: queue.Queue[torch.Tensor] = queue.Queue(2)
        self.made = 0

    def __len__(self) -> int:
        return 50

    def produce(self) -> None:
        for _ in range(len(self)):
            with self.counting:
                self.made += 1
            self.ready.put(torch.zeros(self.batch_size))

    def __iter__(self) -> Iterator[torch.Tensor]:
        threading.Thread(target=self.produce, daemon=True).start()
        for taken in range(len(self)):
            if taken < 20:
                yield self.ready.get()
                continue
            with self.counting:
                while True:
                    yield self.ready.get()  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> Prefetching:
    return Prefetching(batch_size)
