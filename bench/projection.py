"""Projected epoch against the epoch that was then really run, for several cells.

For each cell: a fresh probe of that cell alone, then a real epoch by its recommendation. Prints the
error of each projection and whether its interval held, and writes the table to results/.

    python bench/projection.py --rows 60000 --phase phase1 --batch-size 256 --budget 40s
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ctrkit.environment import describe_environment
from ctrkit.files import write_json

CELLS = ["thread:0", "batches:0", "batches:2", "rows:0", "rows:2"]


def ctrkit(*arguments: str, timeout_s: float) -> str:
    """Run the command line; its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "ctrkit.cli", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"ctrkit {' '.join(arguments)}: exit code {done.returncode}")
    return done.stdout


def measure_pair(
    cell: str, data: Path, folder: Path, options: argparse.Namespace
) -> dict[str, object]:
    """One probe and the epoch it foretold."""
    loader, _, workers = cell.partition(":")
    common = ["--data", str(data), "--phase", options.phase, "--set", f"model={options.model}"]
    probe = folder / f"{loader}-{workers}-probe"
    ctrkit(
        "probe", *common, "--device", options.device, "--loader", loader, "--workers", workers,
        "--batch-size", str(options.batch_size), "--budget", options.budget, "--out", str(probe),
        "--quiet", timeout_s=600,
    )  # fmt: skip
    recommendation = json.loads((probe / "recommendation.json").read_text())
    run = json.loads((probe / "run.json").read_text())
    train = folder / f"{loader}-{workers}-train"
    ctrkit(
        "train", *common, "--config", str(probe / "recommendation.json"), "--epochs", "1",
        "--out", str(train), "--quiet", timeout_s=3600,
    )  # fmt: skip
    with open(train / "epochs.csv") as file:
        actual_s = float(next(csv.DictReader(file))["wall_s"])
    projected_s = recommendation["projected_epoch_s"]
    low_s, high_s = (recommendation[f"projected_epoch_s_{end}"] for end in ("low", "high"))
    return {
        "cell": recommendation["cell"],
        "projected_epoch_s": projected_s,
        "low_s": low_s,
        "high_s": high_s,
        "actual_epoch_s": actual_s,
        "error": projected_s / actual_s - 1,
        "covered": low_s <= actual_s <= high_s,
        "epoch_per_probe": actual_s / run["wall_s"],
        "flags": recommendation["flags"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--phase", default="phase1")
    parser.add_argument("--model", default="mamba")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--budget", default="30s")
    parser.add_argument("--cells", default=",".join(CELLS), help="loader:workers,...")
    parser.add_argument("--out", type=Path, default=Path("results/projection.json"))
    options = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = folder / "store"
        size = ["--rows", str(options.rows), "--users", "2000", "--items", "4000"]
        ctrkit("data", "synth", "--out", str(data), *size, timeout_s=300)
        print(f"{'cell':<12} {'error':>7} {'interval':>17} {'held':>5} {'epoch/probe':>12}")
        for cell in options.cells.split(","):
            pair = measure_pair(cell, data, folder, options)
            pairs.append(pair)
            low, high = (pair[end] / pair["projected_epoch_s"] - 1 for end in ("low_s", "high_s"))
            held = "yes" if pair["covered"] else "no"
            interval = f"{low:+.1%} .. {high:+.1%}"
            print(
                f"{cell:<12} {pair['error']:>+7.1%} {interval:>17} {held:>5} "
                f"{pair['epoch_per_probe']:>12.1f}",
                flush=True,
            )
    errors = sorted(abs(pair["error"]) for pair in pairs)
    covered = sum(pair["covered"] for pair in pairs)
    print(f"median |error| {statistics.median(errors):.1%}, worst {errors[-1]:.1%}, "
          f"interval held in {covered} of {len(pairs)}")  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    write_json(
        options.out,
        {"settings": settings, "pairs": pairs, "environment": describe_environment()},
    )


if __name__ == "__main__":
    main()
