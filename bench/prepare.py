"""Measures `ctrkit data prepare` at real size: time per row, memory, disk, kills, training.

Tianchi files are generated at several scales (1 is 26.6 M impressions and about 100 M behaviours;
users and ads are as many as in the real set at every scale, as they would not grow with its log)
and prepared, each by a process of its own that the kernel refuses more than `--memory` of private
memory (RLIMIT_DATA, on Linux). The peak of anonymous memory and of the disk is sampled from
outside; CPU seconds, of all threads, are what the stages report: on a busy machine they are
steadier than seconds on the clock. A small preparation is killed (SIGKILL) at random moments and
repeated until it ends: its store must have the same fingerprint, rows and counts. Last,
`ctrkit train` runs a few steps from the largest store, its memory sampled likewise.
Prints tables, writes them to results/; exit code 1 unless every store was equal and in the limit.

    python bench/prepare.py --scales 0.1,0.3,1 --kills 10 --folder /disk/with/space
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from ctrkit.core.environment import describe_environment, usable_cpus
from ctrkit.core.files import write_atomically, write_json
from ctrkit.core.units import format_bytes, format_duration, parse_bytes
from ctrkit.ctr.data.stage_progress import StageProgress, Watcher
from ctrkit.ctr.data.store import read_meta
from ctrkit.ctr.data.taobao import prepare_tianchi
from ctrkit.ctr.data.tianchi import generate_tianchi

GROWING = {"rows": 26_557_961, "behaviors": 100_000_000}
FIXED = {"users": 1_061_768, "items": 846_811}
REAL_BEHAVIORS = 723_268_134
LOG_STAGES = (
    "reading behavior_log.csv", "matching users", "numbering brands and categories", "histories",
)  # fmt: skip
_LOOK_S = 0.05
_DUCKDB_SHARE = 0.5  # of the limit; the rest is for numpy, Arrow and the interpreter


@dataclass(kw_only=True)
class Peak:
    """The peaks of a process family's memory and of folders' sizes, in bytes."""

    anonymous_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """One whole preparation; `stages` are those of `StageProgress`."""

    scale: float
    rows: int
    behaviors: int
    wall_s: float
    cpu_s: float
    peak: Peak
    csv_bytes: int
    store_bytes: int
    fingerprint: str
    stages: list[dict[str, Any]]


def main() -> int:
    options = _options()
    if options.child:
        _child(options)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="prepare-", dir=options.folder) as temporary:
        folder = Path(temporary)
        runs: list[Prepared] = []
        for scale in sorted(options.scales):
            source = _generated(options.folder, scale)
            for old in runs[-1:]:
                shutil.rmtree(folder / f"store-{old.scale:g}")
            runs.append(_prepared(source, folder / f"store-{scale:g}", scale, options))
            _tell(f"scale {scale:g}: {runs[-1].cpu_s:.1f} CPU s, {runs[-1].wall_s:.1f} s")
            _write(runs, None, [], options)
        store = folder / f"store-{runs[-1].scale:g}"
        training = _training(store, folder / "run", options.steps) if options.steps else None
        kills = _kills(folder, options) if options.kills else []
    print(_write(runs, training, kills, options))
    within = all(run.peak.anonymous_bytes < options.memory for run in runs)
    return 0 if within and all(kill["equal"] for kill in kills) else 1


def _write(
    runs: Sequence[Prepared],
    training: dict[str, Any] | None,
    kills: list[dict[str, Any]],
    options: argparse.Namespace,
) -> str:
    """Write the results so far, because a large scale takes long. Returns the tables."""
    document = {
        "argv": _shown(sys.argv[1:]), "environment": describe_environment(),
        "limit_bytes": options.memory, "runs": [asdict(run) for run in runs],
        "real": _extrapolated(runs), "kills": kills, "training": training,
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, document)
    table = _markdown(document, runs)
    write_atomically(options.out.with_suffix(".md"), table.encode())
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scales", type=_numbers, default=(0.1, 0.3, 1.0))
    parser.add_argument("--memory", type=parse_bytes, default=4_000_000_000, help="default 4GB")
    parser.add_argument("--kills", type=int, default=10, help="preparations killed")
    parser.add_argument("--kill-scale", type=float, default=0.03)
    parser.add_argument("--steps", type=int, default=30, help="of the training; 0: none")
    parser.add_argument("--seed", type=int, default=7, help="of the moments of the kills")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "ctrkit-bench-prepare",
        help="generated files are kept here and used again; 16 GB for scale 1",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results/prepare.json"))
    parser.add_argument("--child", nargs=3, metavar=("SOURCE", "STORE", "STAGES"))
    return parser.parse_args()


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _generated(folder: Path, scale: float) -> Path:
    """The folder with the files of a scale; they are generated if missing."""
    source = folder / f"tianchi-{scale:g}"
    if not source.is_dir():
        began_s = time.monotonic()
        generate_tianchi(
            source, **FIXED, **{name: round(size * scale) for name, size in GROWING.items()}
        )
        _tell(f"scale {scale:g}: generated in {time.monotonic() - began_s:.0f} s")
    return source


class _Lines(Watcher):
    """Writes a line of JSON for each stage that has ended."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, progress: StageProgress) -> None:
        if progress.state != "running":
            with self.path.open("a") as file:
                file.write(json.dumps(asdict(progress)) + "\n")


def _child(options: argparse.Namespace) -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (options.memory, options.memory))
    source, store, stages = map(Path, options.child)
    prepare_tianchi(
        source,
        store,
        memory_limit_bytes=round(options.memory * _DUCKDB_SHARE),
        threads=usable_cpus(),
        watcher=_Lines(stages),
    )


def _start(
    source: Path, store: Path, stages: Path, options: argparse.Namespace
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, __file__, "--memory", str(options.memory),
         "--child", str(source), str(store), str(stages)],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _lines(stages: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stages.read_text().splitlines()]


def _prepared(source: Path, store: Path, scale: float, options: argparse.Namespace) -> Prepared:
    """Run one preparation without interruption."""
    stages = store.with_name(f"{store.name}.jsonl")
    began_s = time.monotonic()
    peak = _watched(_start(source, store, stages, options), store)
    wall_s = time.monotonic() - began_s
    meta, done = read_meta(store), _lines(stages)
    return Prepared(
        scale=scale,
        rows=sum(meta.rows.values()),
        behaviors=meta.behaviors,
        wall_s=wall_s,
        cpu_s=sum(stage["cpu_s"] for stage in done),
        peak=peak,
        csv_bytes=_size_bytes(source),
        store_bytes=_size_bytes(store),
        fingerprint=meta.fingerprint,
        stages=done,
    )


def _watched(process: subprocess.Popen[bytes], out: Path) -> Peak:
    """Wait for a process to end; returns the peak of its family's memory and of its files' size."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(_LOOK_S):
            peak.anonymous_bytes = max(peak.anonymous_bytes, _anonymous_bytes(process.pid))
            disk_bytes = _size_bytes(out) + _size_bytes(out.with_name(f".{out.name}.preparing"))
            peak.disk_bytes = max(peak.disk_bytes, disk_bytes)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        code = process.wait(timeout=4 * 3600)
    finally:
        process.kill()
        process.wait()
        ended.set()
        watching.join()
    if code:
        raise SystemExit(f"{process.args}: exit code {code}")
    return peak


def _anonymous_bytes(pid: int) -> int:
    """Bytes of memory that no file backs, of a process and its descendants."""
    total = 0
    with suppress(psutil.Error):
        family = psutil.Process(pid)
        for process in [family, *family.children(recursive=True)]:
            with suppress(psutil.Error, OSError):
                total += _anonymous_of(process)
    return total


def _anonymous_of(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        return int(process.memory_full_info().uss)
    for line in status.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _size_bytes(folder: Path) -> int:
    """Bytes that the files of a folder take on the disk, without holes."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            total += file.stat().st_blocks * 512
    return total


def _kills(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run preparations; each is killed at random moments and repeated until it ends."""
    source = _generated(options.folder, options.kill_scale)
    whole = _prepared(source, folder / "whole", options.kill_scale, options)
    meta = read_meta(folder / "whole")
    expected = (meta.fingerprint, meta.rows, meta.bad_rows)
    dice, found = random.Random(options.seed), []
    for number in range(options.kills):
        store, stages = folder / f"killed-{number}", folder / f"killed-{number}.jsonl"
        kills = 0
        while not store.exists():  # a kill may come when only the cleaning up is left
            process = _start(source, store, stages, options)
            work = store.with_name(f".{store.name}.preparing")
            while process.poll() is None and not (work / "manifest.json").exists():
                time.sleep(_LOOK_S)
            try:
                code = process.wait(timeout=dice.random() * whole.wall_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
                continue
            if code:
                raise SystemExit(f"killed {number}: exit code {code}")
            break
        meta = read_meta(store)
        done = [stage["name"] for stage in _lines(stages) if stage["state"] == "done"]
        found.append(
            {
                "kills": kills,
                "equal": (meta.fingerprint, meta.rows, meta.bad_rows) == expected,
                "done_again": len(done) - len(set(done)),
            }
        )
        shutil.rmtree(store)
        _tell(f"killed {kills} times: {'equal' if found[-1]['equal'] else 'DIFFERENT'}")
    return found


def _training(store: Path, run: Path, steps: int) -> dict[str, Any]:
    """Train some steps; returns their memory, and the model's and the optimizer's part of it."""
    import torch

    from ctrkit.ctr.models.mdaf import MDAF

    with torch.device("meta"):
        model = MDAF(read_meta(store).vocabulary, model="mamba", dropout=0.0, history_length=50)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    process = subprocess.Popen(
        [sys.executable, "-m", "ctrkit", "train", "--quiet", "--data", str(store),
         "--device", "cpu", "--loader", "thread", "--batch-size", "256",
         "--max-steps", str(steps), "--out", str(run)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    peak = _watched(process, run)
    model_bytes = parameters * 4 * 4  # float32: parameter, gradient, both moments of Adam
    return {
        "steps": steps, "parameters": parameters, "model_bytes": model_bytes,
        "anonymous_bytes": peak.anonymous_bytes,
        "beside_bytes": peak.anonymous_bytes - model_bytes,
    }  # fmt: skip


def _cost(run: Prepared, names: Sequence[str]) -> float:
    """CPU seconds of some stages per million rows of the log."""
    cpu_s = sum(stage["cpu_s"] for stage in run.stages if stage["name"] in names)
    return cpu_s / run.behaviors * 1e6


def _log_cost(run: Prepared) -> float:
    """CPU seconds per million behaviours, of all work that grows with them."""
    events = run.behaviors / (run.behaviors + run.rows)  # their share of what is written last
    shared = _cost(run, ["writing the store"]) * events
    return _cost(run, LOG_STAGES) + shared


def _extrapolated(runs: Sequence[Prepared]) -> dict[str, Any]:
    """Extrapolate to the real log: its rows as measured, all else as at the largest scale.

    The interval is from the least to the greatest cost per row of all scales; the greatest also
    grows on from the largest scale as a sort does, with the logarithm of the rows.
    """
    largest = runs[-1]
    costs = [_log_cost(run) for run in runs]
    rest_s = largest.cpu_s - _log_cost(largest) * largest.behaviors / 1e6
    growth = math.log(REAL_BEHAVIORS) / math.log(largest.behaviors)
    million = REAL_BEHAVIORS / 1e6
    busy = largest.cpu_s / largest.wall_s
    return {
        "behaviors": REAL_BEHAVIORS,
        "log_cpu_s_per_million": costs,
        "cpu_s": rest_s + costs[-1] * million,
        "cpu_s_low": rest_s + min(costs) * million,
        "cpu_s_high": rest_s + max(costs) * growth * million,
        "cores_busy": busy,
        "disk_bytes": largest.peak.disk_bytes * REAL_BEHAVIORS / largest.behaviors,
    }


def _markdown(document: dict[str, Any], runs: Sequence[Prepared]) -> str:
    names = [stage["name"] for stage in runs[0].stages]
    head = " | ".join(f"{run.scale:g}" for run in runs)
    lines = [
        "# A store of real size", "",
        f"`python bench/prepare.py {' '.join(document['argv'])}`, at most"
        f" {format_bytes(document['limit_bytes'])} of private memory, {usable_cpus()} cores.", "",
        f"| CPU seconds per million rows, at scale | {head} | last / first |",
        f"| --- |{' ---: |' * (len(runs) + 1)}",
    ]  # fmt: skip
    for name in names:
        costs = [_stage_cost(run, name) for run in runs]
        if any(cost is None for cost in costs):
            continue
        numbers = " | ".join(f"{cost:.3f}" for cost in costs)
        lines.append(f"| {name} | {numbers} | {costs[-1] / max(1e-9, costs[0]):.2f} |")
    for what, values in (
        ("impressions", [f"{run.rows:,}" for run in runs]),
        ("behaviours", [f"{run.behaviors:,}" for run in runs]),
        ("CPU seconds, all stages", [f"{run.cpu_s:.1f}" for run in runs]),
        ("seconds", [f"{run.wall_s:.1f}" for run in runs]),
        ("anonymous memory, peak", [format_bytes(run.peak.anonymous_bytes) for run in runs]),
        ("disk, peak", [format_bytes(run.peak.disk_bytes) for run in runs]),
        ("CSV files", [format_bytes(run.csv_bytes) for run in runs]),
        ("store", [format_bytes(run.store_bytes) for run in runs]),
    ):
        lines.append(f"| {what} | {' | '.join(values)} | |")
    return "\n".join([*lines, "", *_conclusions(document)]) + "\n"


def _shown(argv: Sequence[str]) -> list[str]:
    """The arguments without folders of this machine."""
    shown = list(argv)
    for option in ("--folder", "--out"):
        if option in shown:
            at = shown.index(option)
            del shown[at : at + 2]
    return shown


def _stage_cost(run: Prepared, name: str) -> float | None:
    """CPU seconds of a stage per million of its rows, or of all rows if it counts none."""
    stage = next((stage for stage in run.stages if stage["name"] == name), None)
    if stage is None:
        return None
    return stage["cpu_s"] / (stage["rows"] or run.rows + run.behaviors) * 1e6


def _conclusions(document: dict[str, Any]) -> list[str]:
    real, kills, training = document["real"], document["kills"], document["training"]
    hours = format_duration(real["cpu_s"] / real["cores_busy"])
    lines = [
        f"The real log of {real['behaviors']:,} behaviours, at these costs per row and as many"
        f" users and impressions as at the largest scale: {format_duration(real['cpu_s'])} of CPU"
        f" ({format_duration(real['cpu_s_low'])} .. {format_duration(real['cpu_s_high'])}),"
        f" {hours} at the {real['cores_busy']:.1f} cores that this run got,"
        f" {format_bytes(real['disk_bytes'])} of disk at most. The interval is from the least to"
        " the greatest cost per row of the scales, the greatest growing on with the logarithm of"
        " the rows, as a sort does.",
    ]
    if kills:
        equal, total = sum(kill["equal"] for kill in kills), sum(kill["kills"] for kill in kills)
        lines += ["", f"{equal} of {len(kills)} preparations, killed {total} times in all at random"
                  " moments, ended with the store of the uninterrupted one."]  # fmt: skip
    if training:
        lines += ["", f"Training from the largest store, {training['steps']} steps of 256 rows:"
                  f" {format_bytes(training['anonymous_bytes'])} of anonymous memory at most, all"
                  f" processes together; {format_bytes(training['model_bytes'])} are"
                  f" {training['parameters']:,} parameters with gradient and Adam's moments,"
                  f" {format_bytes(training['beside_bytes'])} the rest."]  # fmt: skip
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
