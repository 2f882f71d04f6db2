"""Shares pieces of work out to threads, each of which computes alone.

The steps of a scan are too small to be split among cores: each operation would end in a barrier
that costs as much as the operation, and a scheduling quantum if other processes use the cores, too.
So a thread takes whole blocks of rows. torch releases the interpreter lock while an operation runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def share_out(
    work: Callable[[Iterator[Item]], None], items: Sequence[Item], device: torch.device
) -> None:
    """Call `work` in `torch.get_num_threads()` threads with iterators that share out the items.

    `work` runs without autograd and must only write to what belongs to its current item, so that
    the result does not depend on the number of threads. On an accelerator it is called once, in
    this thread. The threads end with this call, so that no fork inherits them.
    """
    if not items:
        return
    queue = deque(items)
    intra_op_threads = torch.get_num_threads()
    threads = min(intra_op_threads, len(items)) if device.type == "cpu" else 1

    def work_alone() -> None:
        # it sets this thread's number, but also the default of later threads
        torch.set_num_threads(1)
        with torch.no_grad():
            work(_drain(queue))

    if threads < 2:
        with torch.no_grad():
            work(_drain(queue))
        return
    try:
        with ThreadPoolExecutor(threads, "share-out") as pool:
            for done in [pool.submit(work_alone) for _ in range(threads)]:
                done.result()
    finally:
        torch.set_num_threads(intra_op_threads)


def _drain(queue: deque[Item]) -> Iterator[Item]:
    while True:
        try:
            item = queue.popleft()
        except IndexError:
            return
        yield item
