"""Compares the Phase 3 step with a straightforward one, and shows how its time grows.

Every measurement is a process of its own, so that its peak memory is its own; what is compared runs
in turn, round after round, and a ratio is the median over the rounds with the least and the most.

1. The step with its loader: `thread` loader, blocked scan, fused Adam, against the per-row loader,
   a materialised scan and Adam as torch runs it by default (`bench/step_baseline.py`). The same
   rows, parameters and random numbers: the losses must agree, or the bench fails.
2. Clipping and the update alone: fused Adam, torch's default, and `sparse-adam` (other numerics).
3. One scan layer, forward and backward, one thread, full histories: ours, a plain autograd loop,
   the materialised one; peak memory above inputs, outputs and their gradients.
4. Growth of our step with batch, rows of the store, vocabulary and history length.

    python bench/step.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from ctrkit.core.environment import describe_environment, physical_cores
from ctrkit.core.files import read_json, write_atomically, write_json
from ctrkit.ctr.data.default import default_store
from ctrkit.ctr.data.planted import REFERENCE
from ctrkit.ctr.data.synthetic import generate_store

#: The losses of two steps may differ by this share, as float32 sums depend on the order.
TOLERANCE = 1e-3
#: The most that a child may use, as a share of the free memory.
MEMORY_SHARE = 0.7
MB = 1e6


class Bench:
    """Runs measurements, and skips those that fit neither memory nor time."""

    def __init__(self, threads: int, most_s: float) -> None:
        self.threads, self.most_s = threads, most_s

    def run(self, what: str, **spec: Any) -> dict[str, Any] | None:
        """Run one measurement; None if the time limit or a lack of memory ended it."""
        spec = {"what": what, "threads": self.threads, **spec}
        child = Path(__file__).with_name("step_child.py")
        told = " ".join(f"{key}={value}" for key, value in spec.items() if key != "store")
        print(f"  {told}", file=sys.stderr, flush=True)
        try:
            done = subprocess.run(
                [sys.executable, str(child), json.dumps(spec)],
                stdout=subprocess.PIPE, timeout=self.most_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return None
        if done.returncode == -9:
            return None
        if done.returncode:
            raise SystemExit(f"bench/step_child.py failed: {told}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def fits(needed_bytes: float) -> bool:
    """Whether a process of this size may be started."""
    return needed_bytes < MEMORY_SHARE * psutil.virtual_memory().available


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median, the minimum and the maximum."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratios(base: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """The base's value over ours, round by round, as median, minimum and maximum."""
    return spread([one / other for one, other in zip(base, ours, strict=True)])


def measure_steps(
    bench: Bench, store: str, batches: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Measure both steps at each batch; the straightforward one is extrapolated if too large."""
    rows: list[dict[str, Any]] = []
    for batch in batches:
        known = [row for row in rows if row["measured"]]
        may_run = all(row["measured"] for row in rows) and (
            not known or (
                fits(_line(known, "straight_peak_bytes", batch))
                and 4 * _line(known, "straight_s", batch) < bench.most_s
            )
        )  # fmt: skip
        # large steps take minutes, so one round of them is enough
        turns = rounds if batch <= 256 else 1
        ours, straight = [], []
        for _ in range(turns):
            spec = {"store": store, "batch": batch, "warmup": 1}
            ours.append(bench.run("step", kind="ours", steps=4 if rounds > 1 else 2, **spec))
            if may_run:
                straight.append(bench.run("step", kind="straight", steps=1, **spec))
        if not any(ours):
            print(f"  batch {batch}: took more than {bench.most_s} s", file=sys.stderr)
            break
        rows.append(_step_row(batch, ours, straight if may_run and all(straight) else None, known))
    return rows


def _step_row(
    batch: int,
    ours: Sequence[dict[str, Any] | None],
    straight: Sequence[dict[str, Any] | None] | None,
    known: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    mine = [one for one in ours if one is not None]
    seconds = [statistics.median(one["seconds"]) for one in mine]
    row: dict[str, Any] = {
        "batch": batch, "ours_s": statistics.median(seconds), "measured": straight is not None,
        "ours_peak_bytes": max(one["peak_bytes"] for one in mine),
        "ours_before_bytes": max(one["before_bytes"] for one in mine),
    }  # fmt: skip
    if straight is None:
        if len(known) >= 2:
            row["straight_s"] = _line(known, "straight_s", batch)
            row["straight_peak_bytes"] = _line(known, "straight_peak_bytes", batch)
            row["time"] = ratios([row["straight_s"]], [row["ours_s"]])
            row["memory"] = ratios([row["straight_peak_bytes"]], [row["ours_peak_bytes"]])
        return row
    theirs = [one for one in straight if one is not None]
    their_seconds = [statistics.median(one["seconds"]) for one in theirs]
    both = min(len(mine[0]["losses"]), len(theirs[0]["losses"]))
    error = max(
        abs(a - b) / abs(b)
        for a, b in zip(mine[0]["losses"][:both], theirs[0]["losses"][:both], strict=True)
    )
    if error > TOLERANCE:
        raise SystemExit(f"batch {batch}: the losses differ by {error:.1e}: not the same step")
    return row | {
        "straight_s": statistics.median(their_seconds),
        "straight_peak_bytes": max(one["peak_bytes"] for one in theirs),
        "time": ratios(their_seconds, seconds),
        "memory": ratios(
            [one["peak_bytes"] for one in theirs], [one["peak_bytes"] for one in mine]
        ),
        "losses_differ": error, "losses": both,
    }  # fmt: skip


def _line(known: Sequence[dict[str, Any]], name: str, batch: int) -> float:
    """A value on the line through the two largest batches, or through one and the origin."""
    if len(known) < 2:
        return float(known[-1][name] * batch / known[-1]["batch"])
    one, other = known[-2:]
    slope = (other[name] - one[name]) / (other["batch"] - one["batch"])
    return float(other[name] + slope * (batch - other["batch"]))


def measure_updates(bench: Bench, batches: Iterable[int], steps: int) -> list[dict[str, Any]]:
    """Measure clipping and update: torch's default over fused, and over sparse-adam."""
    rows = []
    for batch in batches:
        found = bench.run("adam", batch=batch, steps=steps)
        if found is not None:
            of = found["seconds_of"]
            rows.append({
                "batch": batch, "fused_s": statistics.median(of["fused"]),
                "default_over_fused": ratios(of["default"], of["fused"]),
                "default_over_sparse": ratios(of["default"], of["sparse-adam"]),
            })  # fmt: skip
    return rows


def measure_scans(
    bench: Bench, batches: Iterable[int], length: int, rounds: int
) -> list[dict[str, Any]]:
    """Measure one layer's scan in three ways, with one thread."""
    rows = []
    for batch in batches:
        seconds: dict[str, list[float]] = {}
        above: dict[str, float] = {}
        for turn in range(rounds):
            for kind in ("ours", "loop", "materialised"):
                if turn and kind == "materialised" and batch > 64:
                    continue
                steps = 3 if kind == "ours" else 1
                found = bench.run(
                    "scan", kind=kind, batch=batch, length=length, steps=steps, threads=1
                )
                if found is not None:
                    seconds.setdefault(kind, []).append(statistics.median(found["seconds"]))
                    above[kind] = max(above.get(kind, 0.0), found["above_bytes"])
        if "ours" not in seconds:
            break
        row: dict[str, Any] = {"batch": batch, "ours_s": statistics.median(seconds["ours"])}
        row["ours_above_bytes"] = above["ours"]
        for kind in ("loop", "materialised"):
            if kind in seconds:
                turns = min(len(seconds[kind]), len(seconds["ours"]))
                row[kind] = ratios(seconds[kind][:turns], seconds["ours"][:turns])
                row[f"{kind}_memory"] = above[kind] / max(above["ours"], 1.0)
        rows.append(row)
    return rows


def measure_growth(bench: Bench, batch: int, rounds: int, quick: bool) -> list[dict[str, Any]]:
    """Measure our step with one size changed, in turn with the default sizes."""
    usual = {"batch": batch, "length": 50, "vocabulary": 1.0, "warmup": 1, "steps": 3}
    changes: list[dict[str, Any]] = [
        {"length": 25}, {"length": 100}, {"vocabulary": 0.25}, {"vocabulary": 2.0},
        {"batch": batch // 4}, {"batch": batch * 4},
    ]  # fmt: skip
    rows = []
    for change in changes[:2] if quick else changes:
        base: list[dict[str, Any]] = []
        changed: list[dict[str, Any]] = []
        for _ in range(rounds):
            for spec, into in ((usual, base), (usual | change, changed)):
                found = bench.run("growth", **spec)
                if found is not None:
                    into.append(found)
        if base and len(base) == len(changed):
            seconds = [[statistics.median(one["seconds"]) for one in half]
                       for half in (changed, base)]  # fmt: skip
            peak = [max(one["peak_bytes"] for one in half) for half in (changed, base)]
            rows.append({"change": change, "time": ratios(*seconds), "memory": peak[0] / peak[1]})
    return rows


def measure_rows(bench: Bench, store: str, batch: int, rounds: int) -> dict[str, Any]:
    """Measure the step with its loader on an eighth of the store's rows, beside the whole store."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "store"
        part = REFERENCE.rows // 8
        generate_store(small, rows=part, users=REFERENCE.users, items=REFERENCE.items)
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for path, into in zip((store, str(small)), seconds, strict=True):
                found = bench.run("step", kind="ours", store=path, batch=batch, warmup=1, steps=4)
                if found is None:
                    return {}
                into.append(statistics.median(found["seconds"]))
    return {"rows": [REFERENCE.rows, part], "batch": batch, "time": ratios(*seconds)}


def _times(found: dict[str, float]) -> str:
    if math.isclose(found["low"], found["high"]):
        return f"{found['median']:.2f}"
    return f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})"


def table(found: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# The Phase 3 step", "",
        "A ratio is the other one over ours: median over interleaved rounds (least-most).", "",
        "## The step with its loader, against a straightforward one", "",
        "| batch | ours s | straightforward s | time ratio | peak MB | memory ratio |"
        " losses differ by |",
        "| --- " * 7 + "|",
    ]  # fmt: skip
    for row in found["steps"]:
        if "time" not in row:
            lines.append(f"| {row['batch']} | {row['ours_s']:.3f} | not run | | "
                         f"{row['ours_peak_bytes'] / MB:.0f} | | |")  # fmt: skip
            continue
        mark = "" if row["measured"] else " *extrapolated*"
        differ = f"{row['losses_differ']:.0e}" if row["measured"] else ""
        lines.append(
            f"| {row['batch']} | {row['ours_s']:.3f} | {row['straight_s']:.2f}{mark} |"
            f" {_times(row['time'])}{mark} | {row['ours_peak_bytes'] / MB:.0f} |"
            f" {_times(row['memory'])}{mark} | {differ} |"
        )
    lines += ["", "## Clipping and the update alone", "",
              "| batch | fused s | default / fused | default / sparse-adam (other numerics) |",
              "| --- " * 4 + "|"]  # fmt: skip
    lines += [
        f"| {row['batch']} | {row['fused_s']:.3f} | {_times(row['default_over_fused'])} |"
        f" {_times(row['default_over_sparse'])} |"
        for row in found["updates"]
    ]
    lines += ["", "## One scan, forward and backward, one thread, full histories", "",
              "| batch | ours s | loop / ours | materialised / ours | ours MB above | loop memory |"
              " materialised memory |", "| --- " * 7 + "|"]  # fmt: skip
    for row in found["scans"]:
        cells = [_times(row[kind]) if kind in row else "" for kind in ("loop", "materialised")]
        cells.append(f"{row['ours_above_bytes'] / MB:.0f}")
        cells += [f"{row[f'{kind}_memory']:.1f} x" if kind in row else ""
                  for kind in ("loop", "materialised")]  # fmt: skip
        lines.append(f"| {row['batch']} | {row['ours_s']:.3f} | " + " | ".join(cells) + " |")
    lines += ["", "## Growth of our step, beside the one of batch "
              f"{found['settings']['growth_batch']}, 50 steps of history, the whole vocabulary", "",
              "| changed | time | peak memory |", "| --- " * 3 + "|"]  # fmt: skip
    for row in found["growth"]:
        what = ", ".join(f"{key} {value}" for key, value in row["change"].items())
        lines.append(f"| {what} | {_times(row['time'])} x | {row['memory']:.2f} x |")
    if rows := found.get("rows"):
        lines.append(f"| {rows['rows'][0]:,} rows in the store instead of {rows['rows'][1]:,} |"
                     f" {_times(rows['time'])} x | |")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer batches and rounds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--most-s", type=float, default=400.0, help="for one measurement")
    parser.add_argument("--only", default="", help="parts to measure; the others are kept")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    quick, rounds = options.quick, 1 if options.quick else options.rounds
    load = [round(value, 1) for value in os.getloadavg()]
    bench = Bench(options.threads, options.most_s)
    store = str(default_store())
    growth_batch = 64 if quick else 256
    measures: dict[str, Callable[[], Any]] = {
        "steps": lambda: measure_steps(
            bench, store, (16, 64) if quick else (64, 256, 512, 1024, 2048), rounds
        ),
        "updates": lambda: measure_updates(
            bench, (64,) if quick else (256, 2048), 2 if quick else 5
        ),
        "scans": lambda: measure_scans(bench, (16,) if quick else (64, 256), 50, rounds),
        "growth": lambda: measure_growth(bench, growth_batch, rounds, quick),
        "rows": lambda: None if quick else measure_rows(bench, store, growth_batch, rounds),
    }
    only = set(filter(None, options.only.split(","))) or set(measures)
    kept = {} if only == set(measures) else read_json(options.out / "step.json")
    found: dict[str, Any] = {
        "settings": {
            "quick": quick, "rounds": rounds, "threads": options.threads,
            "load_average_before": load, "growth_batch": growth_batch, "only": sorted(only),
        },
        **{name: measure() if name in only else kept[name] for name, measure in measures.items()},
    }  # fmt: skip
    found["settings"]["load_average_after"] = [round(value, 1) for value in os.getloadavg()]
    text = table(found)
    print(text, end="")
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "step.json", {**found, "environment": describe_environment()})
    write_atomically(options.out / "step.md", text.encode())


if __name__ == "__main__":
    main()
