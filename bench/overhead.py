"""Measures the observer's cost to a script: CPU time of a step and of the start, with and without.

The same small script runs in turn without and with the observer of `ctrkit train -- COMMAND`, many
times. What is compared is CPU time (getrusage), which other programs on the machine hardly change,
beside wall time. A step of the script is much shorter than 5 ms, so that its spread does not
hide the observer; the limit is 1 % of a step of 5 ms, and 0.5 s at the start.

    python bench/overhead.py --pairs 15 --steps 3000
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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrkit.core.config import Cell, ChildSpec, ScriptSpec, WorkloadSpec
from ctrkit.core.files import write_json
from ctrkit.core.lifeline import FOLDER_VARIABLE
from ctrkit.supervise.script_launch import script_invocation

STEP_S, STEP_SHARE, START_S = 0.005, 0.01, 0.5
SCRIPT = """
import json, resource, sys, time
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
import torch
torch.set_num_threads(1)
from torch.utils.data import DataLoader, TensorDataset
WARM, STEPS = 200, int(sys.argv[1])
loader = DataLoader(TensorDataset(torch.rand((WARM + STEPS) * 4, 8)), batch_size=4)
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
for step, (rows,) in enumerate(loader):
    if step == WARM:
        warm, began = used(), time.perf_counter()
    optimizer.zero_grad()
    model(rows).mean().backward()
    optimizer.step()
print(json.dumps({
    "start_cpu_s": warm, "step_cpu_s": (used() - warm) / STEPS,
    "step_wall_s": (time.perf_counter() - began) / STEPS,
}))
"""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The cost of the observer: the median over all pairs, and their quartiles."""

    name: str
    plain: float
    added: float
    low: float
    high: float


def run(script: Path, steps: int, folder: Path | None) -> dict[str, float]:
    """Run the script once; with a folder, under the observer, which writes into it."""
    command = [sys.executable, str(script), str(steps)]
    environment = dict(os.environ)
    if folder is not None:
        workload = WorkloadSpec(
            target="script", script=ScriptSpec(command=command, folder=str(script.parent))
        )
        spec = ChildSpec(
            kind="train", folder=str(folder), workload=workload, cell=Cell(),
            spawned_at_s=time.monotonic(),
        )  # fmt: skip
        folder.mkdir()
        write_json(folder / "spec.json", spec)
        started = script_invocation(spec, folder, environment, trial=False)
        environment = started.environment | {FOLDER_VARIABLE: str(folder)}
    began_s = time.perf_counter()
    done = subprocess.run(
        command, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=300,
        check=True,
    )  # fmt: skip
    found = dict(json.loads(done.stdout))
    found["whole_wall_s"] = time.perf_counter() - began_s
    if folder is not None and not (folder / "script.json").exists():
        raise SystemExit("the observer was not heard of")
    return found


def differences(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> list[Difference]:
    """The difference of each figure with and without the observer, pair by pair."""
    found = []
    for name in pairs[0][0]:
        added = sorted(observed[name] - plain[name] for plain, observed in pairs)
        low, _, high = statistics.quantiles(added, n=4)
        found.append(
            Difference(
                name=name, plain=statistics.median(plain[name] for plain, _ in pairs),
                added=statistics.median(added), low=low, high=high,
            )
        )  # fmt: skip
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    pairs = []
    with tempfile.TemporaryDirectory() as name:
        script = Path(name) / "train.py"
        script.write_text(SCRIPT)
        run(script, 10, None)  # fill the disk's cache
        for number in range(options.pairs):
            observed_first = number % 2 == 1
            folder = Path(name) / f"child-{number}"
            first = run(script, options.steps, folder if observed_first else None)
            second = run(script, options.steps, None if observed_first else folder)
            pairs.append((second, first) if observed_first else (first, second))
    found = {one.name: one for one in differences(pairs)}
    print(f"{options.pairs} pairs of {options.steps} steps, {sys.version.split()[0]}")
    for one in found.values():
        unit, scale = ("us", 1e6) if "step" in one.name else ("s", 1.0)
        print(
            f"{one.name:14} plain {scale * one.plain:9.3f} {unit}   added {scale * one.added:8.3f} "
            f"{unit} (half of the pairs between {scale * one.low:.3f} and {scale * one.high:.3f})"
        )
    share = found["step_cpu_s"].added / STEP_S
    start_s = found["start_cpu_s"].added
    print(f"of a step of 5 ms: {100 * share:.2f} % (limit {100 * STEP_SHARE:g} %)")
    print(f"at the start: {start_s:.2f} s of CPU (limit {START_S} s)")
    return 0 if share < STEP_SHARE and start_s < START_S else 1


if __name__ == "__main__":
    raise SystemExit(main())
