"""Compares two ranks with one process on the same cores, and two ways to sum table gradients.

Real steps of MDAF at the reference scale, on real batches. All arms take turns in one group of two
processes, in an order that is reversed every other round; a ratio is of two arms of one round.

- `one, all cores`: rank 0 alone, on whole batches, with all cores as threads; rank 1 waits.
- `one, half`: the same with half of them.
- `two, sparse`, `two, dense`, `two, by rule`: both ranks, each with half of the batch and of the
  cores; tables by touched rows, as a whole, or as `is_sparse_less` decides.

    python bench/ranks.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ctrkit.child.training.distributed import ALONE, Ranks, is_sparse_less, joined
from ctrkit.child.training.rendezvous import find_ranks
from ctrkit.core.config import make_cell
from ctrkit.core.environment import describe_environment, physical_cores
from ctrkit.core.files import write_atomically, write_json
from ctrkit.ctr.data.default import default_store
from ctrkit.ctr.data.loaders import make_loader
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.workload import MdafTask

ARMS = ("one, all cores", "one, half", "two, sparse", "two, dense", "two, by rule")
RATIOS = (
    ("one, all cores", "two, by rule"),
    ("one, half", "two, by rule"),
    ("two, dense", "two, sparse"),
)


@dataclass(frozen=True)
class Turn:
    """Some steps of one arm: the seconds of each step, and of its exchange of tables."""

    round: int
    arm: str
    step_s: list[float]
    tables_s: list[float]


class Bench:
    """One rank's side of the bench: a task of its own, and one that both ranks train."""

    def __init__(self, ranks: Ranks, batch_size: int, steps: int) -> None:
        self.ranks, self.steps = ranks, steps
        self.store = Store.open(default_store())
        self.phase = load_phase("phase3", {"dropout": "0"})
        self.cores = max(2, physical_cores())
        self.cell = make_cell(batch_size=batch_size, threads=1)
        self.together = self._task(ranks)
        self.batches = self._batches(ranks)
        self.exchange = self.together.summed.tables
        self.tables_s: list[float] = []
        self._time_tables()
        if ranks.rank == 0:
            self.alone = self._task(ALONE)
            self.whole = self._batches(ALONE)

    def _task(self, ranks: Ranks) -> MdafTask:
        steps = -(-len(self.store.rows("train")) // self.cell.batch_size)
        return MdafTask(
            self.store.meta.vocabulary, self.phase, steps_per_epoch=steps,
            device=torch.device("cpu"), ranks=ranks,
        )  # fmt: skip

    def _batches(self, ranks: Ranks) -> Iterator[Any]:
        loader = make_loader(
            self.store, self.cell, split="train", seed=1,
            history_length=self.phase.history_length, rank=ranks.rank, ranks=ranks.count,
        )  # fmt: skip
        while True:
            yield from loader

    def _time_tables(self) -> None:
        reduce = self.exchange.reduce

        def timed() -> None:
            dist.barrier()  # so that only the exchange is timed, not the wait for the other rank
            began_s = time.perf_counter()
            reduce()
            self.tables_s.append(time.perf_counter() - began_s)

        self.exchange.reduce = timed  # type: ignore[method-assign]

    def turn(self, number: int, arm: str) -> Turn | None:
        """Run some steps of an arm; None on a rank that only waits."""
        self.tables_s.clear()
        alone = arm.startswith("one")
        torch.set_num_threads(self.cores if arm == "one, all cores" else self.cores // 2)
        rule: dict[str, Callable[..., bool]] = {
            "two, sparse": lambda *_: True,
            "two, dense": lambda *_: False,
        }
        self.exchange.sparse = rule.get(arm, is_sparse_less)
        dist.barrier()
        step_s = []
        if not alone or self.ranks.rank == 0:
            task, batches = (self.alone, self.whole) if alone else (self.together, self.batches)
            for _ in range(self.steps + 1):
                batch = next(batches)
                began_s = time.perf_counter()
                task.train_step(batch, lambda _: None)
                step_s.append(time.perf_counter() - began_s)
        dist.barrier()
        if self.ranks.rank:
            return None
        # the first step warms up what the arm before has left cold
        return Turn(number, arm, step_s[1:], self.tables_s[1:])


def run_rank(options: argparse.Namespace) -> None:
    with joined("cpu", None, find_ranks({})) as ranks:
        bench = Bench(ranks, options.batch_size, options.steps)
        turns = []
        for number in range(options.rounds + 1):
            for arm in ARMS if number % 2 else reversed(ARMS):
                turn = bench.turn(number, arm)
                if turn is not None and number:  # round 0 warms up
                    turns.append(asdict(turn))
        if ranks.rank == 0:
            Path(options.turns).write_text(json.dumps(turns))


def ratios(turns: list[dict[str, Any]], base: str, other: str, what: str) -> list[float]:
    """The time of `base` over that of `other`, for each round."""
    mean = {(t["round"], t["arm"]): statistics.fmean(t[what]) for t in turns if t[what]}
    rounds = sorted({number for number, _ in mean})
    return [mean[number, base] / mean[number, other] for number in rounds]


def summary(turns: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base, other in RATIOS:
        found[f"{base} / {other}"] = _spread(ratios(turns, base, other, "step_s"))
    dense, sparse = "two, dense", "two, sparse"
    found["tables alone: dense / sparse"] = _spread(ratios(turns, dense, sparse, "tables_s"))
    return found


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def table(found: dict[str, Any], turns: list[dict[str, Any]], settings: dict[str, str]) -> str:
    lines = [
        "# Two ranks on the cores of one process", "",
        f"{settings['rounds']} rounds of {settings['steps']} steps of"
        f" {settings['batch_size']} rows, on {settings['cores']} cores;"
        f" load average before: {settings['load_average']}.", "",
        "| time over time | median | least | most |", "| --- " * 4 + "|",
        *(
            f"| {name} | {one['median']:.2f} | {one['low']:.2f} | {one['high']:.2f} |"
            for name, one in found.items()
        ),
        "", "| arm | a step, s | its tables, s |", "| --- " * 3 + "|",
    ]  # fmt: skip
    for arm in ARMS:
        steps, tables = (
            [s for t in turns if t["arm"] == arm for s in t[what]]
            for what in ("step_s", "tables_s")
        )
        shown = f"{statistics.median(tables):.4f}" if tables else ""
        lines.append(f"| {arm} | {statistics.median(steps):.3f} | {shown} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 steps of 256 rows")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--turns", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turns:
        run_rank(options)
        return
    if options.quick:
        options.rounds, options.steps, options.batch_size = 2, 2, 256
    load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    default_store()
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "turns.json"
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=2, run_id=uuid.uuid4().hex,
            rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1",
            max_restarts=0,
        )  # fmt: skip
        elastic_launch(config, sys.executable)(
            str(Path(__file__).resolve()), "--rounds", str(options.rounds),
            "--steps", str(options.steps), "--batch-size", str(options.batch_size),
            "--turns", str(path),
        )  # fmt: skip
        turns = json.loads(path.read_text())
    settings = {
        "rounds": str(options.rounds), "steps": str(options.steps),
        "batch_size": str(options.batch_size), "cores": str(max(2, physical_cores())),
        "load_average": load,
    }  # fmt: skip
    found = summary(turns)
    text = table(found, turns, settings)
    print(text, end="")
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(
        options.out / "ranks.json",
        {
            "settings": settings, "ratios": found, "turns": turns,
            "environment": describe_environment(),
        },
    )  # fmt: skip
    write_atomically(options.out / "ranks.md", text.encode())


if __name__ == "__main__":
    main()
