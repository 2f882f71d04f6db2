"""Checks that a forked trial measures the same as one started anew, and how much it saves.

The same cell is launched as pairs, one started anew and one forked, in turn which of them is first.
Compared are the step, the peak of the memory, the time until the loader and the model are there
after the imports, and the wall time of the whole trial. The ratio of a pair is forked / anew; the
table has its median over the pairs, with the interval of the median of which 95 % would hold it.

    python bench/forkserver.py --pairs 12
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

from ctrkit.core.child_files import load_measurement
from ctrkit.core.config import Cell, ChildSpec, WindowPlan, WorkloadSpec, make_cell
from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.measure.steps import sample_of_measurement
from ctrkit.supervise.forkserver import ForkServer, fork_server
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import TimeLimits

WINDOWS = WindowPlan(window_s=1.0, max_steps=400, boundary=False, checkpoints=1)
CELLS = {
    "no workers": make_cell(loader="custom", workers=0, batch_size=128, threads=1),
    "2 forked workers": make_cell(
        loader="custom", workers=2, start_method="fork", batch_size=128, threads=1
    ),
}
WORKLOAD = """
import torch
from torch.utils.data import DataLoader, Dataset

from ctrkit.workloads import IterableLoader, RunSizes, Task, Workload


class Rows(Dataset):
    def __init__(self):
        self.features, self.target = torch.randn(200_000, 64), torch.randn(200_000, 1)

    def __len__(self):
        return len(self.target)

    def __getitem__(self, i):
        return self.features[i] * 2 + 1, self.target[i]


class Step(Task):
    def __init__(self):
        layers = [torch.nn.Linear(64, 512), torch.nn.ReLU(), torch.nn.Linear(512, 1)]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.Adam(self.model.parameters())

    def transfer(self, batch):
        return batch

    def train_step(self, batch, mark):
        loss = torch.nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def state_dict(self):
        return {"model": self.model.state_dict()}


class Regression(Workload):
    name = "regression"
    axes = ("workers", "start_method", "batch_size")

    def sizes(self, batch_size):
        return RunSizes(epochs=1, train_rows=200_000, train_batches=200_000 // batch_size)

    def train_loader(self, cell):
        return IterableLoader(DataLoader(
            Rows(), cell.batch_size, num_workers=cell.workers,
            multiprocessing_context=cell.start_method,
        ))

    def make_task(self, cell):
        return Step()
"""
MEASURES = ("a step", "peak memory", "start after imports", "imports", "whole trial")
Figures = dict[str, float]


def launch(folder: Path, file: Path, cell: Cell, server: ForkServer | None) -> Figures:
    """Launch one trial; returns its figures in seconds and bytes."""
    spec = ChildSpec(
        kind="full", folder=str(folder), windows=WINDOWS, cell=cell,
        workload=WorkloadSpec(target=f"{file}:Regression"),
    )  # fmt: skip
    outcome = run_child(
        spec, time_limits=TimeLimits(), evidence_folder=folder / "evidence", server=server
    )
    if outcome.verdict != "ok" or outcome.forked != (server is not None):
        raise SystemExit(f"the trial ended as {outcome.verdict}: {outcome.reason}")
    measured = load_measurement(folder / "measurement.json")
    assert measured is not None
    sample = sample_of_measurement(measured, max(1, cell.workers))
    assert sample is not None
    startup_s, import_s = measured.startup_s or math.nan, measured.import_s or math.nan
    values = (
        sample.mean, float(outcome.peak_rss_bytes or math.nan), startup_s - import_s, import_s,
        outcome.wall_s,
    )  # fmt: skip
    return dict(zip(MEASURES, values, strict=True))


def pairs_of(folder: Path, count: int, most_s: float) -> dict[str, list[tuple[Figures, Figures]]]:
    """Pairs `(anew, forked)` of trials of each cell; the cells take turns."""
    found: dict[str, list[tuple[Figures, Figures]]] = {name: [] for name in CELLS}
    end_s = time.monotonic() + most_s
    file = folder / "regression.py"
    file.write_text(WORKLOAD)
    with fork_server() as server:
        if server is None or not server.prepare():
            raise SystemExit("nothing can be forked here")
        for number in range(count):
            if time.monotonic() > end_s:
                break
            for name, cell in CELLS.items():
                how = (None, server) if number % 2 else (server, None)
                taken = [launch(folder / "trial", file, cell, one) for one in how]
                anew, forked = taken if number % 2 else taken[::-1]
                found[name].append((anew, forked))
    return found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """An interval of the median by order statistics: at least 95 % of such intervals hold it."""
    ordered, n, k, missed = sorted(values), len(values), 0, 0.5 ** len(values)
    while k < n // 2 and 2 * (missed + math.comb(n, k + 1) * 0.5**n) <= 0.05:
        k += 1
        missed += math.comb(n, k) * 0.5**n
    return ordered[k], ordered[n - 1 - k]


def table(found: dict[str, list[tuple[Figures, Figures]]]) -> str:
    """The results as Markdown."""
    lines = [
        "# A forked trial beside one that is started anew", "",
        f"{len(next(iter(found.values())))} pairs of each cell, load average "
        f"{os.getloadavg()[0]:.1f} at the end.", "",
        "| cell | what | anew | forked | forked / anew | interval of the median | one pair |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, pairs in found.items():
        for what in MEASURES:
            ratios = [forked[what] / anew[what] for anew, forked in pairs]
            low, high = interval(ratios)
            medians = [statistics.median(one[k][what] for one in pairs) for k in (0, 1)]
            shown = [_shown(what, value) for value in medians]
            lines.append(
                f"| {name} | {what} | {shown[0]} | {shown[1]} | {statistics.median(ratios):.3f} |"
                f" {low:.3f} .. {high:.3f} | {min(ratios):.2f} .. {max(ratios):.2f} |"
            )
    return "\n".join(lines) + "\n"


def _shown(what: str, value: float) -> str:
    return f"{value / 2**20:.0f} MiB" if what == "peak memory" else f"{value:.4g} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=30, help="begin no pair after them")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ctrkit-fork-") as temporary:
        found = pairs_of(Path(temporary), options.pairs, 60 * options.minutes)
    text = table(found)
    print(text, end="")
    settings = {"pairs": len(next(iter(found.values())))}
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(
        options.out / "forkserver.json",
        {"settings": settings, "load_average": load, "pairs": found,
         "environment": describe_environment()},
    )  # fmt: skip
    write_atomically(options.out / "forkserver.md", text.encode())


if __name__ == "__main__":
    main()
