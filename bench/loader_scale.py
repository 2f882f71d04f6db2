"""Measures our loader on growing stores, and beside the step that it feeds."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import loader_peers as peers
import numpy as np
import psutil
import torch
from loader_peers import Machine
from loader_turns import Running

from ctrkit.core.config import make_cell
from ctrkit.core.environment import usable_cpus
from ctrkit.ctr.data.builder import StoreBuilder, output_folder
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.data.thread_loader import ThreadLoader
from ctrkit.ctr.plugin import load_phase

SCALE_USERS, SCALE_EVENTS = 1_100_000, 66_000_000


def make_large_store(folder: Path, rows: int) -> Store:
    """Make a store of `rows` impressions of 1.1 M users with 60 events each; only sizes count."""
    random = np.random.default_rng(2)
    per_user, chunk = SCALE_EVENTS // SCALE_USERS, 1 << 20
    size = 200_000
    with output_folder(folder) as aside, StoreBuilder(aside) as builder:
        for start in range(0, SCALE_EVENTS, chunk):
            count = min(chunk, SCALE_EVENTS - start)
            item, category, when = random.integers(2, size, (3, count), np.int32)
            builder.add_behaviors(item, category % 5000, when)
        for start in range(0, rows, chunk):
            count = min(chunk, rows - start)
            packed = random.integers(2, size, (count, 8), np.int32)
            packed[:, 2] %= 5000
            packed[:, 3:6] %= (24, 7, 2)
            user = random.integers(0, SCALE_USERS, count, np.int32)
            packed[:, 0] = user + 2
            packed[:, 6] = user * per_user
            packed[:, 7] = packed[:, 6] + random.integers(0, per_user + 1, count, np.int32)
            builder.add_impressions(packed, np.zeros(count, np.int32))
        builder.finish(
            name="scale", source="bench", rows={"train": rows, "validation": 0}, split="time",
            split_detail="", history={},
            vocabulary={"user": SCALE_USERS + 2, "item": size, "category": size,
                        "history_item": size, "history_category": size},
        )  # fmt: skip
    return Store.open(folder)


def anonymous_bytes() -> int:
    """Bytes of this process's memory that no file backs."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def warm(store: Store) -> None:
    """Bring the files into the page cache and the process's page tables."""
    for array in (store.impressions, store.behavior_item, store.behavior_category):
        for start in range(0, len(array), 1 << 20):
            array[start : start + (1 << 20)].max()


def anonymous_growth(store: Store, batch_size: int) -> int:
    """The most memory that iterating adds, with the batches and their buffers."""
    gc.collect()
    before = most = anonymous_bytes()
    loader = ThreadLoader(
        store, make_cell(batch_size=batch_size, threads=1), split="train", seed=3,
        history_length=peers.HISTORY, drop_last=True,
    )  # fmt: skip
    for count, _ in enumerate(loader):
        if count % 64 == 0:
            most = max(most, anonymous_bytes())
        if count >= 2000:
            break
    loader.close()
    return most - before


def scale(
    machine: Machine, sizes: Sequence[int], batch_size: int, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Measure our loader on stores of growing size, in turn, and beside the limit."""
    stores = [make_large_store(machine.folder / f"store-{n}", n) for n in sizes]
    for store in stores:
        warm(store)
    by_name = {c.name: c for c in peers.contenders()}
    thread, packed = by_name[peers.OUR_THREADS[0]], by_name[peers.PACKED_PART]
    limits = [by_name[peers.LIMITS[name]] for name in (peers.OUR_THREADS[0], peers.PACKED_PART)]
    machines = [Machine(machine.rows, s, machine.table, machine.folder) for s in stores]
    running = [[Running(c, m, batch_size) for c in (thread, packed, *limits)] for m in machines]
    found = []
    try:
        for one in itertools.chain(*running):
            one.start()
        for _ in range(rounds):
            for one in itertools.chain(*running):
                one.turn(seconds)
    finally:
        for one in itertools.chain(*running):
            one.close()
    for size, store, (ours, part, limit, part_limit) in zip(sizes, stores, running, strict=True):
        found.append(
            {
                "rows": size,
                "store_bytes": sum(path.stat().st_size for path in store.path.iterdir()),
                "rows_per_s": ours.rates,
                "of_limit": [a / b for a, b in zip(ours.rates, limit.rates, strict=True)],
                "packed_of_limit": [
                    a / b for a, b in zip(part.rates, part_limit.rates, strict=True)
                ],
                "of_smallest": [
                    a / b for a, b in zip(ours.rates, running[0][0].rates, strict=True)
                ],
                "anonymous_bytes": anonymous_growth(store, batch_size),
            }
        )
    return found


def beside_the_step(store: Store, windows: int, steps: int) -> dict[str, Any]:
    """Seconds of a Phase 3 step with `thread` and with cached batches, in windows that alternate.

    The first batch of a window is not timed: a real epoch waits for it once.
    """
    from ctrkit.ctr.workload import MdafWorkload

    phase = load_phase("phase3")
    workload = MdafWorkload(store.path, phase)
    threads = usable_cpus()
    torch.set_num_threads(threads)
    cell = make_cell(batch_size=phase.batch_size, threads=threads)
    task = workload.make_task(cell)
    task.begin_epoch(1)
    loader = workload.train_loader(cell)
    cached = [{k: v.clone() for k, v in b.items()} for b in itertools.islice(loader, steps + 1)]
    times: dict[str, list[float]] = {"thread": [], "cached": []}

    def window(batches: Iterator[Any]) -> float:
        began_s = 0.0
        for number, batch in enumerate(itertools.islice(batches, steps + 1)):
            if number == 1:
                began_s = time.perf_counter()
            task.train_step(task.transfer(batch), lambda _stage: None)
        return (time.perf_counter() - began_s) / steps

    window(iter(cached))
    for number in range(windows):
        kinds = ("thread", "cached") if number % 2 else ("cached", "thread")
        for kind in kinds:
            loader.set_epoch(1, first_batch=steps * number)
            times[kind].append(window(iter(loader) if kind == "thread" else iter(cached)))
            loader.close()
    torch.set_num_threads(1)
    ratios = [a / b for a, b in zip(times["thread"], times["cached"], strict=True)]
    return {"threads": threads, "batch_size": phase.batch_size, "steps": steps, "ratios": ratios,
            "cached_s": times["cached"], "thread_s": times["thread"]}  # fmt: skip
