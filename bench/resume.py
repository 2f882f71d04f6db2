"""Compares a run that was killed at a random moment and resumed with an uninterrupted one.

Each run is killed once with SIGKILL, at a random step or at a random moment of its start-up, every
other one inside the checkpoint write that comes next (as soon as the file that is being written is
there; that it is left behind shows that the kill hit): its training process, its supervisor or the
whole family, in turn. It is then resumed, some of them in another cell: another loader, worker
count or start method. Every tensor and number of `last.pt` and `best.pt` and every figure of
`epochs.csv` but the times must equal the uninterrupted run's, bit for bit.
Prints a table, writes it to results/; exit code 1 unless all are equal.

    python bench/resume.py --seconds 25 --kills 20 --jobs 2
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from ctrkit.child.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.core.progress import read_progress

COMMAND = [sys.executable, "-m", "ctrkit"]
STORE = ["--rows", "20000", "--users", "500", "--items", "1000"]
LEAST_EPOCHS = 2
TARGETS = ("training process", "supervisor", "whole family")
OTHER_CELLS: tuple[list[str], ...] = (
    [], [], [],
    ["--loader", "rows"],
    ["--loader", "resident"],
    ["--workers", "1", "--start-method", "fork"],
    ["--workers", "2", "--start-method", "spawn"],
    ["--workers", "2", "--start-method", "forkserver"],
)  # fmt: skip
REFERENCE_PARAMETERS = 38_000_000  # of the reference scale: 335,164 items, 577,482 users
ENDS_WITHIN_S = 30.0
STARTUP_SHARE, STARTUP_S = 0.15, 5.0  # of the kills, and how long a start-up takes at most


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One run: when and what was killed, how it was resumed, and what differed in the end.

    `at_s` is the time since the launch, `epoch` and `step` the position. `in_write`: half a
    checkpoint was left behind. `resumed`: the options of `--resume`, or that the run went on by
    itself.
    """

    number: int
    target: str
    aimed_at_write: bool
    at_s: float = 0.0
    epoch: int = 0
    step: int = 0
    stage: str = ""
    in_write: bool = False
    saved_before: bool = False
    resumed: str = ""
    wall_s: float = 0.0
    different: tuple[str, ...] = ()


def main() -> int:
    options = _options()
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ctrkit-resume-") as temporary:
        folder = Path(temporary)
        subprocess.run(
            [*COMMAND, "data", "synth", "--out", folder / "store", *STORE],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        epochs = options.epochs or _epochs_for(folder, options)
        whole_s = _train_whole(folder, epochs, options)
        print(f"uninterrupted: {epochs} epochs in {whole_s:.1f} s", file=sys.stderr)
        dice = random.Random(options.seed)
        plans = [(number, dice.getrandbits(32)) for number in range(options.kills)]

        def one(plan: tuple[int, int]) -> Kill:
            number, seed = plan
            kill = _one(folder, number, epochs, random.Random(seed), options)
            print(_line(kill), file=sys.stderr, flush=True)
            return kill

        with ThreadPoolExecutor(options.jobs) as pool:
            kills = list(pool.map(one, plans))
        costs = _costs(folder)
    equal = sum(not kill.different for kill in kills)
    argv = [word for word in sys.argv[1:] if word not in ("--out", str(options.out))]
    document = {
        "argv": argv, "environment": describe_environment(), "epochs": epochs,
        "whole_s": whole_s, "kills": [asdict(kill) for kill in kills], "equal": equal,
        "inside_a_write": sum(kill.in_write for kill in kills), "checkpoint_costs_s": costs,
        "wall_s": time.monotonic() - began_s,
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, document)
    table = _markdown(document, kills)
    write_atomically(options.out.with_suffix(".md"), table.encode())
    print(table)
    return 0 if equal == len(kills) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=25.0, help="of an uninterrupted run")
    parser.add_argument("--epochs", type=int, help="instead of --seconds")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--model", default="mamba", choices=("mamba", "bst"))
    parser.add_argument("--checkpoint-every", default="0.5s")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/resume.json"))
    return parser.parse_args()


def _arguments(folder: Path, name: str, epochs: int, options: argparse.Namespace) -> list[str]:
    return [
        *COMMAND, "train", "--quiet", "--data", str(folder / "store"), "--phase", "phase3",
        "--set", f"model={options.model}", "--set", "history_length=20", "--set", "patience=1000",
        "--batch-size", "256", "--threads", "1", "--epochs", str(epochs),
        "--checkpoint-every", options.checkpoint_every, "--out", str(folder / name),
    ]  # fmt: skip


def _run(arguments: list[str]) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr}")


def _epochs_for(folder: Path, options: argparse.Namespace) -> int:
    """The number of epochs that take `--seconds`, from a short run."""
    _run(_arguments(folder, "short", LEAST_EPOCHS, options))
    with open(folder / "short" / "epochs.csv", newline="") as file:
        epoch_s = [float(row["wall_s"]) for row in csv.DictReader(file)]
    return max(LEAST_EPOCHS, round(options.seconds / (sum(epoch_s) / len(epoch_s))))


def _train_whole(folder: Path, epochs: int, options: argparse.Namespace) -> float:
    began_s = time.monotonic()
    _run(_arguments(folder, "whole", epochs, options))
    return time.monotonic() - began_s


def _one(
    folder: Path,
    number: int,
    epochs: int,
    dice: random.Random,
    options: argparse.Namespace,
) -> Kill:
    """Start a run, kill it, resume it and compare it."""
    run, began_s = folder / f"run-{number}", time.monotonic()
    kill = Kill(number=number, target=TARGETS[number % 3], aimed_at_write=number % 2 == 0)
    log = folder / f"run-{number}.log"
    with open(log, "wb") as file:
        arguments = _arguments(folder, run.name, epochs, options)
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        struck = _strike(kill, run, process, epochs, dice)
        if struck is None:  # the run ended before the kill: try again at another moment
            shutil.rmtree(run)
            return _one(folder, number, epochs, dice, options)
        kill = replace(struck, at_s=time.monotonic() - began_s)
        if process.wait(timeout=600 if kill.target == TARGETS[0] else ENDS_WITHIN_S) == 0:
            kill = replace(kill, resumed="by itself")
        else:
            kill = _resume(kill, run, log, dice)
    finally:
        process.kill()
        process.wait()
    different = _different(folder / "whole", run) if not kill.different else kill.different
    return replace(kill, different=tuple(different), wall_s=time.monotonic() - began_s)


def _strike(
    kill: Kill, run: Path, process: subprocess.Popen[bytes], epochs: int, dice: random.Random
) -> Kill | None:
    """Wait for the moment, note the run's position, and kill; None if the run ended before."""
    checkpoints = run / "checkpoints"
    starts = dice.random() < STARTUP_SHARE
    share, delay_s = dice.random(), dice.random() * (STARTUP_S if starts else 0.2)
    while process.poll() is None and not (run / "child" / "spec.json").is_file():
        time.sleep(0.01)  # before, there is nothing to resume
    while process.poll() is None and not starts and _done(run, epochs) < share:
        time.sleep(0.002)
    time.sleep(delay_s)
    if kill.aimed_at_write:
        time.sleep(dice.random() * 0.01)
        while process.poll() is None and not any(checkpoints.glob(".last.pt.*")):
            time.sleep(0.0002)
        time.sleep(dice.random() * 0.002)
    progress = read_progress(run / "child" / "progress.bin")
    if process.poll() is not None:
        return None
    trainers, victims = _victims(kill.target, process)
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue
    _await_end(process, [*trainers, *victims])
    kill = replace(
        kill,
        in_write=any(checkpoints.glob(".last.pt.*")),
        saved_before=(checkpoints / "last.pt").is_file(),
    )
    if progress is not None:
        kill = replace(kill, epoch=progress.epoch, step=progress.step, stage=progress.stage.label)
    return kill


def _done(run: Path, epochs: int) -> float:
    """The share of the run's steps that it has done."""
    progress = read_progress(run / "child" / "progress.bin")
    if progress is None or not progress.steps:
        return 0.0
    return (progress.epoch - 1 + progress.step / progress.steps) / epochs


def _victims(
    target: str, process: subprocess.Popen[bytes]
) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The training processes, which die with their supervisor, and the processes to kill."""
    supervisor = psutil.Process(process.pid)
    family = supervisor.children(recursive=True)
    trainers = [p for p in family if "ctrkit.child" in " ".join(p.cmdline())]
    if target == TARGETS[0]:
        return trainers, trainers or [supervisor]  # it has not been started yet
    return trainers, [supervisor] if target == TARGETS[1] else [supervisor, *family]


def _await_end(process: subprocess.Popen[bytes], dying: list[psutil.Process]) -> None:
    psutil.wait_procs([one for one in dying if one.pid != process.pid], timeout=5)
    if any(one.pid == process.pid for one in dying):
        process.wait(timeout=5)  # not by psutil, which would take its exit code away


def _resume(kill: Kill, run: Path, log: Path, dice: random.Random) -> Kill:
    """Resume the run as soon as it is dead, perhaps in another cell."""
    cell = dice.choice(OTHER_CELLS)
    arguments = [*COMMAND, "train", "--quiet", "--resume", str(run), *cell]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    with open(log, "a") as file:
        file.write(done.stderr)
    if done.returncode:
        return replace(kill, different=(f"resume: exit code {done.returncode}: {done.stderr}",))
    return replace(kill, resumed=" ".join(["--resume", *cell]))


def _different(whole: Path, run: Path) -> list[str]:
    """The differences between two runs; empty if only their times differ."""
    found = []
    for name in ("last.pt", "best.pt"):
        states = [load_checkpoint(folder / "checkpoints" / name) for folder in (whole, run)]
        for state in states:
            state["position"].pop("wall_s")
            for row in state["position"]["history"]:
                row.pop("wall_s")
        found += [f"{name}{key}" for key in _unequal(states[0], states[1])]
    return found + (["epochs.csv"] if _epochs(whole) != _epochs(run) else [])


def _epochs(run: Path) -> list[dict[str, str]]:
    """The rows of `epochs.csv` without their times."""
    with open(run / "epochs.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k != "wall_s"} for row in csv.DictReader(file)]


def _unequal(one: Any, other: Any, key: str = "") -> list[str]:
    """The places at which two nested values differ in any bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype
        return [] if same and torch.equal(one, other) else [key]
    if type(one) is not type(other):
        return [key]
    if isinstance(one, Mapping):
        keys = {**one, **other}
        return [d for k in keys for d in _unequal(one.get(k), other.get(k), f"{key}.{k}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [key]
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in _unequal(a, b, f"{key}[{i}]")]
    return [] if one == other or (one != one and other != other) else [key]


def _costs(folder: Path) -> dict[str, float]:
    """Seconds of each part of a checkpoint at the reference scale; medians of three."""
    part = REFERENCE_PARAMETERS // 10
    state = {
        "task": [torch.randn(part) for _ in range(30)]
    }  # the parameters and Adam's two moments
    path = folder / "costs" / "last.pt"
    parts: dict[str, list[float]] = {"copy": [], "save": [], "load": []}
    for _ in range(3):
        began_s = time.perf_counter()
        copied = [tensor.clone() for tensor in state["task"]]
        parts["copy"].append(time.perf_counter() - began_s)
        del copied
        began_s = time.perf_counter()
        save_checkpoint(path, state)
        parts["save"].append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
        load_checkpoint(path)
        parts["load"].append(time.perf_counter() - began_s)
    costs = {name: sorted(values)[1] for name, values in parts.items()}
    return {**costs, "bytes": float(path.stat().st_size)}


def _line(kill: Kill) -> str:
    end = "equal" if not kill.different else f"DIFFERENT: {', '.join(kill.different[:5])}"
    return (
        f"{kill.number:>2} {kill.target:<16} {kill.at_s:5.1f} s epoch {kill.epoch} step {kill.step}"
        f" {kill.stage}{' (half a checkpoint left)' if kill.in_write else ''}:"
        f" {kill.resumed} -> {end}"
    )


def _markdown(document: Mapping[str, Any], kills: list[Kill]) -> str:
    costs = document["checkpoint_costs_s"]
    lines = [
        "# Killed at a random moment, and resumed",
        "",
        f"`python bench/resume.py {' '.join(document['argv'])}`:"
        f" {document['equal']} of {len(kills)} runs of {document['epochs']} epochs"
        f" ({document['whole_s']:.0f} s uninterrupted) ended with every tensor of `last.pt` and"
        " `best.pt` and every figure of `epochs.csv` but the times"
        f" equal to the uninterrupted run's, bit for bit; {document['inside_a_write']} were killed"
        " inside a checkpoint write.",
        "",
        "| killed | after | epoch, step | stage | inside a write | went on | end |",
        "| --- | ---: | --- | --- | --- | --- | --- |",
    ]
    for kill in kills:
        end = "equal" if not kill.different else "; ".join(kill.different[:3])
        lines.append(
            f"| {kill.target} | {kill.at_s:.1f} s | {kill.epoch}, {kill.step} | {kill.stage} |"
            f" {'yes' if kill.in_write else ''} | `{kill.resumed}` | {end} |"
        )
    lines += [
        "",
        f"A checkpoint of the reference scale ({costs['bytes'] / 1e6:.0f} MB) took"
        f" {costs['save']:.2f} s to write and flush, {costs['load']:.2f} s to verify and load;"
        f" a copy in memory, which a write in the background would need, {costs['copy']:.2f} s.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
