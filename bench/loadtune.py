"""Compares with loadtune 0.3.0 on an input-bound and a compute-bound workload, short epochs.

Both tools tune the same data set, model and step. What each recommends, and a grid of other
configurations, is then run for whole epochs in fresh processes, all of them in turn, without either
tool. Regret: how much longer a recommendation takes than the best of all that were run. Error: the
throughput (for ctrkit also the projected epoch) that was reported against that wall clock.

    python bench/loadtune.py --budget 60s --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hang_peers import LOADTUNE, install_loadtune
from sidebyside.common import BATCH_SIZE, BATCHES

from ctrkit.core.environment import describe_environment
from ctrkit.core.files import read_json, read_table, write_atomically, write_json

HERE = Path(__file__).resolve().parent / "sidebyside"
CASES = ("input", "compute")
EPOCHS = 3
_LONGEST_S = 900


@dataclass(frozen=True, kw_only=True)
class Recommended:
    """A tool's recommendation: arguments for the DataLoader, threads, and the promised rate."""

    tool: str
    seconds: float
    options: dict[str, Any]
    threads: int | None
    rows_per_s: float
    epoch_s: float | None = None


def run(argv: list[str], case: str, **variables: str) -> str:
    """Run a command; returns its stdout. A failure ends the bench."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=_LONGEST_S, check=False,
        env=os.environ | {"CASE": case} | variables,
        cwd=HERE,  # not here, where this file would be taken for the package
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{argv[1:4]}: exit code {done.returncode}: {done.stderr[-600:]}")
    return done.stdout


def ask_ctrkit(case: str, budget: str, folder: Path) -> Recommended:
    out = folder / f"probe-{case}"
    began_s = time.monotonic()
    run(
        [
            sys.executable, "-m", "ctrkit", "probe", "--device", "cpu", "--quiet",
            "--workload", f"{HERE / 'ours.py'}:workload", "--budget", budget,
            "--out", str(out),
        ],
        case,
    )  # fmt: skip
    seconds = time.monotonic() - began_s
    best = read_json(out / "recommendation.json")
    cell = best["cell"]
    rows = [
        row["rows_per_s"]
        for row in read_table(out / "trials.parquet").to_pylist()
        if row["kind"] == "full" and row["rows_per_s"] and _cell_of(row) == _cell_of(cell)
    ]
    # the mean epoch of a run: persistent workers start only in the first one
    started = [
        max(0.0, row["first_batch_s"] - row["epoch_restart_s"])
        for row in read_table(out / "trials.parquet").to_pylist()
        if row["kind"] == "full" and _cell_of(row) == _cell_of(cell)
        and row["first_batch_s"] is not None and row["epoch_restart_s"] is not None
    ]  # fmt: skip
    start_s = statistics.mean(started) / EPOCHS if started else 0.0
    options: dict[str, Any] = {"num_workers": cell["workers"]}
    if cell["workers"]:
        options |= {
            "prefetch_factor": cell["prefetch"],
            "persistent_workers": cell["persistent"],
            "multiprocessing_context": cell["start_method"],
        }
    return Recommended(
        tool="ctrkit", seconds=seconds, options=options, threads=cell["threads"],
        rows_per_s=statistics.mean(rows), epoch_s=best["projected_epoch_s"] + start_s,
    )  # fmt: skip


def _cell_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[axis] for axis in ("workers", "start_method", "prefetch", "persistent",
                                        "threads"))  # fmt: skip


def ask_loadtune(case: str, installed: Path, folder: Path) -> Recommended:
    """Run `loadtune tune` with its defaults; returns its best trial, or the baseline if better."""
    raw = folder / f"loadtune-{case}.json"
    began_s = time.monotonic()
    run(
        [
            sys.executable, "-m", "loadtune.cli", "tune", str(HERE / "theirs.py"),
            "--no-plots", "--out", str(folder / "report.md"), "--save-raw", str(raw),
        ],
        case, PYTHONPATH=str(installed),
    )  # fmt: skip
    seconds = time.monotonic() - began_s
    found = read_json(raw)
    results = [found["baseline"], *(trial["result"] for trial in found["trials"])]
    best = max((r for r in results if r and not r.get("error")), key=lambda r: r["throughput"])
    knobs = best["knobs"]
    changed = [name for name in ("compile", "amp") if knobs.get(name)]
    if changed:
        raise SystemExit(f"loadtune recommends {changed}, which the epochs here cannot do")
    options: dict[str, Any] = {"num_workers": knobs["num_workers"]}
    if knobs["num_workers"]:
        options["persistent_workers"] = knobs["persistent_workers"]
        if knobs["prefetch_factor"] is not None:
            options["prefetch_factor"] = knobs["prefetch_factor"]
    return Recommended(
        tool="loadtune", seconds=seconds, options=options, threads=knobs["num_threads"],
        rows_per_s=best["throughput"],
    )  # fmt: skip


def grid() -> list[tuple[dict[str, Any], int | None]]:
    """Other configurations, with torch's default number of threads."""
    found: list[tuple[dict[str, Any], int | None]] = [({"num_workers": 0}, None)]
    for workers in (1, 2, 4):
        found.append(({"num_workers": workers, "persistent_workers": True}, None))
    return found


def epoch_s(case: str, options: dict[str, Any], threads: int | None) -> float:
    """Mean wall-clock seconds of an epoch, over a run of EPOCHS epochs in its own process."""
    script = str(HERE / "epochs.py")
    said = run([sys.executable, script, json.dumps(options), str(EPOCHS), str(threads)], case)
    return statistics.mean(json.loads(said)["epoch_s"])


def compare(case: str, tools: list[Recommended], repeats: int) -> dict[str, Any]:
    """Run all configurations in turn, and compare the tools' claims with the results."""
    runs = [(tool.tool, tool.options, tool.threads) for tool in tools]
    runs += [(json.dumps(options), options, threads) for options, threads in grid()]
    walls: dict[str, list[float]] = {name: [] for name, _, _ in runs}
    for turn in range(repeats):
        for name, options, threads in runs if turn % 2 == 0 else reversed(runs):
            walls[name].append(epoch_s(case, options, threads))
            print(f"  {case} {name}: {walls[name][-1]:.2f} s an epoch", flush=True)
    means = {name: statistics.mean(times) for name, times in walls.items()}
    best_s, rows = min(means.values()), BATCHES[case] * BATCH_SIZE
    found: dict[str, Any] = {"case": case, "epoch_s": walls, "best_epoch_s": best_s, "tools": []}
    for tool in tools:
        real_s = means[tool.tool]
        spread = max(walls[tool.tool]) / min(walls[tool.tool]) - 1
        found["tools"].append(
            {
                "tool": tool.tool,
                "to_the_recommendation_s": tool.seconds,
                "options": tool.options,
                "threads": tool.threads,
                "regret": real_s / best_s - 1,
                "spread": spread,
                "reported_rows_per_s": tool.rows_per_s,
                "real_rows_per_s": rows / real_s,
                "throughput_error": tool.rows_per_s * real_s / rows - 1,
                "epoch_error": None if tool.epoch_s is None else tool.epoch_s / real_s - 1,
            }
        )
    return found


def markdown(results: list[dict[str, Any]], repeats: int) -> str:
    lines = [
        f"# Side by side with {LOADTUNE.replace('==', ' ')}",
        "",
        "`python bench/loadtune.py`: the same data set, model and step for both, loadtune with its",
        f"defaults. Then whole runs of {EPOCHS} epochs, {repeats} times in turn, without either.",
        "Regret is over the best of both recommendations and a grid of four others; the spread is",
        "that of the recommendation's own runs.",
        "",
        "| workload | tool | recommends | after | regret | spread | throughput error | "
        "epoch error |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        for tool in result["tools"]:
            epoch = "-" if tool["epoch_error"] is None else f"{tool['epoch_error']:+.1%}"
            options = {**tool["options"], "threads": tool["threads"]}
            said = ", ".join(f"{key}={value}" for key, value in options.items())
            lines.append(
                f"| {result['case']}-bound | {tool['tool']} | {said} | "
                f"{tool['to_the_recommendation_s']:.0f} s | {tool['regret']:+.1%} | "
                f"{tool['spread']:.1%} | {tool['throughput_error']:+.1%} | {epoch} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="60s", help="of ctrkit's probe")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--out", type=Path, default=Path("results/loadtune"))
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        installed = install_loadtune(folder / "installed")
        for case in options.cases.split(","):
            tools = [
                ask_ctrkit(case, options.budget, folder),
                ask_loadtune(case, installed, folder),
            ]
            for tool in tools:
                print(f"{case}: {tool.tool} recommends {tool.options} after {tool.seconds:.0f} s")
            results.append(compare(case, tools, options.repeats))
    print(markdown(results, options.repeats))
    write_json(
        options.out.with_suffix(".json"),
        {
            "settings": {"budget": options.budget, "repeats": options.repeats, "epochs": EPOCHS},
            "results": results,
            "environment": describe_environment(),
        },
    )
    write_atomically(options.out.with_suffix(".md"), markdown(results, options.repeats).encode())


if __name__ == "__main__":
    main()
