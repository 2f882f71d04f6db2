"""Runs one case of the steps of `bench/accelerator.py` in its own process: one JSON object.

    python bench/accelerator_step.py '{"what": "step", "device": "cuda", ...}'

`rates`: bytes per second of a large copy, operations per second of a large product. `step`:
seconds per Phase 3 step with its loader, with the device synchronized before and after all of
them; how long the host takes to queue a step, and on CUDA at how many places of a step it waits
for the device.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ctrkit.child.training import row_gradients
from ctrkit.child.training.devices import peak_device_bytes, synchronize
from ctrkit.child.workloads.protocol import EpochLoader
from ctrkit.core.config import make_cell
from ctrkit.ctr.models import scan_choice
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.workload import MdafWorkload

_TURNS_S = 1.0


def best_s(work: Callable[[], Any], device: str) -> float:
    """Seconds of the fastest call, of calls made for about a second."""
    work()
    synchronize(device)
    found, until_s = [], time.perf_counter() + _TURNS_S
    while len(found) < 3 or time.perf_counter() < until_s:
        began_s = time.perf_counter()
        work()
        synchronize(device)
        found.append(time.perf_counter() - began_s)
    return min(found)


def rates(device: str) -> dict[str, float]:
    small = device == "cpu"
    items, side = (2**24, 1024) if small else (2**28, 8192)
    source = torch.ones(items, device=device)
    target = torch.empty_like(source)
    copied = best_s(lambda: target.copy_(source), device)
    found = {"bytes_per_s": 2 * source.nbytes / copied}
    for name, kind in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        one = torch.ones(side, side, device=device, dtype=kind)
        out = torch.empty_like(one)
        took_s = best_s(lambda one=one, out=out: torch.mm(one, one, out=out), device)
        found[f"{name}_flops_per_s"] = 2 * side**3 / took_s
    return found


def waits_of(work: Callable[[], Any]) -> list[str]:
    """Places where the host waits for CUDA, as torch warns of them."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(one.filename).name}:{one.lineno}" for one in seen]


def endless(loader: EpochLoader) -> Iterator[Any]:
    """Batches of one epoch after the other."""
    for epoch in itertools.count(1):
        loader.set_epoch(epoch)
        yield from loader


def step(spec: dict[str, Any]) -> dict[str, Any]:
    device = spec["device"]
    if spec.get("scan") == "by step":
        scan_choice.failure_of = lambda *_: "as asked"  # type: ignore[assignment]
    if spec.get("gradients") == "whole":
        row_gradients.WORTH_BYTES = sys.maxsize
    workload = MdafWorkload(Path(spec["store"]), load_phase("phase3"))
    cell = make_cell(
        device=device, loader=spec["loader"], precision=spec["precision"],
        batch_size=spec["batch"], compile=bool(spec.get("compile")),
        threads=torch.get_num_threads(), pin=device == "cuda" and spec["loader"] == "thread",
    )  # fmt: skip
    loader = workload.train_loader(cell)
    try:
        batches = endless(loader)
        task = workload.make_task(cell)
        task.begin_epoch(1)

        def run(count: int) -> float:
            synchronize(device)
            began_s = time.perf_counter()
            for _ in range(count):
                task.train_step(task.transfer(next(batches)), lambda _stage: None)
            queued.append((time.perf_counter() - began_s) / count)
            synchronize(device)
            return (time.perf_counter() - began_s) / count

        queued: list[float] = []

        first_s = run(spec["warmup"])
        steps = max(1, min(spec["most_steps"], round(spec["seconds"] / max(first_s, 1e-6))))
        turns = [run(max(1, steps // 3)) for _ in range(3)]
        waits = waits_of(lambda: run(1)) if device == "cuda" else []
    finally:
        loader.close()
    return {"step_s": sorted(turns)[1], "low_s": min(turns), "high_s": max(turns),
            "queued_s": sorted(queued[1:4])[1], "waits": waits,
            "peak_device_bytes": peak_device_bytes(device), "notes": task.notes()}  # fmt: skip


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    answer = rates(given["device"]) if given["what"] == "rates" else step(given)
    print(json.dumps(answer))
