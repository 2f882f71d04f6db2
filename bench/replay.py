"""Compares replay with real DataLoaders whose workers sleep seeded times; the pre-fill trap.

1. Many cells: the epoch's time as replay foretells it from the seeds, as it does from the stamps of
   its own batches (a busy machine oversleeps, which no seed knows), and as it was.
2. The trap: 8 workers whose queue fills during a slow first step. A probe of 60 batches foretells
   an epoch of 400 with other seeds: by replay from its stamps; by the mean after k steps, those k
   counted as they were; by the plain mean.

    python bench/replay.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.measure.replay import Load, message_overhead_s, replay_epoch
from ctrkit.measure.statistics import prediction_interval
from ctrkit.measure.steps import sample_of_load

#: Relative mean time of a batch (over all workers) and of a step: which of them is the limit?
KINDS = {"loader": (1.6, 1.0), "balanced": (1.0, 1.0), "step": (0.5, 1.0)}
TRAP_WORKERS, TRAP_STEP_S, TRAP_FIRST_STEP_S = 8, 0.012, 1.5
TRAP_LOADS = (0.8, 1.1, 1.25, 2.0)


class Sleeper(Dataset):  # type: ignore[type-arg]
    """Item i sleeps `seconds[i]`, and returns when that began and ended."""

    def __init__(self, seconds: Sequence[float]) -> None:
        self.seconds = list(seconds)

    def __len__(self) -> int:
        return len(self.seconds)

    def __getitem__(self, index: int) -> tuple[float, float]:
        began_s = time.monotonic()
        time.sleep(self.seconds[index])
        return began_s, time.monotonic()


@dataclass(frozen=True)
class Seen:
    """The times of an epoch or its first batches, in seconds since its iterator was asked for."""

    asked_s: list[float]
    delivered_s: list[float]
    done_s: list[float]
    began_s: list[float]
    made_s: list[float]

    @property
    def after_first_s(self) -> float:
        """Seconds from the first batch to the end."""
        return self.done_s[-1] - self.delivered_s[0]

    def ready_s(self, workers: int) -> list[float]:
        """When each worker began its first batch."""
        return self.began_s[:workers]

    def load(self, workers: int, prefetch: int) -> Load:
        """The load to replay, from the stamps alone."""
        times = zip(self.began_s, self.made_s, strict=True)
        return Load(
            service_s=[made - began for began, made in times],
            consumer_s=[d - r for r, d in zip(self.delivered_s, self.done_s, strict=True)],
            workers=workers,
            prefetch=prefetch,
            ready_s=self.ready_s(workers),
            overhead_s=message_overhead_s(self.asked_s, self.delivered_s, self.made_s),
        )


def run_epoch(
    service_s: Sequence[float],
    consumer_s: Sequence[float],
    workers: int,
    prefetch: int,
    stop: int | None = None,
) -> Seen:
    """Take batches from a real DataLoader, sleeping `consumer_s[i]` over batch i."""
    loader = DataLoader(
        Sleeper(service_s),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    origin_s = time.monotonic()
    seen, now_s = Seen([], [], [], [], []), 0.0
    for i, (began_s, made_s) in enumerate(loader):
        seen.asked_s.append(now_s)
        seen.delivered_s.append(time.monotonic() - origin_s)
        seen.began_s.append(began_s - origin_s)
        seen.made_s.append(made_s - origin_s)
        time.sleep(consumer_s[i])
        now_s = time.monotonic() - origin_s
        seen.done_s.append(now_s)
        if i + 1 == stop:
            break
    return seen


def seeded(mean_s: float, spread: float, count: int, seed: Sequence[int]) -> list[float]:
    """Gamma-distributed seconds, with `spread` as their relative standard deviation."""
    shape = 1 / spread**2
    random = np.random.default_rng(seed)
    return [float(s) for s in random.gamma(shape, mean_s / shape, count)]


def after_first_s(load: Load) -> float:
    """Seconds of the replayed epoch from its first batch to its end, over all measured batches."""
    delivery = replay_epoch(load, len(load.service_s))
    return delivery.total_s - delivery.delivered_s[0]


def measure_cells(step_s: float, batches: int, seed: int) -> list[dict[str, object]]:
    """The error of the replayed epoch for every cell."""
    cells = [(w, p) for w in (0, 1, 2, 4, 8) for p in (1, 2, 4) if w or p == 1]
    rows: list[dict[str, object]] = []
    for workers, prefetch in cells:
        for kind, (service_x, consumer_x) in KINDS.items():
            for spread in (0.1, 0.5):
                key = [seed, workers, prefetch, len(rows)]
                service = seeded(service_x * step_s * max(1, workers), spread, batches, [*key, 1])
                consumer = seeded(consumer_x * step_s, spread, batches, [*key, 2])
                seen = run_epoch(service, consumer, workers, prefetch)
                load = seen.load(workers, prefetch)
                seeds = replace(load, service_s=service, consumer_s=consumer)
                real_s, foretold_s = seen.after_first_s, after_first_s(seeds)
                rows.append(
                    {
                        "workers": workers, "prefetch": prefetch if workers else None,
                        "limit": kind, "spread": spread, "overhead_s": load.overhead_s,
                        "replayed_s": foretold_s, "real_s": real_s,
                        "error": foretold_s / real_s - 1,
                        "error_from_stamps": after_first_s(load) / real_s - 1,
                    }
                )  # fmt: skip
    return rows


def spring_trap(
    load_x: float, prefetch: int, seed: int, probe: int = 60, batches: int = 400
) -> dict[str, object]:
    """Project an epoch from its first batches, and run it; `load_x` is loader over step time."""
    service_s = load_x * TRAP_WORKERS * TRAP_STEP_S

    def times(which: int) -> tuple[list[float], list[float]]:
        service = seeded(service_s, 0.2, batches, [seed, which, 1])
        consumer = seeded(TRAP_STEP_S, 0.2, batches, [seed, which, 2])
        return service, [TRAP_FIRST_STEP_S, *consumer[1:]]

    seen = run_epoch(*times(0), TRAP_WORKERS, prefetch, stop=probe)
    sample = sample_of_load(seen.load(TRAP_WORKERS, prefetch), batches)
    step = prediction_interval([sample], batches)
    real_s = run_epoch(*times(1), TRAP_WORKERS, prefetch).after_first_s

    def mean_after(k: int) -> float:
        first_s = seen.done_s[k - 1] - seen.delivered_s[0] if k else 0.0
        return first_s + (seen.after_first_s - first_s) / (probe - k) * (batches - k)

    low_s, high_s = step.low * batches, step.high * batches
    return {
        "load": load_x, "prefetch": prefetch, "seed": seed, "real_s": real_s,
        "replayed_s": step.mean * batches,
        "low_s": low_s, "high_s": high_s, "held": low_s <= real_s <= high_s,
        "error": step.mean * batches / real_s - 1,
        "plain_mean_error": mean_after(0) / real_s - 1,
        "skip_1_error": mean_after(1) / real_s - 1,
        "skip_prefilled_error": mean_after(TRAP_WORKERS * prefetch) / real_s - 1,
    }  # fmt: skip


def table(cells: list[dict[str, object]], traps: list[dict[str, object]]) -> str:
    """Both results as Markdown."""
    lines = ["# Replay against real DataLoaders", ""]
    for name, inputs in (("error", "seeds"), ("error_from_stamps", "stamps")):
        errors = [abs(float(str(row[name]))) for row in cells]
        lines.append(
            f"{len(cells)} cells, from {inputs}: median |error| {statistics.median(errors):.2%},"
            f" worst {max(errors):.2%}.\n"
        )
    lines += [
        "| workers | prefetch | limit | spread | real s | from seeds s | error | from stamps |",
        "| --- " * 8 + "|",
    ]  # fmt: skip
    for row in cells:
        prefetch = "" if row["prefetch"] is None else row["prefetch"]
        lines.append(
            f"| {row['workers']} | {prefetch} | {row['limit']} | {row['spread']} |"
            f" {row['real_s']:.3f} | {row['replayed_s']:.3f} | {row['error']:+.2%} |"
            f" {row['error_from_stamps']:+.2%} |"
        )
    lines += [
        "", "The pre-fill trap: error of the epoch of 400 batches as foretold from 60.", "",
        "| loader / step | prefetch | real s | replay | its interval | held | plain mean | skip 1 |"
        " skip workers x prefetch |",
        "| --- " * 9 + "|",
    ]  # fmt: skip
    for row in traps:
        real_s = float(str(row["real_s"]))
        low, high = (float(str(row[f"{end}_s"])) / real_s - 1 for end in ("low", "high"))
        lines.append(
            f"| {row['load']} | {row['prefetch']} | {real_s:.2f} | {row['error']:+.1%} |"
            f" {low:+.1%} .. {high:+.1%} | {'yes' if row['held'] else 'no'} |"
            f" {row['plain_mean_error']:+.1%} | {row['skip_1_error']:+.1%} |"
            f" {row['skip_prefilled_error']:+.1%} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--step-s", type=float, default=0.012)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument(
        "--traps", type=int, default=2, help="seeds per load and prefetch of the trap"
    )
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    # more workers than cores are fine here, because they only sleep
    warnings.filterwarnings("ignore", "This DataLoader will create")
    cells = measure_cells(options.step_s, options.batches, options.seed)
    traps = [
        spring_trap(load_x, prefetch, options.seed + i)
        for load_x in TRAP_LOADS
        for prefetch in (2, 4)
        for i in range(options.traps)
    ]
    text = table(cells, traps)
    print(text, end="")
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    settings["load_average"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    found = {"settings": settings, "cells": cells, "traps": traps}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "replay.json", {**found, "environment": describe_environment()})
    write_atomically(options.out / "replay.md", text.encode())


if __name__ == "__main__":
    main()
