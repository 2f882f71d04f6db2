"""Makes one measurement of `bench/step.py` in its own process, which has its own peak memory.

Prints one JSON object: seconds of each measured step, losses, peak resident bytes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch
from step_baseline import SCANS, StraightMDAF
from torch import Tensor

from ctrkit.child.training.seeding import seed_everything
from ctrkit.core.config import make_cell
from ctrkit.ctr.models.mdaf import MDAF
from ctrkit.ctr.models.packing import pack_histories
from ctrkit.ctr.models.scan import selective_scan
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.training.objective import objective
from ctrkit.ctr.training.optimizers import clip_gradients, lr_at, make_optimizer, set_lr
from ctrkit.ctr.workload import MdafWorkload

PHASE = load_phase("phase3")
VOCABULARY = {
    "item": 335_166, "category": 5_482, "user": 577_484,
    "history_item": 335_166, "history_category": 5_482,
}  # fmt: skip
CHANNELS, STATE = 256, 16


def peak_bytes() -> int:
    """The peak bytes of this process, on Linux since `forget_peak`, elsewhere since its start."""
    status = Path("/proc/self/status")
    if status.is_file():  # the other figure includes the parent's memory before the exec
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> None:
    """Start to count the peak anew (Linux only)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_bytes() -> int:
    """The resident bytes of this process now."""
    return int(psutil.Process().memory_info().rss)


def timed(work: Callable[[int], float], warmup: int, steps: int) -> dict[str, Any]:
    """The seconds and the result of each measured step."""
    seconds, results = [], []
    for step in range(warmup + steps):
        began_s = time.perf_counter()
        results.append(work(step))
        if step >= warmup:
            seconds.append(time.perf_counter() - began_s)
    return {"seconds": seconds, "losses": results, "peak_bytes": peak_bytes()}


def step(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure the Phase 3 step and its loader: `ours` (thread), `straight` (rows, default Adam)."""
    workload = MdafWorkload(Path(spec["store"]), PHASE)
    straight = spec["kind"] == "straight"
    cell = make_cell(
        loader="rows" if straight else "thread", batch_size=spec["batch"],
        threads=torch.get_num_threads(), optimizer=spec.get("optimizer", "adam"),
    )  # fmt: skip
    loader = workload.train_loader(cell)
    loader.set_epoch(1)
    batches = iter(loader)
    first = next(batches)  # before the seed: starting a loader draws random numbers
    try:
        run = _straight(workload, spec["batch"]) if straight else _ours(workload, cell)
        before = resident_bytes()
        found = timed(
            lambda i: run(first if i == 0 else next(batches)), spec["warmup"], spec["steps"]
        )
    finally:
        loader.close()
    return found | {"before_bytes": before}


def _ours(workload: MdafWorkload, cell: Any) -> Callable[[Any], float]:
    task = workload.make_task(cell)
    task.begin_epoch(1)
    seed_everything(PHASE.seed + 1)

    def run(batch: Any) -> float:
        task.train_step(batch, lambda _stage: None)
        return task.recent_loss() or 0.0

    return run


def _straight(workload: MdafWorkload, batch_size: int) -> Callable[[Any], float]:
    seed_everything(PHASE.seed)
    model = StraightMDAF(
        workload.store.meta.vocabulary, model="mamba", dropout=PHASE.dropout,
        history_length=PHASE.history_length,
    ).train()  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=PHASE.lr, weight_decay=PHASE.weight_decay)
    steps_per_epoch = workload.sizes(batch_size).train_batches
    assert steps_per_epoch is not None
    seed_everything(PHASE.seed + 1)
    done = 0

    def run(batch: Any) -> float:
        nonlocal done
        done += 1
        set_lr(optimizer, lr_at(done, steps_per_epoch, PHASE, PHASE.epochs))
        optimizer.zero_grad()
        logits, _ = model(batch)
        loss = objective(logits, batch["label"], PHASE.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), PHASE.grad_clip)
        optimizer.step()
        return loss.item()

    return run


def scan(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure one scan, forward and backward; memory beyond inputs, outputs and gradients."""
    batch, length = spec["batch"], spec["length"]
    torch.manual_seed(0)
    packing = pack_histories(torch.full((batch,), length), length)
    ours = spec["kind"] == "ours"
    shape = (len(packing.source),) if ours else (batch, length)
    leaves: list[Tensor] = [
        torch.randn(*shape, CHANNELS), torch.rand(*shape, CHANNELS).mul_(0.1).add_(1e-3),
        -torch.arange(1.0, STATE + 1).repeat(CHANNELS, 1),
        torch.randn(*shape, STATE), torch.randn(*shape, STATE),
    ]  # fmt: skip
    for leaf in leaves:
        leaf.requires_grad_()
    d, weight = torch.zeros(CHANNELS), torch.randn(*shape, CHANNELS)

    def work(terms: list[Tensor]) -> Tensor:
        x, dt, a, b, c = terms
        if ours:
            return selective_scan(x, dt, a, b, c, d, packing.blocks)
        return SCANS[spec["kind"]](x, dt, a, b, c)

    _load_libraries()
    forget_peak()
    before = resident_bytes()

    def run(_step: int) -> float:
        y = work(leaves)
        torch.autograd.grad(y, leaves, weight)
        return float(y.detach().sum())

    found = timed(run, 0, 1)  # the memory of the first run
    own = sum(leaf.nbytes for leaf in leaves) + weight.nbytes  # gradients, and the output
    more = timed(run, 0, spec["steps"])
    return more | {"above_bytes": max(0, found["peak_bytes"] - before - own)}


def _load_libraries() -> None:
    """Run a small scan: what torch allocates once is not part of the scan's memory."""
    wide, narrow = (32, CHANNELS), (32, STATE)
    shapes = (wide, wide, (CHANNELS, STATE), narrow, narrow, (CHANNELS,))
    x, dt, a, b, c, d = terms = [torch.rand(shape).neg_().requires_grad_() for shape in shapes]
    blocks = pack_histories(torch.full((16,), 2), 2).blocks
    torch.autograd.grad(selective_scan(x, dt, a, b, c, d, blocks).sum(), terms)


def adam(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure clipping and update after a real backward pass: fused, torch's default, lazy."""
    batch = next(random_batches(spec["batch"], 50, VOCABULARY))
    seconds: dict[str, list[float]] = {"fused": [], "default": [], "sparse-adam": []}
    for name in seconds:
        seed_everything(PHASE.seed)
        model = MDAF(VOCABULARY, model="mamba", dropout=PHASE.dropout, history_length=50).train()
        tables = [] if name == "default" else model.tables()
        if name == "default":
            optimizer: Any = torch.optim.Adam(
                model.parameters(), lr=PHASE.lr, weight_decay=PHASE.weight_decay
            )
        else:
            kind = "adam" if name == "fused" else name
            optimizer = make_optimizer(kind, list(model.parameters()), tables, PHASE)
        for turn in range(spec["steps"] + 1):
            optimizer.zero_grad()
            logits, _ = model(batch)
            objective(logits, batch["label"], PHASE.label_smoothing).backward()  # type: ignore[no-untyped-call]
            began_s = time.perf_counter()
            if name == "default":
                torch.nn.utils.clip_grad_norm_(model.parameters(), PHASE.grad_clip)
            else:
                clip_gradients(list(model.parameters()), PHASE.grad_clip, tables)
            optimizer.step()
            if turn:
                seconds[name].append(time.perf_counter() - began_s)
    return {"seconds_of": seconds}


def growth(spec: dict[str, Any]) -> dict[str, Any]:
    """Measure our step on random rows, with any vocabulary and history length."""
    vocabulary = {
        name: max(64, int(size * spec["vocabulary"])) for name, size in VOCABULARY.items()
    }
    seed_everything(PHASE.seed)
    model = MDAF(
        vocabulary, model="mamba", dropout=PHASE.dropout, history_length=spec["length"]
    ).train()
    tables = model.tables()
    optimizer = make_optimizer("adam", list(model.parameters()), tables, PHASE)
    batches = random_batches(spec["batch"], spec["length"], vocabulary)

    def run(_step: int) -> float:
        batch = next(batches)
        optimizer.zero_grad()
        logits, _ = model(batch)
        loss = objective(logits, batch["label"], PHASE.label_smoothing)
        torch.autograd.backward(loss)
        clip_gradients(list(model.parameters()), PHASE.grad_clip, tables)
        optimizer.step()
        return loss.item()

    return timed(run, spec["warmup"], spec["steps"])


def random_batches(
    rows: int, length: int, vocabulary: dict[str, int]
) -> Iterator[dict[str, Tensor]]:
    """Batches with skewed ids, and histories that are on average half as long as possible."""
    random = torch.Generator().manual_seed(0)

    def ids(name: str, *shape: int) -> Tensor:
        skewed = torch.rand(*shape, generator=random) ** 3
        return 2 + (skewed * (vocabulary[name] - 2)).long().clamp(max=vocabulary[name] - 3)

    while True:
        yield {
            **{name: ids(name, rows) for name in ("item", "category", "user")},
            "hour": torch.randint(24, (rows,), generator=random),
            "weekday": torch.randint(7, (rows,), generator=random),
            "history_item": ids("history_item", rows, length),
            "history_category": ids("history_category", rows, length),
            "history_length": torch.randint(0, length + 1, (rows,), generator=random),
            "label": (torch.rand(rows, generator=random) < 0.05).float(),
        }


KINDS = {"step": step, "scan": scan, "adam": adam, "growth": growth}

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    print(json.dumps(KINDS[given["what"]](given)))
