"""Runs unedited training scripts of many frameworks, and checks what ctrkit finds.

For each script: the loader and the step that were found, how its cells came out, the projected
epoch against epochs that are then run, the recommended cell against the script as written (in
turn, in pairs), what the experiment's check said, and what was left behind. With `--peer` also
train-doctor: how long to its answer, and what its recommendation is worth, in the same pairs.

Libraries are installed into a cache folder (`script_setup.py`), scripts and data sets are there,
too. Results are kept script by script: `--only NAME` adds to them or replaces them.

    python bench/scripts.py --budget 60s --pairs 3 --keep
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import statistics
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from script_cases import CASES, Case
from script_runs import Ran, run
from script_setup import environment, versions, work_folder
from script_table import markdown

from ctrkit.core.files import read_json, read_table, write_atomically, write_json

KEPT = Path(__file__).resolve().parent.parent / "results" / "scripts.json"
_LONGEST_S = 900.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings from the command line."""

    ctrkit: str
    cache: Path
    budget: str
    pairs: int
    peer_s: float
    found: dict[str, Path | None]


@dataclass(kw_only=True)
class Result:
    """The results of a script; times of epochs are those of real runs."""

    name: str
    versions: dict[str, str] = field(default_factory=dict)
    failed: str = ""
    probe_s: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)
    right: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    cells: list[dict[str, str]] = field(default_factory=list)
    as_written: dict[str, Any] = field(default_factory=dict)
    recommended: dict[str, Any] = field(default_factory=dict)
    projected_epoch_s: list[float | None] = field(default_factory=list)
    epoch_s: dict[str, list[float]] = field(default_factory=dict)
    experiment: str = ""
    same_output: bool | None = None
    left: list[str] = field(default_factory=list)
    files: int = 0
    peer: dict[str, Any] = field(default_factory=dict)


class Bench:
    """Runs one case after another."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def run_case(self, case: Case) -> Result:
        settings, result = self.settings, Result(name=case.name)
        python = environment(settings.cache, case.python, settings.found[case.python])
        result.versions = versions(python, (*case.of, "torch"))
        folder = work_folder(settings.cache, case.name.replace(" ", "-"), python, case.make_data)
        out = folder.parent / f"{folder.name}-runs"
        env = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
               "CTRKIT_HOME": str(out / "home")} | case.env  # fmt: skip
        self._case, self._folder, self._env, self._out = case, folder, env, out
        out.mkdir(parents=True, exist_ok=True)
        self._turn = sum(1 for _ in out.iterdir())
        probe = self._probe(result)
        if result.failed or not case.ends:
            return result
        recommendation = probe / "recommendation.json"
        self._run_epochs(result, recommendation)
        if settings.peer_s:
            self._ask_peer(result, python)
        return result

    # ---- ctrkit ----

    def _ctrkit(self, *words: str) -> Ran:
        return run([self.settings.ctrkit, *words], self._folder, self._env, _LONGEST_S)

    def _new_folder(self, name: str) -> Path:
        self._turn += 1
        return self._out / f"{self._turn:03d}-{name}"

    def _probe(self, result: Result) -> Path:
        case, probe = self._case, self._new_folder("probe")
        ran = self._ctrkit(
            "probe", "--quiet", "--thorough", "--budget", self.settings.budget, "--out", str(probe),
            *case.axes, "--", *case.command,
        )  # fmt: skip
        result.probe_s, result.left = ran.wall_s, ran.left
        if not (probe / "recommendation.json").is_file():
            result.failed = (ran.err or ran.out)[-400:]
            return probe
        info, best = read_json(probe / "run.json"), read_json(probe / "recommendation.json")
        answer = best["script"]
        sizes = info["sizes"] or {}
        result.found = {
            "epochs": sizes.get("epochs"), "batches": sizes.get("train_batches"),
            "rows": answer["as_written"]["batch_size"],
        }  # fmt: skip
        for name, value in result.found.items():
            (result.right if value == getattr(case, name) else result.wrong).append(name)
        result.as_written, result.recommended = answer["as_written"], best["cell"]
        result.experiment, result.files = answer["experiment"], len(answer["files_made"])
        epoch = [best[f"projected_epoch_s{end}"] for end in ("", "_low", "_high")]
        result.projected_epoch_s = [] if epoch[0] is None else epoch
        for row in read_table(probe / "trials.parquet").to_pylist():
            said = {"cell": row["cell_id"], "kind": row["kind"], "verdict": row["verdict"]}
            result.cells.append(said | {"reason": row["reason"] or ""})
        return probe

    def _run_epochs(self, result: Result, recommendation: Path) -> None:
        """Run as written and as recommended, in turn; only once if both are the same.

        They are one kind of run: `ctrkit train`, with or without settings that it puts in.
        """
        ways = {"as written": []}
        if result.recommended != result.as_written:
            ways["recommended"] = ["--config", str(recommendation)]
        outputs = self._run_in_turn(result, ways)
        lines = {name: said for name, said in outputs.items() if said}
        result.same_output = len(set(lines.values())) == 1 if len(lines) > 1 else None

    def _run_in_turn(self, result: Result, ways: dict[str, list[str]]) -> dict[str, str]:
        outputs: dict[str, str] = {}
        for turn in range(self.settings.pairs):
            names = list(ways) if turn % 2 == 0 else list(reversed(ways))
            for name in names:
                folder = self._new_folder("train")
                ran = self._ctrkit("train", "--quiet", "--out", str(folder), *ways[name], "--",
                                   *self._case.command)  # fmt: skip
                result.left += ran.left
                seconds = _epoch_s(folder)
                if ran.code or seconds is None:
                    result.failed = f"{name}: exit code {ran.code}: {ran.err[-200:]}"
                    return outputs
                result.epoch_s.setdefault(name, []).append(seconds)
                outputs.setdefault(name, _telling(ran.out))
                print(f"  {result.name}, {name}: {seconds:.2f} s an epoch", file=sys.stderr)
        return outputs

    # ---- train-doctor ----

    def _ask_peer(self, result: Result, python: Path) -> None:
        """`train-doctor fix` with its defaults; then test its choice in pairs with the original."""
        doctor = environment(self.settings.cache, "main", self.settings.found["main"])
        command = [
            str(python.parent / word) if i == 0 else word
            for i, word in enumerate(self._case.command)
        ]
        ran = run(
            [str(doctor.parent / "train-doctor"), "fix", "--json", "--quiet", "--no-card", "--",
             *command],
            self._folder, self._env, self.settings.peer_s,
        )  # fmt: skip
        said = _json_in(ran.out)
        result.peer = {"s": ran.wall_s, "code": ran.code, "left": ran.left}
        if said is None:
            result.peer["headline"] = "no answer" if ran.code is not None else "not done in time"
            return
        result.peer["headline"] = said.get("headline", "")
        tried = [one.get("describe", "") for one in said.get("candidates", ())]
        result.peer |= {"tried": tried, "proven": said.get("proven")}
        workers = [text.split("=")[1] for text in tried if text.startswith("num_workers=")]
        if said.get("proven") and workers:
            ways = {"as written (peer's turn)": [], "train-doctor": ["--workers", workers[0]]}
            self._run_in_turn(result, ways)


def _epoch_s(folder: Path) -> float | None:
    """Mean wall-clock time of an epoch of a real run."""
    try:
        with (folder / "epochs.csv").open() as file:
            rows = [float(row["wall_s"]) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return None
    return statistics.mean(rows) if rows else None


def _telling(out: str) -> str:
    """The lines of a script's output that show its losses, without the times in them."""
    lines = [line for line in out.splitlines() if line.startswith("epoch ")]
    return "\n".join(line.split(" s ")[0] if "top1" not in line else line.rsplit(" ", 2)[0]
                     for line in lines)  # fmt: skip


def _json_in(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text[text.index("{") :])
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--only", default="", help="scripts, comma-separated")
    parser.add_argument("--budget", default="60s", help="of each probe")
    parser.add_argument("--pairs", type=int, default=3, help="of whole runs")
    parser.add_argument("--peer", type=float, default=0.0, help="seconds that train-doctor has")
    parser.add_argument("--cache", type=Path, default=home / "ctrkit-bench-scripts")
    parser.add_argument("--venv", type=Path, help="an environment that has the libraries")
    parser.add_argument("--venv-recbole", type=Path, help="one that has RecBole")
    parser.add_argument("--ctrkit", default=str(Path(sys.executable).parent / "ctrkit"))
    parser.add_argument("--keep", action="store_true", help="write results/scripts.{json,md}")
    return parser.parse_args()


def main() -> int:
    options = _options()
    settings = Settings(
        ctrkit=options.ctrkit, cache=options.cache, budget=options.budget, pairs=options.pairs,
        peer_s=options.peer, found={"main": options.venv, "recbole": options.venv_recbole},
    )  # fmt: skip
    chosen = [name.strip() for name in options.only.split(",") if name.strip()]
    unknown = set(chosen) - {case.name for case in CASES}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}")
    kept: dict[str, Any] = read_json(KEPT) if KEPT.is_file() else {}
    bench, load = Bench(settings), os.getloadavg()[0]
    for case in CASES:
        if chosen and case.name not in chosen:
            continue
        print(f"{case.name} ...", file=sys.stderr, flush=True)
        result = asdict(bench.run_case(case))
        result |= {"when": f"{datetime.date.today():%Y-%m-%d}", "budget": settings.budget,
                   "load": [round(load, 1), round(os.getloadavg()[0], 1)]}  # fmt: skip
        load = os.getloadavg()[0]
        kept[case.name] = result
        if options.keep:
            write_json(KEPT, kept)
            write_atomically(KEPT.with_suffix(".md"), markdown(kept).encode())
    print(markdown(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
