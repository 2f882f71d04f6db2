"""Measures the cost of stamps: a cell with and without them, interleaved, and each stamp alone.

1. Launches of a cell whose step is only taking a batch (so nothing hides the cost), in the order
   with, without, without, with, and so on: the ratio of the mean steps, with its 95 % interval.
2. The calls that a batch adds to its worker and to the loop, in a loop of their own, as a share of
   the step that 1 measured.

    python bench/stamps.py --pairs 8
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ctrkit.child.recording.step_stamps import append_stamp
from ctrkit.child.training.stamps import STAMPS_VARIABLE, StampWriter
from ctrkit.core.child_files import load_measurement
from ctrkit.core.child_records import Stamps
from ctrkit.core.config import ChildSpec, WindowPlan, WorkloadSpec, make_cell
from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.steps import mean_step_s
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import TimeLimits

WORKLOAD = """
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset):
    def __len__(self):
        return 4_000_000

    def __getitem__(self, index):
        return torch.from_numpy(np.sort(np.random.default_rng(index).random(2000)))


def make_loader(*, workers, start_method, batch_size, prefetch):
    return DataLoader(
        Rows(), batch_size=batch_size, num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        multiprocessing_context=start_method if workers else None,
    )
"""


def step_s(folder: Path, workers: int, stamped: bool, window_s: float, number: int) -> float:
    """Launch the cell; returns the mean seconds of a step."""
    os.environ[STAMPS_VARIABLE] = "1" if stamped else "0"
    cell = make_cell(
        loader="custom", workers=workers, start_method="fork" if workers else None, batch_size=16
    )
    trial = folder / f"trial-{number}"
    run_child(
        ChildSpec(
            kind="full",
            folder=str(trial),
            workload=WorkloadSpec(target=f"{folder / 'workload.py'}:make_loader"),
            cell=cell,
            windows=WindowPlan(window_s=window_s, max_steps=10**6, boundary=False),
        ),
        time_limits=TimeLimits(),
        evidence_folder=folder / "evidence",
    )
    measurement = load_measurement(trial / "measurement.json")
    mean = mean_step_s(measurement) if measurement else None
    if measurement is None or mean is None:
        raise RuntimeError("a launch measured nothing")
    seen = [s for s in measurement.stamps.fetch_start_s if s is not None]
    if bool(seen) != stamped:
        raise RuntimeError(f"{len(seen)} batches are stamped, asked for: {stamped}")
    return mean


def ratio(with_s: Sequence[float], without_s: Sequence[float]) -> dict[str, float]:
    """The geometric mean of the pairs' ratios, with its 95 % interval."""
    logs = [math.log(a / b) for a, b in zip(with_s, without_s, strict=True)]
    mean = statistics.fmean(logs)
    half = 0.0
    if len(logs) > 1:
        half = t_quantile(0.95, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return {
        "ratio": math.exp(mean), "low": math.exp(mean - half), "high": math.exp(mean + half)
    }  # fmt: skip


def own_cost_s(folder: Path, count: int = 20_000) -> dict[str, float]:
    """Seconds of the calls that stamps add to a batch, in its worker and in the loop."""
    writer = StampWriter(folder, 0)
    began_s = time.perf_counter()
    for batch in range(count):
        writer.started(batch)
        writer.fetched()
        writer.made(batch)
        writer.sent(batch)
    worker_s = (time.perf_counter() - began_s) / count
    stamps = Stamps()
    began_s = time.perf_counter()
    for batch in range(count):
        append_stamp(
            stamps,
            {
                "epoch": 1, "step": batch, "window": "throughput", "asked_s": time.monotonic(),
                "delivered_s": time.monotonic(), "done_s": time.monotonic(), "rows": 1,
            },
        )  # fmt: skip
    return {"worker_s": worker_s, "loop_s": (time.perf_counter() - began_s) / count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--window", type=float, default=5.0, help="seconds of each launch")
    parser.add_argument("--workers", default="2,0")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        (folder / "workload.py").write_text(WORKLOAD)
        own = own_cost_s(folder)
        number = 0
        for workers in map(int, options.workers.split(",")):
            times: dict[bool, list[float]] = {True: [], False: []}
            for i in range(2 * options.pairs):
                stamped = i % 4 in (0, 3)
                number += 1
                times[stamped].append(step_s(folder, workers, stamped, options.window, number))
            mean_s = statistics.fmean(times[False])
            rows.append(
                {
                    "workers": workers, "with_s": times[True], "without_s": times[False],
                    **ratio(times[True], times[False]),
                    "own_share": ((own["worker_s"] if workers else 0.0) + own["loop_s"]) / mean_s,
                }
            )  # fmt: skip
    lines = [
        "# What the stamps cost", "",
        f"{options.pairs} pairs of launches of {options.window:g} s, interleaved; a step is only"
        f" taking a batch. By themselves the stamps of a batch take {1e6 * own['worker_s']:.1f} µs"
        f" of its worker and {1e6 * own['loop_s']:.1f} µs of the loop.", "",
        "| workers | step without | with / without | 95 % interval | own calls, of the step |",
        "| --- " * 5 + "|",
    ]  # fmt: skip
    for row in rows:
        lines.append(
            f"| {row['workers']} | {1e3 * statistics.fmean(row['without_s']):.2f} ms |"
            f" {row['ratio']:.4f} | {row['low']:.4f} .. {row['high']:.4f} |"
            f" {row['own_share']:.3%} |"
        )
    text = "\n".join(lines) + "\n"
    print(text, end="")
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    settings["load_average"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    options.out.mkdir(parents=True, exist_ok=True)
    found = {"settings": settings, "own": own, "rows": rows, "environment": describe_environment()}
    write_json(options.out / "stamps.json", found)
    write_atomically(options.out / "stamps.md", text.encode())


if __name__ == "__main__":
    main()
