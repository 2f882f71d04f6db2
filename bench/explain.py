"""Runs `ctrkit explain` on hanging scripts that ctrkit did not start, with and without py-spy.

Each is a plain script on a loader of the corpus (`tests/integration/scenarios`). It is started by
itself; once it has been silent for a while it is explained twice, and then ended. What counts:
whether the line that is marked as guilty in the scenario is named, whether the process is, and that
nothing of the script was changed: the same processes are there afterwards.

    python bench/explain.py --keep
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from hang_corpus import Scenario, load_corpus

from ctrkit.core.files import write_atomically, write_json
from ctrkit.supervise.explain.stack_readers import py_spy_program

SCRIPT = Path(__file__).resolve().parents[1] / "tests/integration/children/train_on.py"
KEPT = Path(__file__).resolve().parent.parent / "results" / "explain.md"
#: Scenario, number of workers, start method.
HANGS = (
    ("hang_in_collate", 2, "fork"), ("hang_in_worker_init", 1, "spawn"),
    ("hang_in_iterable", 2, "fork"), ("main_deadlock", 0, "-"), ("file_lock", 2, "fork"),
    ("lock_over_fork", 1, "fork"), ("spin_in_python", 1, "fork"), ("spin_in_regex", 0, "-"),
    ("silent_server", 1, "fork"), ("stopped", 1, "fork"), ("hang_after_batches", 2, "fork"),
    ("gil_held_in_c", 1, "fork"),
)  # fmt: skip
_SILENT_S, _LONGEST_S, _EXPLAIN_S = 8.0, 60.0, 120.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one explanation."""

    scenario: str
    with_py_spy: bool
    code: int
    seconds: float
    names_line: bool | None
    names_process: bool | None
    unchanged: bool
    said: str


def without_py_spy(folder: Path) -> Path:
    """Make a Python that has the same packages, but no py-spy."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    asks = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    said = subprocess.run(asks, capture_output=True, text=True, check=True, timeout=60)
    packages = [path for path in sys.path if Path(path).is_dir() and "bench" not in Path(path).name]
    (Path(said.stdout.strip()) / "same.pth").write_text("\n".join(packages) + "\n")
    return python


def start(scenario: Scenario, workers: int, method: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start the script and wait until it prints nothing more."""
    out = folder / f"{scenario.name}.txt"
    with out.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(scenario.path), str(workers), method],
            stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
    began_s, size, since_s = time.monotonic(), -1, time.monotonic()
    while time.monotonic() - began_s < _LONGEST_S:
        if process.poll() is not None:
            break
        if (now := out.stat().st_size) != size:
            size, since_s = now, time.monotonic()
        if size > 0 and time.monotonic() - since_s > _SILENT_S:
            break
        time.sleep(0.2)
    return process


def explain(
    scenario: Scenario, workers: int, pid: int, python: Path, path: str, *, with_py_spy: bool
) -> Result:
    """Explain the script once, with `ctrkit explain PID --wait 5s`."""
    before, began_s = _family(pid), time.monotonic()
    done = subprocess.run(
        [str(python), "-m", "ctrkit", "explain", str(pid), "--wait", "5s"],
        capture_output=True, text=True, errors="replace", timeout=_EXPLAIN_S, check=False,
        env=os.environ | {"PATH": path, "COLUMNS": "200"},
    )  # fmt: skip
    text = " ".join(done.stdout.split())
    cause = text.partition(" why ")[2].partition(" what to do ")[0] or text
    culprit = scenario.culprit(workers)
    lines = scenario.guilty_lines
    return Result(
        scenario=scenario.name,
        with_py_spy=with_py_spy,
        code=done.returncode,
        seconds=time.monotonic() - began_s,
        names_line=any(line in text for line in lines) if lines else None,
        names_process=None if culprit is None else _named(culprit) in cause,
        unchanged=_family(pid) == before,
        said=cause[:400] or done.stderr[-200:],
    )


def _named(culprit: str) -> str:
    return "worker (pid" if culprit == "worker" else "main process"


def _family(pid: int) -> set[int]:
    try:
        process = psutil.Process(pid)
        return {pid, *(child.pid for child in process.children(recursive=True))}
    except psutil.NoSuchProcess:
        return set()


def _end(process: subprocess.Popen[bytes]) -> None:
    for pid in _family(process.pid):
        try:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(timeout=30)


def as_markdown(results: list[Result]) -> str:
    """The table to keep, as Markdown."""
    words = {True: "yes", False: "**no**", None: "-"}
    lines = [
        "# `ctrkit explain` on scripts that hang",
        "",
        f"`python bench/explain.py`, {datetime.date.today():%Y-%m-%d}: plain scripts that ctrkit",
        "did not start, on loaders of the corpus of hangs. 2 cores, Linux, shared with other work",
        "while this ran. Each look is `--wait 5s`, exit code 0 is right. A dash: no line can be",
        "known.",
        "",
        "| hang | py-spy | guilty line named | guilty process named | exit code | took | "
        "nothing changed | says |",
        "| --- | --- | --- | --- | ---: | ---: | --- | --- |",
    ]
    for one in results:
        lines.append(
            f"| {one.scenario} | {'with' if one.with_py_spy else 'without'} | "
            f"{words[one.names_line]} | {words[one.names_process]} | {one.code} | "
            f"{one.seconds:.0f} s | {words[one.unchanged]} | {one.said[:160].replace('|', '/')} |"
        )
    for with_py_spy in (True, False):
        chosen = [r for r in results if r.with_py_spy == with_py_spy and r.names_line is not None]
        named = sum(bool(r.names_line) for r in chosen)
        word = "With" if with_py_spy else "Without"
        lines += ["", f"{word} py-spy the line is named in {named} of {len(chosen)}."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="hangs, comma-separated")
    parser.add_argument("--keep", action="store_true", help="write results/explain.{md,json}")
    options = parser.parse_args()
    corpus = {scenario.name: scenario for scenario in load_corpus()}
    program = py_spy_program()
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bare = without_py_spy(folder / "bare")
        places = os.environ["PATH"].split(os.pathsep)
        no_spy = os.pathsep.join(p for p in places if not (Path(p) / "py-spy").exists())
        for name, workers, method in HANGS:
            if options.only and name not in options.only.split(","):
                continue
            process = start(corpus[name], workers, method, folder)
            try:
                for python, path, spied in ((bare, no_spy, False),) + (
                    ((Path(sys.executable), f"{Path(program).parent}{os.pathsep}{no_spy}", True),)
                    if program
                    else ()
                ):
                    results.append(
                        explain(corpus[name], workers, process.pid, python, path, with_py_spy=spied)
                    )
                    print(results[-1], file=sys.stderr, flush=True)
            finally:
                _end(process)
    print(as_markdown(results))
    if options.keep:
        write_atomically(KEPT, as_markdown(results).encode())
        write_json(KEPT.with_suffix(".json"), [asdict(one) for one in results])
    return 0


if __name__ == "__main__":
    sys.exit(main())
