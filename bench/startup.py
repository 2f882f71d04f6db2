"""Measures start times: of the commands, of a probe's trial, of opening a store of any size.

Commands are whole processes, run in turn, beside a bare interpreter and one that imports torch. A
trial's own overhead is all of its wall time but its one step (batch 64): interpreter, imports,
data, model, and the end of the process. A store is opened in a fresh process, its imports done.

    python bench/startup.py --rows 1000000,10000000,26000000
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ctrkit.core.config import ChildSpec, WindowPlan, WorkloadSpec, encode, make_cell
from ctrkit.core.environment import describe_environment
from ctrkit.core.files import read_json, write_atomically, write_json
from ctrkit.ctr.plugin import load_phase
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import TimeLimits

LIMITS_S = {"ctrkit --help": 0.25, "ctrkit report": 1.0, "a trial's overhead": 4.0}
OPEN_LIMIT_S = 0.05
CTRKIT = str(Path(sys.executable).with_name("ctrkit"))
OPEN = """
import sys, time
import pyarrow, pyarrow.ipc
from ctrkit.ctr.data.store import Store
began_s = time.perf_counter()
store = Store.open(sys.argv[1])
took_s = time.perf_counter() - began_s
print(took_s, len(store.impressions))
"""
ONE_STEP = WindowPlan(
    window_s=0.0, min_steps=1, max_steps=1, attribution_steps=0, boundary=False,
    validation_batches=0, checkpoints=0,
)  # fmt: skip


def run(argv: Sequence[str]) -> str:
    """Run a command to its end; returns its stdout."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: exit code {done.returncode}")
    return done.stdout


def wall_s(argv: Sequence[str]) -> float:
    began_s = time.perf_counter()
    run(argv)
    return time.perf_counter() - began_s


def trial_overhead_s(folder: Path, data: str) -> float:
    """The wall-clock seconds of a Phase 3 trial, without those of its steps."""
    phase = load_phase("phase3")
    spec = ChildSpec(
        kind="full", folder=str(folder), windows=ONE_STEP,
        workload=WorkloadSpec(data=data, settings=encode(phase)), cell=make_cell(batch_size=64),
    )  # fmt: skip
    outcome = run_child(spec, time_limits=TimeLimits(), evidence_folder=folder / "evidence")
    if outcome.verdict != "ok":
        raise SystemExit(f"the trial ended as {outcome.verdict}: {outcome.reason}")
    stamps = read_json(folder / "measurement.json")["stamps"]
    return outcome.wall_s - sum(
        done - asked for asked, done in zip(stamps["asked_s"], stamps["done_s"], strict=True)
    )


def measure_commands(folder: Path, data: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each command and of a trial, measured in turn."""
    probed = str(folder / "probed")
    loader = folder / "loader.py"
    loader.write_text("import torch\n\n\ndef make_loader():\n    return [torch.zeros(8)] * 50\n")
    run([CTRKIT, "probe", "--workload", f"{loader}:make_loader", "--budget", "30s",
         "--out", probed, "--quiet"])  # fmt: skip
    measured: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: wall_s([sys.executable, "-c", "pass"]),
        "python -c 'import torch'": lambda: wall_s([sys.executable, "-c", "import torch"]),
        "ctrkit --help": lambda: wall_s([CTRKIT, "--help"]),
        "ctrkit report": lambda: wall_s([CTRKIT, "report", probed]),
        "a trial's overhead": lambda: trial_overhead_s(folder / "trial", data),
    }
    taken: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(rounds):
        for name, measure in measured.items():
            taken[name].append(measure())
    return taken


def measure_stores(stores: Sequence[str], rounds: int) -> dict[int, list[float]]:
    """Seconds to open each store, by its number of impressions, measured in turn."""
    taken: dict[int, list[float]] = {}
    for _ in range(rounds):
        for store in stores:
            seconds, rows = run([sys.executable, "-c", OPEN, store]).split()
            taken.setdefault(int(rows), []).append(float(seconds))
    return taken


def table(commands: dict[str, list[float]], stores: dict[int, list[float]]) -> str:
    """The results as Markdown; ratios are of medians within the run."""
    bare_s = statistics.median(commands["python -c pass"])
    torch_s = statistics.median(commands["python -c 'import torch'"])
    lines = [
        "# Start-up", "",
        "| what | median s | min .. max | x bare interpreter | x `import torch` | target |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, taken in commands.items():
        median_s = statistics.median(taken)
        lines.append(
            f"| {name} | {median_s:.3f} | {min(taken):.3f} .. {max(taken):.3f} |"
            f" {median_s / bare_s:.1f} | {median_s / torch_s:.2f} | {_held(name, median_s)} |"
        )
    first_s = statistics.median(next(iter(stores.values())))
    lines += [
        "", "| store of | median ms | min .. max | x the first | target |",
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for rows, taken in stores.items():
        median_s = statistics.median(taken)
        held = "held" if median_s < OPEN_LIMIT_S else "missed"
        lines.append(
            f"| {rows:,} rows | {1000 * median_s:.1f} | {1000 * min(taken):.1f} .. "
            f"{1000 * max(taken):.1f} | {median_s / first_s:.2f} |"
            f" < {1000 * OPEN_LIMIT_S:.0f} ms: {held} |"
        )
    return "\n".join(lines) + "\n"


def _held(name: str, median_s: float) -> str:
    limit_s = LIMITS_S.get(name)
    if limit_s is None:
        return ""
    return f"< {limit_s:g} s: {'held' if median_s < limit_s else 'missed'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", default="1000000", help="sizes of the stores to generate")
    parser.add_argument("--store", action="append", default=[], help="a store to open as well")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ctrkit-startup-") as temporary:
        folder, stores = Path(temporary), []
        for rows in options.rows.split(","):
            stores.append(str(folder / f"store-{rows}"))
            run([CTRKIT, "data", "synth", "--rows", rows, "--out", stores[-1]])
        commands = measure_commands(folder, stores[0], options.rounds)
        opened = measure_stores([*stores, *options.store], options.rounds)
    text = table(commands, opened)
    print(text, end="")
    settings = {"rounds": options.rounds, "rows": options.rows, "stores given": len(options.store)}
    settings["load_average"] = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    found = {"settings": settings, "commands_s": commands, "opening_s": opened}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "startup.json", {**found, "environment": describe_environment()})
    write_atomically(options.out / "startup.md", text.encode())


if __name__ == "__main__":
    main()
