"""Benchmarks ctrkit on this machine's accelerator within 8 minutes: five parts, a table, JSON.

1. `tests`: the tests marked `cuda` or `mps`.
2. `probe`: `ctrkit probe` of Phase 3, then `train --auto-device --max-steps`, then `report`.
3. `steps`: seconds of a Phase 3 step, beside the floor: the time that the device needs at least to
   move the step's bytes or to compute its products, whichever is longer, at the rates measured on a
   large copy and a large product (`bench/accelerator_floor.py`).
4. `projection`: the projected epoch of some cells, and the epoch that was then run.
5. `hangs`: five scripts that go wrong: is the verdict right, is the guilty line named, did all
   processes end, and can the device be used afterwards?

    python bench/accelerator.py                     # CUDA or MPS; without either: exit code 2
    python bench/accelerator.py --parts steps,hangs
    python bench/accelerator.py --device cpu        # a rehearsal: tests this script only

`bench/accelerator.sh WHEELS` installs it from a folder of wheels first, without a network; on a
machine with a network `python bench/accelerator_wheels.py WHEELS` fills such a folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
NO_ACCELERATOR = 2
#: Seconds for the whole: 8 minutes less some to end what was cut short. Then for each part: the
#: most seconds that it may take, and the seconds kept for it while earlier parts run.
BUDGET_S = 460.0
#: A rehearsal may take longer: it runs beside other work, and only shows that everything works.
REHEARSAL_X = 3.0
SHARES = {"tests": 0.3, "probe": 0.2, "steps": 0.2, "projection": 0.3, "hangs": 0.3}
KEPT = {"tests": 0.0, "probe": 0.15, "steps": 0.12, "projection": 0.15, "hangs": 0.25}
#: Rows of the store for a rehearsal, and for MPS, where a whole epoch takes half an hour.
SMALL_ROWS = {"cpu": 2_500, "mps": 160_000}
HANGS = {
    "endless-kernel": ("stalled", "deadlock"),
    "forked-worker": ("worker-died", "crashed", "deadlock", "stalled"),
    "lock": ("deadlock",),
    "assert": ("crashed",),
    "out-of-memory": ("out-of-memory",),
}
#: Seconds for a probe and the epoch after it; a pair without them is left out.
_PAIR_S = 60.0
#: Cases of `hangs` that are impossible on a device.
NOT_ON = {"cpu": ("forked-worker", "assert"), "mps": ("assert",), "cuda": ()}
_USES_THE_DEVICE = """
import sys, torch
x = torch.ones(64, 64, device=sys.argv[1])
assert (x @ x).sum().item() == 64 ** 3
"""
Row = dict[str, Any]


@dataclass
class Bench:
    """Runs commands of the bench in one folder, each within the time left for its part."""

    device: str
    folder: Path
    budget_s: float
    ends_s: float
    part_ends_s: float = 0.0
    parts: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def is_rehearsal(self) -> bool:
        """Whether the device is the CPU."""
        return self.device == "cpu"

    def left_s(self) -> float:
        """Seconds left for the current part."""
        return min(self.part_ends_s, self.ends_s) - time.monotonic()

    def run(self, *arguments: str, most_s: float = 1e9) -> subprocess.CompletedProcess[str]:
        """Run a Python command in a session of its own, which is ended at the time limit.

        Raises:
            TimeoutError: the command reached the limit, or its part had no time left.
        """
        limit_s = min(most_s, self.left_s())
        if limit_s < 1:
            raise TimeoutError("no time left")
        env = os.environ | {"CTRKIT_HOME": str(self.folder / "home")}
        with (self.folder / "out").open("w+") as out, (self.folder / "err").open("w+") as err:
            # files, not pipes: a process that outlives this one would hold a pipe open
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=self.folder, env=env, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
            is_late = not _ends_within(process, limit_s)
            if is_late and not _ended(process, signal.SIGINT):  # ctrkit then ends its own children
                _ended(process, signal.SIGKILL)  # a process that hangs in a driver is left behind
            said, errors = (_read(file) for file in (out, err))
        if is_late:
            raise TimeoutError(f"ended after {limit_s:.0f} s; {last_line(said or errors)}"[:300])
        return subprocess.CompletedProcess(arguments, process.returncode, said, errors)

    def ctrkit(self, *arguments: str, most_s: float = 1e9) -> subprocess.CompletedProcess[str]:
        """Run ctrkit's command line."""
        return self.run("-m", "ctrkit", *arguments, most_s=most_s)

    def store(self, name: str, rows: int) -> str:
        """The folder of a generated store with so many rows; it is made once."""
        path = self.folder / name
        if not path.is_dir():
            few = str(max(200, rows // 4))
            done = self.ctrkit("data", "synth", "--out", str(path), "--rows", str(rows),
                               "--users", few, "--items", few)  # fmt: skip
            assert done.returncode == 0, done.stderr
        return str(path)

    def data(self) -> tuple[str, ...]:
        """The options that name the store: the default one if the device is fast enough for it."""
        rows = SMALL_ROWS.get(self.device)
        return () if rows is None else ("--data", self.store("store", rows))

    def small(self) -> tuple[str, ...]:
        """Options that keep a rehearsal short."""
        model = ("--set", "model=bst", "--set", "history_length=4")
        return ("--batch-size", "64", "--threads", "1", *model) if self.is_rehearsal else ()


def _ends_within(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def _ended(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the process's session; whether it ended within 20 seconds."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    return _ends_within(process, 20)


def _read(file: TextIO) -> str:
    file.seek(0)
    return file.read()


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def tests(bench: Bench) -> list[Row]:
    """Run the tests marked for the device."""
    mark = "cuda or mps" if bench.is_rehearsal else bench.device
    marked = re.compile(r"ON_DEVICES|mark\.(cuda|mps)")
    files = [str(path) for path in sorted((ROOT / "tests").glob("*/**/test_*.py"))
             if marked.search(path.read_text())]  # fmt: skip
    files.sort(key=lambda file: Path(file).name == "test_accelerator.py")  # whole runs come last
    done = bench.run("-m", "pytest", "-m", mark, "-p", "no:cacheprovider", "-rfE",
                     "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"),
                     "-o", "addopts=-q --import-mode=importlib --strict-markers --timeout=300",
                     *files)  # fmt: skip
    counts = last_line(done.stdout).strip("= ")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return [{"what": f"tests marked {mark}", "result": counts or last_line(done.stderr),
             "ok": done.returncode == 0, "failed": failed}]  # fmt: skip


def probe(bench: Bench) -> list[Row]:
    """Probe, train some steps with the recommended cell, and report both."""
    own = ("--device", bench.device, *bench.data(), *bench.small())
    out, rows = bench.folder / "probe", list[Row]()
    began_s = time.monotonic()
    budget = "60s" if bench.is_rehearsal else "45s"
    few = ("--loader", "thread,resident") if bench.is_rehearsal else ()
    done = bench.ctrkit(
        "probe", *own, *few, "--budget", budget, "--out", str(out), "--json", "--quiet"
    )
    found = json.loads(done.stdout) if done.stdout else {}
    rows.append({
        "what": "probe", "ok": done.returncode == 0, "exit": done.returncode,
        "cell": found.get("cell"), "projected_epoch_s": found.get("projected_epoch_s"),
        "findings": [one["text"] for one in found.get("findings", [])],
        "error": last_line(done.stderr) if done.returncode else "",
        "result": f"{time.monotonic() - began_s:.0f} s, {_cell_words(found.get('cell'))}",
    })  # fmt: skip
    steps = "5" if bench.is_rehearsal else "200"
    run = bench.folder / "train"
    done = bench.ctrkit("train", "--auto-device", *own, "--max-steps", steps, "--out", str(run),
                        "--quiet")  # fmt: skip
    rows.append({"what": f"train --auto-device --max-steps {steps}", "ok": done.returncode == 0,
                 "result": last_line(done.stderr) or last_line(done.stdout)})  # fmt: skip
    done = bench.ctrkit("report", str(out), str(run), "--json")
    is_whole = done.returncode == 0 and len(json.loads(done.stdout)["runs"]) == 2
    rows.append({"what": "report", "ok": is_whole, "result": "both runs" if is_whole else "failed"})
    return rows


def _cell_words(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "no recommendation"
    pinned = ", pinned" if cell["pin"] else ""
    return f"{cell['loader']}, {cell['workers']} workers{pinned}"


def steps(bench: Bench) -> list[Row]:
    """Measure each case of a step beside its floor."""
    from accelerator_floor import step_work

    done = bench.run(str(HERE / "accelerator_step.py"),
                     json.dumps({"what": "rates", "device": bench.device}))  # fmt: skip
    if done.returncode:
        return [{"what": "rates", "ok": False, "result": last_line(done.stderr)}]
    rates = json.loads(done.stdout)
    rows: list[Row] = [{
        "what": "rates", "ok": True, **rates,
        "result": f"copy {rates['bytes_per_s'] / 1e9:,.0f} GB/s, product "
        f"{rates['float32_flops_per_s'] / 1e12:,.1f} TFLOP/s in float32, "
        f"{rates['bf16_flops_per_s'] / 1e12:,.1f} in bf16",
    }]  # fmt: skip
    store = dict([bench.data()]).get("--data") if bench.data() else _default_store(bench)
    batches = (64,) if bench.is_rehearsal else (2048, 8192)
    cases = [
        {"loader": loader, "precision": precision, "batch": batch}
        for batch in batches
        for precision in ("float32", "bf16")
        for loader in ("thread", "resident")
    ]
    if bench.device == "cuda":
        cases.insert(1, {**cases[0], "scan": "by step"})
    # what nobody has measured yet; left out first where the time is short
    extras = [{**cases[0], "gradients": "whole"}, {**cases[0], "compile": True}]
    cases += extras
    for case in cases:
        spec = {"what": "step", "device": bench.device, "store": store, "warmup": 3, "seconds": 2.0,
                "most_steps": 3 if bench.is_rehearsal else 150, **case}  # fmt: skip
        what = f"{case['loader']}, {case['precision']}, batch {case['batch']:,}"
        what += ", scan step by step" if "scan" in case else ""
        what += ", whole gradients of tables" if "gradients" in case else ""
        what += ", compiled" if "compile" in case else ""
        try:
            done = bench.run(str(HERE / "accelerator_step.py"), json.dumps(spec), most_s=60)
        except TimeoutError as error:
            rows.append({"what": what, "ok": case in extras, "result": str(error)})
            continue
        if done.returncode:
            rows.append({"what": what, "ok": False, "result": last_line(done.stderr)})
            continue
        found = json.loads(done.stdout)
        flops = rates[f"{case['precision']}_flops_per_s"]
        floor_s = step_work(case["batch"], 50).floor_s(flops, rates["bytes_per_s"])
        share = floor_s / found["step_s"]
        rows.append({
            "what": what, "ok": not found["notes"] or "scan" in case, **case, **found,
            "floor_s": floor_s, "floor_share": share,
            "result": f"{found['step_s'] * 1e3:.1f} ms ({found['low_s'] * 1e3:.1f} .. "
            f"{found['high_s'] * 1e3:.1f}), {share:.2f} of the floor, queued by the host in "
            f"{found['queued_s'] * 1e3:.1f} ms"
            + (f", which waits at {', '.join(found['waits'])}" if found["waits"] else "")
            + "".join(f"; {note}" for note in found["notes"]),
        })  # fmt: skip
    return rows


def _default_store(bench: Bench) -> str:
    done = bench.run("-c", "from ctrkit.ctr.data.default import default_store; "
                     "print(default_store())")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return last_line(done.stdout)


def projection(bench: Bench) -> list[Row]:
    """Compare projected epochs with epochs that are then run."""
    cells = [("--loader", "thread"), ("--loader", "resident"),
             ("--loader", "batches", "--workers", "2")]  # fmt: skip
    rows, budget = [], "60s" if bench.is_rehearsal else "20s"
    for number, cell in enumerate(cells):
        what = " ".join(word for word in cell if not word.startswith("--"))
        if rows and bench.left_s() < _PAIR_S:
            rows.append({"what": what, "ok": True, "result": "left out: no time"})
            continue
        own = ("--device", bench.device, *bench.data(), *bench.small())
        out, run = bench.folder / f"projected-{number}", bench.folder / f"run-{number}"
        try:
            done = bench.ctrkit("probe", *own, *cell, "--budget", budget, "--out", str(out),
                                "--json", "--quiet")  # fmt: skip
            found = json.loads(done.stdout) if done.stdout else {}
            if done.returncode or found.get("projected_epoch_s") is None:
                rows.append({"what": what, "ok": False, "result": last_line(done.stderr)})
                continue
            done = bench.ctrkit("train", *own, "--config", str(out / "recommendation.json"),
                                "--epochs", "1", "--out", str(run), "--quiet")  # fmt: skip
        except TimeoutError as error:
            rows.append({"what": what, "ok": False, "result": str(error)})
            continue
        if done.returncode:
            rows.append({"what": what, "ok": False, "result": last_line(done.stderr)})
            continue
        with open(run / "epochs.csv", newline="") as file:
            took_s = float(next(csv.DictReader(file))["wall_s"])
        low, mean, high = (
            found[f"projected_epoch_s{end}"] for end in ("_low", "", "_high")
        )  # fmt: skip
        within = (low is None or low <= took_s) and (high is None or took_s <= high)
        rows.append({
            "what": what, "ok": True, "projected_s": mean, "low_s": low, "high_s": high,
            "took_s": took_s, "error": mean / took_s - 1, "within": within,
            "result": f"projected {mean:.1f} s, took {took_s:.1f} s ({mean / took_s - 1:+.1%}, "
            f"{'within' if within else 'outside of'} the interval)",
        })  # fmt: skip
    return rows


def hangs(bench: Bench) -> list[Row]:
    """Run five scripts that go wrong, each under `ctrkit train`."""
    script, rows = HERE / "accelerator_hang.py", list[Row]()
    for case, expected in HANGS.items():
        if case in NOT_ON[bench.device]:
            rows.append({"what": case, "ok": True, "result": f"not a case of {bench.device}"})
            continue
        run = bench.folder / f"hang-{case}"
        try:
            bench.ctrkit("train", "--stall-timeout", "8s", "--quiet", "--out", str(run), "--",
                         sys.executable, str(script), case, bench.device, most_s=90)  # fmt: skip
            rows.append(_judge(bench, case, expected, run, script))
        except TimeoutError as error:
            rows.append({"what": case, "ok": False, "result": str(error)})
    return rows


def _judge(bench: Bench, case: str, expected: Sequence[str], run: Path, script: Path) -> Row:
    """Judge the verdict, the named line and the end, and whether the device is still usable."""
    path = run / "incidents.jsonl"
    incident = json.loads(path.read_text().splitlines()[0]) if path.is_file() else {}
    text = script.read_text().splitlines()
    lines = [n for n, line in enumerate(text, start=1) if line.endswith(f"# {case}")]
    said = f"{incident.get('reason')} {incident.get('cause')}"
    named = any(f"{script.name}:{line}" in said for line in lines)
    left = _processes_of(script.name)
    try:
        usable = bench.run("-c", _USES_THE_DEVICE, bench.device, most_s=60).returncode == 0
    except TimeoutError:  # a device that hangs is not usable, no matter the verdict
        usable = False
    verdict = incident.get("verdict", "none")
    return {
        "what": case, "verdict": verdict, "named": named, "left": left, "usable": usable,
        "reason": incident.get("reason"),
        "ok": verdict in expected and named and not left and usable,
        "result": f"{verdict}, line {'named' if named else 'NOT named'}, "
        f"{'nothing left' if not left else f'LEFT: {left}'}, device "
        f"{'usable' if usable else 'NOT usable'} afterwards",
    }  # fmt: skip


def _processes_of(name: str) -> list[int]:
    """The pids of processes that still run the script."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(word.endswith(name) for word in process.info["cmdline"] or []):
            found.append(process.pid)
    return found


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "tests": tests, "probe": probe, "steps": steps, "projection": projection, "hangs": hangs,
}  # fmt: skip


def find_device(asked: str) -> str | None:
    """The device to use; None if this machine has none of that kind."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(),
             "cpu": True}  # fmt: skip
    wanted = ("cuda", "mps") if asked == "auto" else (asked,)
    return next((device for device in wanted if there[device]), None)


def measure(bench: Bench, parts: Sequence[str]) -> None:
    """Run the parts one after the other; a failure becomes a row of its part."""
    for place, name in enumerate(parts):
        print(f"== {name}", file=sys.stderr, flush=True)
        kept_s = sum(KEPT[later] for later in parts[place + 1 :]) * bench.budget_s
        most_s = time.monotonic() + SHARES[name] * bench.budget_s
        bench.part_ends_s = min(most_s, bench.ends_s - kept_s)
        try:
            rows = PARTS[name](bench)
        except (TimeoutError, AssertionError, ValueError, KeyError, OSError) as error:
            rows = [{"what": name, "ok": False, "result": f"{type(error).__name__}: {error}"}]
        bench.parts[name] = rows
        for row in rows:
            print(f"   {'ok  ' if row['ok'] else 'FAIL'} {row['what']}: {row['result']}",
                  file=sys.stderr, flush=True)  # fmt: skip


def table(bench: Bench, machine: dict[str, Any]) -> str:
    """The result as Markdown."""
    title = "Rehearsal on the CPU: no result" if bench.is_rehearsal else f"On {bench.device}"
    lines = [f"# {title}", "", ", ".join(str(value) for value in machine.values()), "",
             "| part | what | ok | result |", "| --- | --- | --- | --- |"]  # fmt: skip
    for name, rows in bench.parts.items():
        for row in rows:
            lines.append(
                f"| {name} | {row['what']} | {'yes' if row['ok'] else 'NO'} | {row['result']} |"
            )
    return "\n".join(lines) + "\n"


def describe(device: str) -> dict[str, Any]:
    """The device, its machine and the versions of the software."""
    import torch

    from ctrkit.core.gpus import visible_gpus

    gpus = [gpu.words for gpu in visible_gpus()] if device == "cuda" else []
    return {"device": device, "gpus": "; ".join(gpus) or device, "torch": torch.__version__,
            "python": sys.version.split()[0]}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of the five")
    parser.add_argument("--out", type=Path, help="folder for the table and JSON")
    options = parser.parse_args()
    parts = [part for part in options.parts.split(",") if part]
    if unknown := [part for part in parts if part not in PARTS]:
        print(f"--parts {','.join(unknown)}: known are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    device = find_device(options.device)
    if device is None:
        kind = "CUDA or MPS" if options.device == "auto" else options.device
        print(f"no {kind} here: nothing was run (--device cpu rehearses)", file=sys.stderr)
        return NO_ACCELERATOR
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ctrkit-accelerator-") as folder:
        budget_s = BUDGET_S * (REHEARSAL_X if device == "cpu" else 1.0)
        bench = Bench(device, Path(folder), budget_s, ends_s=began_s + budget_s)
        measure(bench, parts)
    machine, took_s = describe(device), time.monotonic() - began_s
    text = table(bench, machine)
    print(text + f"\nIt took {took_s:.0f} s.")
    out = options.out or (None if bench.is_rehearsal else ROOT / "results")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        name = f"accelerator-{'rehearsal' if bench.is_rehearsal else device}"
        (out / f"{name}.md").write_text(text)
        document = {"machine": machine, "is_rehearsal": bench.is_rehearsal, "took_s": took_s,
                    "parts": bench.parts}  # fmt: skip
        (out / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(row["ok"] for rows in bench.parts.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
