"""Runs cases of loaders, data and machines as people have them, and checks what ctrkit reports.

Runs the cases of the folder `shared/cases` beside the repository, each in an output folder of its
own, and checks what the commands left (`case_checks.py`). Prints a table: case, before, after.
`before` is what an older version made of it, kept in results/cases.json. Without the folder nothing
is run, with exit code 0; else 1 if a case is not right.

    python bench/cases.py --only len_in_rows,zero_batches
    python bench/cases.py --ctrkit ../old/.venv/bin/ctrkit --as before
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from case_checks import CHECKS, Ran
from rich.console import Console
from rich.table import Table

from ctrkit.core.files import write_atomically, write_json

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT.parent / "shared" / "cases"
KEPT = ROOT / "results" / "cases.json"
#: The most seconds for one command line.
LINE_S = 420.0
SKIPPED = 77
TONES = {"right": "green", "in part": "yellow", "wrong": "red"}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of a case: `right`, `in part`, `wrong` or `skipped`, and what did not hold."""

    verdict: str
    missing: list[str]
    wall_s: float


def main() -> int:
    options = _options()
    if not CASES.is_dir():
        print(f"skipped: there is no folder {CASES}")
        return 0
    names = sorted(p.parent.name for p in CASES.glob("*/case.json"))
    if options.only:
        names = [name for name in names if name in options.only.split(",")]
    kept: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    results: dict[str, Result] = {}
    for name in names:
        results[name] = run_case(CASES / name, options.ctrkit)
        print(f"{name}: {_words(vars(results[name]))}", file=sys.stderr, flush=True)
        kept.setdefault(options.column, {})[name] = vars(results[name])
    if options.keep:
        write_json(KEPT, kept)
        write_atomically(KEPT.with_suffix(".md"), as_markdown(kept).encode())
    _print_table(names, kept)
    return 0 if all(r.verdict in ("right", "skipped") for r in results.values()) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="cases, comma-separated")
    parser.add_argument(
        "--ctrkit", type=Path, default=Path(sys.executable).parent / "ctrkit",
        help="the command to try",
    )  # fmt: skip
    parser.add_argument(
        "--as", dest="column", choices=("before", "after"), default="after",
        help="the column that the results are kept in",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="write results/cases.json")
    return parser.parse_args()


def run_case(folder: Path, ctrkit: Path) -> Result:
    """Run the command lines of a case and check what they left."""
    case = json.loads((folder / "case.json").read_text())
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ctrkit-case-") as temporary:
        out = Path(temporary) / "out"
        environment = dict(os.environ)
        environment["PATH"] = f"{ctrkit.parent.resolve()}{os.pathsep}{environment['PATH']}"
        environment["CTRKIT_HOME"] = str(Path(temporary) / "home")
        lines = case["command"].replace("{CASE}", str(folder)).replace("{OUT}", str(out))
        ran = [run_line(line, Path(temporary), environment) for line in lines.splitlines()]
        if any(one.code == SKIPPED for one in ran):
            return Result(verdict="skipped", missing=[], wall_s=time.monotonic() - began_s)
        expected = CHECKS[folder.name](ran, out)
    missing = [name for name, holds in expected.items() if not holds]
    tracebacks = [one for one in ran if "Traceback (most recent call last)" in one.stderr]
    missing += ["no traceback"] if tracebacks else []
    missing += [f"ends by itself: {one.line[:40]}" for one in ran if one.code is None]
    verdict = "right" if not missing else "wrong" if len(missing) >= len(expected) else "in part"
    return Result(verdict=verdict, missing=missing, wall_s=time.monotonic() - began_s)


def run_line(line: str, folder: Path, environment: Mapping[str, str]) -> Ran:
    """Run a shell command line; if it takes too long, it is ended with all its processes."""
    began_s = time.monotonic()
    process = subprocess.Popen(
        ["bash", "-c", line], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    code: int | None = None
    try:
        stdout, stderr = process.communicate(timeout=LINE_S)
        code = process.returncode
    except subprocess.TimeoutExpired:
        for number in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        stdout, stderr = process.communicate()
    if os.environ.get("CASES_SHOW"):
        print(f"$ {line}\n{stdout}{stderr}\n[exit {code}]", file=sys.stderr)
    return Ran(
        line=line, code=code, stdout=stdout, stderr=stderr, wall_s=time.monotonic() - began_s
    )


def as_markdown(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """The table to keep, as Markdown: case, before, after, and the expectations that failed."""
    lines = [
        "# Loaders, data and machines as people have them",
        "",
        "By `bench/cases.py`; a case is right if all that is expected of it holds.",
        "",
        "| case | before | after | not so before | not so after |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in sorted({name for column in kept.values() for name in column}):
        found = [kept.get(column, {}).get(name) for column in ("before", "after")]
        cells = [result["verdict"] if result else "-" for result in found]
        cells += ["; ".join(result["missing"]) if result else "" for result in found]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _words(result: Mapping[str, Any]) -> str:
    missing = "; ".join(result["missing"])
    return result["verdict"] + (f": not so: {missing}" if missing else "")


def _print_table(names: Sequence[str], kept: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table("case", "before", "after", "not so after")
    for name in names:
        row = [name]
        for column in ("before", "after"):
            result = kept.get(column, {}).get(name)
            verdict = result["verdict"] if result else "-"
            row.append(f"[{TONES.get(verdict, 'dim')}]{verdict}[/]")
        after = kept.get("after", {}).get(name)
        table.add_row(*row, "; ".join(after["missing"]) if after else "")
    Console(width=120).print(table)


if __name__ == "__main__":
    sys.exit(main())
