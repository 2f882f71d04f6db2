"""Pairs of a projection and the epoch that was then really run, collected over many sittings.

Each pair: a fresh probe of one cell, with at most a sixth of the epoch's time, and then that very
epoch by `ctrkit train --config`. The size of the data is chosen so that an epoch takes about
`--epoch-seconds`. Pairs are added to results/pairs.json as they come; the summary is of all pairs
there whose epoch took at least 6 times as long as its probe.

    python bench/pairs.py --pairs 8 --epoch-seconds 75
    python bench/pairs.py --summary
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ctrkit.core.environment import describe_environment, machine_fingerprint
from ctrkit.core.files import read_json, read_table, write_atomically, write_json, write_table

LOADERS = Path(__file__).resolve().parent / "pairs_loaders.py"
LEAST_RATIO = 6.0
INCONCLUSIVE = 3
SIZING_ROWS, SIZING_BATCHES = 20_000, 400


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is probed and run: `data` is `synthetic`, `interactions` or a name in LOADERS."""

    data: str
    loader: str
    workers: int
    batch_size: int
    model: str = "mamba"

    @property
    def own(self) -> bool:
        return self.loader == "custom"

    @property
    def name(self) -> str:
        model = "" if self.own else f"-{self.model}"
        return f"{self.data}{model}-{self.loader}-w{self.workers}-b{self.batch_size}"


CASES = (
    Case(data="synthetic", loader="thread", workers=0, batch_size=256),
    Case(data="synthetic", loader="batches", workers=0, batch_size=128),
    Case(data="synthetic", loader="batches", workers=2, batch_size=256),
    Case(data="synthetic", loader="rows", workers=0, batch_size=256, model="bst"),
    Case(data="synthetic", loader="rows", workers=2, batch_size=128, model="bst"),
    Case(data="interactions", loader="thread", workers=0, batch_size=128, model="bst"),
    Case(data="interactions", loader="rows", workers=2, batch_size=256),
    Case(data="interactions", loader="batches", workers=0, batch_size=256, model="bst"),
    Case(data="stored", loader="custom", workers=0, batch_size=128),
    Case(data="stored", loader="custom", workers=2, batch_size=128),
    Case(data="decoded", loader="custom", workers=0, batch_size=256),
    Case(data="decoded", loader="custom", workers=2, batch_size=256),
)


class TooShort(Exception):
    """A sixth of the epoch was too short for a probe: give longer epochs."""


def ctrkit(*arguments: object, batches: int = 0, timeout_s: float) -> None:
    """Run the command line; its progress is not shown."""
    done = subprocess.run(
        [sys.executable, "-m", "ctrkit", *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=timeout_s,
        check=False, env=os.environ | {"PAIRS_BATCHES": str(batches)},
    )  # fmt: skip
    if done.returncode == INCONCLUSIVE:
        raise TooShort(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise SystemExit(
            f"ctrkit {arguments[0]}: exit code {done.returncode}: {done.stderr[-400:]}"
        )


class Data:
    """Data sets in the sizes that are asked for, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.step_s: dict[str, float] = {}

    def options(self, case: Case, rows: int) -> list[object]:
        """The options that name the data of the case, made first if they are not there."""
        if case.own:
            return ["--workload", f"{LOADERS}:{case.data}"]
        path = self.folder / f"{case.data}-{rows}"
        if not path.exists():
            make = self._synthetic if case.data == "synthetic" else self._interactions
            make(path, rows)
        return ["--data", path, "--phase", "phase1", "--set", f"model={case.model}"]

    @staticmethod
    def _synthetic(path: Path, rows: int) -> None:
        size = ["--rows", rows, "--users", max(200, rows // 30), "--items", max(400, rows // 20)]
        ctrkit("data", "synth", "--out", path, *size, timeout_s=300)

    def _interactions(self, path: Path, rows: int) -> None:
        """A log of ratings like MovieLens: few users with many events each."""
        draw = np.random.default_rng(rows)
        users = max(50, rows // 100)
        item = (draw.pareto(1.2, rows) * 20).astype(np.int64) % 1700
        log = pa.table(
            {
                "user": draw.integers(0, users, rows),
                "item": item,
                "rating": draw.integers(1, 6, rows),
                "time": 874_000_000 + np.sort(draw.integers(0, 20_000_000, rows)),
            }
        )
        file = path.with_suffix(".parquet")
        write_table(file, log)
        columns = ["--user", "user", "--item", "item", "--time", "time", "--label", "rating"]
        ctrkit(
            "data", "prepare", "--table", file, *columns, "--label-threshold", 4, "--out", path,
            timeout_s=300,
        )  # fmt: skip


def cell_options(case: Case) -> list[object]:
    options: list[object] = ["--device", "cpu", "--workers", case.workers]
    options += ["--batch-size", case.batch_size]
    return options if case.own else [*options, "--loader", case.loader]


def probe(case: Case, data: list[object], batches: int, budget_s: float, out: Path) -> None:
    ctrkit(
        "probe", *data, *cell_options(case), "--budget", f"{budget_s:.0f}s", "--out", out,
        "--quiet", batches=batches, timeout_s=600,
    )  # fmt: skip


def epoch_size(
    case: Case, data: Data, seconds: float, budget_s: float, known: Sequence[dict[str, Any]]
) -> int:
    """Rows, or batches of a loader of one's own, that take about so long."""
    if case.name not in data.step_s:
        same = [pair for pair in known if pair["case"] == case.name]
        if same:
            data.step_s[case.name] = same[-1]["actual_epoch_s"] / same[-1]["size"]
        else:
            out = data.folder / f"sizing-{case.name}"
            sizing_s = max(20.0, 1.5 * budget_s)
            probe(case, data.options(case, SIZING_ROWS), SIZING_BATCHES, sizing_s, out)
            best = read_json(out / "recommendation.json")
            unit = SIZING_BATCHES if case.own else SIZING_ROWS
            data.step_s[case.name] = best["projected_epoch_s"] / unit
    size = seconds / data.step_s[case.name]
    return max(50, round(size)) if case.own else max(2000, round(size / 1000) * 1000)


def run_pair(
    case: Case,
    data: Data,
    seconds: float,
    budget_s: float,
    known: Sequence[dict[str, Any]],
    folder: Path,
) -> dict[str, Any]:
    """A probe and the epoch that it foretold."""
    size = epoch_size(case, data, seconds, budget_s, known)
    batches = size if case.own else 0
    options = data.options(case, size)
    load = os.getloadavg()[0]
    probe(case, options, batches, budget_s, folder / "probe")
    best = read_json(folder / "probe" / "recommendation.json")
    took_s = read_json(folder / "probe" / "run.json")["wall_s"]
    ctrkit(
        "train", *options, "--config", folder / "probe" / "recommendation.json", "--epochs", 1,
        "--out", folder / "train", "--quiet", batches=batches, timeout_s=3600,
    )  # fmt: skip
    with open(folder / "train" / "epochs.csv") as file:
        actual_s = float(next(csv.DictReader(file))["wall_s"])
    trials = read_table(folder / "probe" / "trials.parquet").to_pylist()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_fingerprint(),
        "case": case.name,
        "workload": case.data,
        "model": None if case.own else case.model,
        "cell": best["cell"],
        "size": size,
        "launches": sum(row["kind"] == "full" and row["verdict"] == "ok" for row in trials),
        "probe_s": took_s,
        "epoch_per_probe": actual_s / took_s,
        "projected_epoch_s": best["projected_epoch_s"],
        "low_s": best["projected_epoch_s_low"],
        "high_s": best["projected_epoch_s_high"],
        "actual_epoch_s": actual_s,
        "error": best["projected_epoch_s"] / actual_s - 1,
        "covered": best["projected_epoch_s_low"] <= actual_s <= best["projected_epoch_s_high"],
        "flags": best["flags"],
        "load_average": load,
    }


def summary(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors and coverage of the pairs that count, all and without flags."""
    counted = [pair for pair in pairs if pair["epoch_per_probe"] >= LEAST_RATIO]
    found: dict[str, Any] = {"pairs": len(pairs), "counted": len(counted)}
    plain = [pair for pair in counted if not pair["flags"]]
    for name, group in (("all", counted), ("unflagged", plain)):
        errors = [abs(pair["error"]) for pair in group]
        halves = [pair["high_s"] / pair["projected_epoch_s"] - 1 for pair in group]
        found[name] = {
            "pairs": len(group),
            "error_median": statistics.median(errors) if errors else None,
            "error_p95": _p95(errors),
            "coverage": sum(pair["covered"] for pair in group) / len(group) if group else None,
            "half_width_median": statistics.median(halves) if halves else None,
        }
    return found


def _p95(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def markdown(pairs: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    lines = [
        "# Projections and the epochs that were then run",
        "",
        f"`python bench/pairs.py`: {found['pairs']} pairs, {found['counted']} of them with an "
        f"epoch at least {LEAST_RATIO:.0f} times as long as its probe; only these count.",
        "",
        "| | pairs | median error | 95th percentile | held by the interval | median half-width |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("all", "unflagged"):
        one = found[name]
        lines.append(
            f"| {name} | {one['pairs']} | {share(one['error_median'])} | "
            f"{share(one['error_p95'])} | {share(one['coverage'])} | "
            f"{share(one['half_width_median'])} |"
        )
    lines += [
        "",
        "| date | case | epoch | epoch / probe | error | interval | held | flags |",
        "| --- | --- | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for pair in pairs:
        low, high = (pair[end] / pair["projected_epoch_s"] - 1 for end in ("low_s", "high_s"))
        lines.append(
            f"| {pair['date'][:16].replace('T', ' ')} | {pair['case']} | "
            f"{pair['actual_epoch_s']:.0f} s | {pair['epoch_per_probe']:.1f} | "
            f"{pair['error']:+.1%} | {low:+.1%} .. {high:+.1%} | "
            f"{'yes' if pair['covered'] else 'no'} | {', '.join(pair['flags'])} |"
        )
    return "\n".join([*lines, ""])


def save(out: Path, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = summary(pairs)
    write_json(
        out.with_suffix(".json"),
        {"summary": found, "environment": describe_environment(), "pairs": list(pairs)},
    )
    write_atomically(out.with_suffix(".md"), markdown(pairs, found).encode())
    return found


def chosen_cases(names: str, pairs: Sequence[dict[str, Any]], count: int) -> list[Case]:
    """So many cases, those with the fewest pairs so far first, in random order among equals."""
    known = {case.name: case for case in CASES}
    wanted = [known[name] for name in names.split(",")] if names else list(CASES)
    done = {case.name: sum(pair["case"] == case.name for pair in pairs) for case in wanted}
    chosen: list[Case] = []
    for _ in range(count):
        case = min(wanted, key=lambda c: (done[c.name], random.random()))
        done[case.name] += 1
        chosen.append(case)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--epoch-seconds", type=float, default=75.0)
    parser.add_argument("--budget", type=float, help="of a probe, in seconds; else a part of it")
    parser.add_argument("--cases", default="", help="names, with commas between; --list shows them")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--summary", action="store_true", help="only sum up what is there")
    parser.add_argument("--out", type=Path, default=Path("results/pairs"))
    options = parser.parse_args()
    if options.list:
        print("\n".join(case.name for case in CASES))
        return
    # a little less than is allowed: a probe ends what it has begun
    budget_s = options.budget or max(5.0, options.epoch_seconds / (LEAST_RATIO + 0.75))
    file = options.out.with_suffix(".json")
    pairs: list[dict[str, Any]] = read_json(file)["pairs"] if file.is_file() else []
    with tempfile.TemporaryDirectory() as temporary:
        data = Data(Path(temporary))
        cases = [] if options.summary else chosen_cases(options.cases, pairs, options.pairs)
        for i, case in enumerate(cases):
            try:
                pair = run_pair(
                    case, data, options.epoch_seconds, budget_s, pairs,
                    Path(temporary) / f"pair{i}",
                )  # fmt: skip
            except TooShort as error:
                print(f"{case.name:<36} no pair: {error}", flush=True)
                continue
            pairs.append(pair)
            save(options.out, pairs)
            print(
                f"{case.name:<36} {pair['actual_epoch_s']:6.1f} s  x{pair['epoch_per_probe']:.1f} "
                f"error {pair['error']:+.1%} {'held' if pair['covered'] else 'NOT held'} "
                f"{', '.join(pair['flags'])}",
                flush=True,
            )
    print(json.dumps(save(options.out, pairs), indent=2))


if __name__ == "__main__":
    main()
