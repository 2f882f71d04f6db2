"""Collects pairs of a projection and the epoch that was then really run, over many sessions.

Each pair: a fresh probe of one cell, with about a sixth of the epoch's time, and then that very
epoch by `ctrkit train --config`, at once or, of `later` pairs, an hour or more after its probe. The
size of the data is chosen so that an epoch takes about so long; how long it then took decides
nothing: no pair is left out, and a probe without a projection is counted as such.

Two sittings with `--out` files of their own may run side by side where their loaders only wait, as
those of `stored`, `uneven`, `by_length` and `streamed` do: name it with `--beside`.

The numbers of pairs are targets: what is in results/pairs.json already counts, so that the same
command goes on where it was ended. Data, probes that wait for their epoch and what ctrkit learns
from the pairs are kept in the folder `--work`.

    python bench/pairs.py --short 26 --long 8 --later 6 --work ~/pairs
    python bench/pairs.py --summary
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ctrkit.core.environment import describe_code, describe_environment, machine_fingerprint
from ctrkit.core.files import read_json, read_table, write_atomically, write_json, write_table
from ctrkit.measure.quantiles import share_interval

LOADERS = Path(__file__).resolve().parent / "pairs_loaders.py"
#: The part of the epoch that a probe may take: under a sixth, as it finishes what it has begun.
PROBE_PART = 1 / 6.75
LEAST_BUDGET_S = 20.0
INCONCLUSIVE = 3
#: Seconds of an epoch, by the kind of pair.
EPOCH_S = {"short": 75.0, "long": 670.0, "later": 75.0}
SIZING_ROWS, SIZING_BATCHES = 20_000, 400


@dataclass(frozen=True, kw_only=True)
class Case:
    """A cell and its data; `data` is `synthetic`, `interactions` or a name in LOADERS."""

    data: str
    loader: str
    workers: int
    batch_size: int
    model: str = "mamba"

    @property
    def own(self) -> bool:
        return self.loader == "custom"

    @property
    def name(self) -> str:
        model = "" if self.own else f"-{self.model}"
        return f"{self.data}{model}-{self.loader}-w{self.workers}-b{self.batch_size}"


CASES = (
    Case(data="synthetic", loader="thread", workers=0, batch_size=256),
    Case(data="synthetic", loader="batches", workers=0, batch_size=128),
    Case(data="synthetic", loader="batches", workers=2, batch_size=256),
    Case(data="synthetic", loader="rows", workers=0, batch_size=256, model="bst"),
    Case(data="synthetic", loader="rows", workers=2, batch_size=128, model="bst"),
    Case(data="interactions", loader="thread", workers=0, batch_size=128, model="bst"),
    Case(data="interactions", loader="rows", workers=2, batch_size=256),
    Case(data="interactions", loader="batches", workers=0, batch_size=256, model="bst"),
    Case(data="stored", loader="custom", workers=0, batch_size=128),
    Case(data="stored", loader="custom", workers=2, batch_size=128),
    Case(data="decoded", loader="custom", workers=0, batch_size=256),
    Case(data="decoded", loader="custom", workers=2, batch_size=256),
    Case(data="uneven", loader="custom", workers=0, batch_size=32),
    Case(data="uneven", loader="custom", workers=2, batch_size=32),
    Case(data="by_length", loader="custom", workers=0, batch_size=32),
    Case(data="by_length", loader="custom", workers=2, batch_size=32),
    Case(data="streamed", loader="custom", workers=0, batch_size=32),
)
#: The data whose batches differ in cost.
UNEVEN = ("uneven", "by_length", "streamed")


class NoProjectionError(Exception):
    """The probe made no projection."""


class FailedError(Exception):
    """ctrkit ended with an unexpected exit code."""


def ctrkit(*arguments: object, batches: int = 0, timeout_s: float, home: Path) -> None:
    """Run ctrkit's command line without showing progress; it keeps what it learns in `home`."""
    done = subprocess.run(
        [sys.executable, "-m", "ctrkit", *map(str, arguments)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=timeout_s,
        check=False, env=os.environ | {"PAIRS_BATCHES": str(batches), "CTRKIT_HOME": str(home)},
    )  # fmt: skip
    if done.returncode == INCONCLUSIVE:
        raise NoProjectionError(done.stderr.strip().splitlines()[-1])
    if done.returncode:
        raise FailedError(
            f"ctrkit {arguments[0]}: exit code {done.returncode}: {done.stderr[-400:].strip()}"
        )


class Data:
    """Makes data sets of the sizes that are asked for, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.step_s: dict[str, float] = {}

    def options(self, case: Case, rows: int) -> list[object]:
        """The options that name a case's data; the data is made if it is missing."""
        if case.own:
            return ["--workload", f"{LOADERS}:{case.data}"]
        path = self.folder / f"{case.data}-{rows}"
        if not path.exists():
            make = self._synthetic if case.data == "synthetic" else self._interactions
            make(path, rows)
        return ["--data", path, "--phase", "phase1", "--set", f"model={case.model}"]

    def _synthetic(self, path: Path, rows: int) -> None:
        size = ["--rows", rows, "--users", max(200, rows // 30), "--items", max(400, rows // 20)]
        ctrkit("data", "synth", "--out", path, *size, timeout_s=300, home=self.home)

    def _interactions(self, path: Path, rows: int) -> None:
        """Make a log of ratings like MovieLens: few users with many events each."""
        draw = np.random.default_rng(rows)
        users = max(50, rows // 100)
        item = (draw.pareto(1.2, rows) * 20).astype(np.int64) % 1700
        log = pa.table(
            {
                "user": draw.integers(0, users, rows),
                "item": item,
                "rating": draw.integers(1, 6, rows),
                "time": 874_000_000 + np.sort(draw.integers(0, 20_000_000, rows)),
            }
        )
        file = path.with_suffix(".parquet")
        write_table(file, log)
        columns = ["--user", "user", "--item", "item", "--time", "time", "--label", "rating"]
        ctrkit(
            "data", "prepare", "--table", file, *columns, "--label-threshold", 4, "--out", path,
            timeout_s=300, home=self.home,
        )  # fmt: skip


def cell_options(case: Case) -> list[object]:
    options: list[object] = ["--device", "cpu", "--workers", case.workers]
    options += ["--batch-size", case.batch_size]
    return options if case.own else [*options, "--loader", case.loader]


def probe(
    case: Case, data: Data, options: list[object], batches: int, budget_s: float, out: Path
) -> None:
    ctrkit(
        "probe", *options, *cell_options(case), "--budget", f"{budget_s:.0f}s", "--out", out,
        "--quiet", batches=batches, timeout_s=budget_s + 900, home=data.home,
    )  # fmt: skip


def epoch_size(
    case: Case, data: Data, seconds: float, budget_s: float, known: Sequence[dict[str, Any]]
) -> int:
    """The number of rows, or of batches of a custom loader, that take so many seconds."""
    if case.name not in data.step_s:
        same = [p for p in known if p["case"] == case.name and p.get("actual_epoch_s")]
        if same:
            data.step_s[case.name] = same[-1]["actual_epoch_s"] / same[-1]["size"]
        else:
            out = data.folder / f"sizing-{case.name}-{time.time_ns()}"
            sizing_s = max(20.0, 1.5 * budget_s)
            options = data.options(case, SIZING_ROWS)
            probe(case, data, options, SIZING_BATCHES, sizing_s, out)
            best = read_json(out / "recommendation.json")
            unit = SIZING_BATCHES if case.own else SIZING_ROWS
            data.step_s[case.name] = best["projected_epoch_s"] / unit
    size = seconds / data.step_s[case.name]
    return max(50, round(size)) if case.own else max(2000, round(size / 1000) * 1000)


def begin_pair(
    case: Case, kind: str, data: Data, seconds: float, known: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Run a pair's probe; returns its projection and what the later epoch needs."""
    budget_s = max(LEAST_BUDGET_S, seconds * PROBE_PART)
    pair: dict[str, Any] = {
        "kind": kind,
        "case": case.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_fingerprint(),
        "code": describe_code().get("commit", ""),
        "uneven": case.data in UNEVEN,
        "load_average": os.getloadavg()[0],
    }
    folder = data.folder / f"pair-{time.time_ns()}"
    try:
        pair["size"] = epoch_size(case, data, seconds, budget_s, known)
        options = data.options(case, pair["size"])
        probe(case, data, options, pair["size"] if case.own else 0, budget_s, folder / "probe")
    except (NoProjectionError, FailedError) as error:
        return pair | {"no_projection": str(error)}
    best = read_json(folder / "probe" / "recommendation.json")
    if best.get("projected_epoch_s") is None:
        return pair | {"no_projection": "the length of the epoch was not known"}
    trials = read_table(folder / "probe" / "trials.parquet").to_pylist()
    return pair | {
        "folder": str(folder),
        "probed_unix_s": time.time(),
        "cell": best["cell"],
        "launches": sum(row["kind"] == "full" and row["verdict"] == "ok" for row in trials),
        "launch_spread": best.get("launch_spread"),
        "probe_s": read_json(folder / "probe" / "run.json")["wall_s"],
        "projected_epoch_s": best["projected_epoch_s"],
        "low_s": best["projected_epoch_s_low"],
        "high_s": best["projected_epoch_s_high"],
        "flags": best["flags"],
    }


def end_pair(case: Case, pair: dict[str, Any], data: Data) -> dict[str, Any]:
    """Run the projected epoch, and compare it with the projection."""
    folder = Path(pair["folder"])
    apart_s = time.time() - pair["probed_unix_s"]
    ctrkit(
        "train", *data.options(case, pair["size"]), "--config",
        folder / "probe" / "recommendation.json", "--epochs", 1,
        "--out", folder / f"train-{time.time_ns()}", "--quiet",
        batches=pair["size"] if case.own else 0, timeout_s=4 * 3600, home=data.home,
    )  # fmt: skip
    newest = max(folder.glob("train-*"))
    with open(newest / "epochs.csv") as file:
        actual_s = float(next(csv.DictReader(file))["wall_s"])
    high_s = pair["high_s"]
    return pair | {
        "apart_s": apart_s,
        "actual_epoch_s": actual_s,
        "epoch_per_probe": actual_s / pair["probe_s"],
        "error": pair["projected_epoch_s"] / actual_s - 1,
        "covered": pair["low_s"] <= actual_s and (high_s is None or actual_s <= high_s),
    }


def summary(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Errors, and coverage with its interval, for all pairs and for groups of them.

    Pairs without a `kind` were made before flags acted on the interval.
    """
    new = [pair for pair in pairs if pair.get("kind")]
    ended = [pair for pair in new if "actual_epoch_s" in pair]
    groups = {
        "all": ended,
        "unflagged": [p for p in ended if not p["flags"]],
        "flagged": [p for p in ended if p["flags"]],
        "epochs of 10 min or more": [p for p in ended if p["actual_epoch_s"] >= 600],
        "batches that differ in cost": [p for p in ended if p["uneven"]],
        "an hour or more apart": [p for p in ended if p["apart_s"] >= HOUR_S],
        "before flags acted": [p for p in pairs if not p.get("kind")],
    }
    found: dict[str, Any] = {
        "pairs": len(new),
        "ended": len(ended),
        "waiting": sum(map(_waits, new)),
        "without_an_epoch": sum("no_epoch" in pair for pair in new),
        "without_a_projection": sum("no_projection" in pair for pair in new),
    }
    return found | {"groups": {name: _figures(group) for name, group in groups.items() if group}}


HOUR_S = 3600.0


def _waits(pair: dict[str, Any]) -> bool:
    """Whether a pair's epoch has yet to be run."""
    return "folder" in pair and "actual_epoch_s" not in pair and "no_epoch" not in pair


def _figures(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    errors = [abs(pair["error"]) for pair in group]
    held = sum(pair["covered"] for pair in group)
    low, high = share_interval(held, len(group))
    halves = [
        math.inf if p["high_s"] is None else p["high_s"] / p["projected_epoch_s"] - 1 for p in group
    ]
    return {
        "pairs": len(group),
        "error_median": statistics.median(errors),
        "error_p95": _p95(errors),
        "held": held,
        "coverage": held / len(group),
        "coverage_low": low,
        "coverage_high": high,
        "half_width_median": statistics.median(halves),
        "open_above": sum(map(math.isinf, halves)),
    }


def _p95(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def markdown(pairs: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    lines = [
        "# Projections and the epochs that were then run",
        "",
        f"`python bench/pairs.py`: {found['pairs']} pairs, none left out: {found['ended']} ended, "
        f"{found['waiting']} wait for their epoch, {found['without_a_projection']} without a "
        f"projection, {found['without_an_epoch']} whose run failed. Coverage with its 95 % "
        "interval (Clopper-Pearson).",
        "",
        "| | pairs | median error | 95th percentile | held by the interval | median half-width |"
        " open above |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in found["groups"].items():
        between = f"{one['coverage_low'] * 100:.0f} to {one['coverage_high'] * 100:.0f} %"
        half = one["half_width_median"]
        lines.append(
            f"| {name} | {one['pairs']} | {share(one['error_median'])} | "
            f"{share(one['error_p95'])} | {one['held']} of {one['pairs']}, "
            f"{share(one['coverage'])} ({between}) | "
            f"{'open' if math.isinf(half) else share(half)} | {one['open_above']} |"
        )
    lines += [
        "",
        "| date | kind | case | epoch | epoch / probe | apart | error | interval | held | flags |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | --- | --- | --- |",
    ]
    return "\n".join([*lines, *map(_line, pairs), ""])


def _line(pair: dict[str, Any]) -> str:
    date, kind = pair["date"][:16].replace("T", " "), pair.get("kind", "before")
    if "no_projection" in pair:
        return f"| {date} | {kind} | {pair['case']} | | | | | {pair['no_projection']} | | |"
    projected_s, high_s = pair["projected_epoch_s"], pair["high_s"]
    high = "open" if high_s is None else f"{high_s / projected_s - 1:+.1%}"
    interval = f"{pair['low_s'] / projected_s - 1:+.1%} .. {high}"
    flags = ", ".join(pair["flags"])
    if "actual_epoch_s" not in pair:
        state = pair.get("no_epoch", "waits")
        return f"| {date} | {kind} | {pair['case']} | {state} | | | | {interval} | | {flags} |"
    return (
        f"| {date} | {kind} | {pair['case']} | {pair['actual_epoch_s']:.0f} s | "
        f"{pair['epoch_per_probe']:.1f} | {pair.get('apart_s', 0) / 60:.0f} min | "
        f"{pair['error']:+.1%} | {interval} | {'yes' if pair['covered'] else 'no'} | {flags} |"
    )


def save(out: Path, pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = summary(pairs)
    write_json(
        out.with_suffix(".json"),
        {"summary": found, "environment": describe_environment(), "pairs": list(pairs)},
    )
    write_atomically(out.with_suffix(".md"), markdown(pairs, found).encode())
    return found


def next_case(cases: Sequence[Case], pairs: Sequence[dict[str, Any]], kind: str) -> Case:
    """A random case of those with the fewest pairs of this kind so far."""

    def done(case: Case) -> int:
        return sum(p["case"] == case.name and p.get("kind") == kind for p in pairs)

    return min(cases, key=lambda case: (done(case), random.random()))


class Sitting:
    """Makes pairs until there are as many of each kind as wanted."""

    def __init__(self, options: argparse.Namespace, pairs: list[dict[str, Any]]) -> None:
        self.options, self.pairs = options, pairs
        known = {case.name: case for case in CASES}
        self.known = known
        self.cases = [known[name] for name in options.cases.split(",")] if options.cases else CASES
        self.data = Data(options.work)
        self.wanted = {"later": options.later, "long": options.long, "short": options.short}

    def run(self) -> None:
        """Make the probes of `later` pairs first, and the other pairs while these wait."""
        for kind in self._kinds_to_make():
            self._end_those_due()
            case = next_case(self.cases, self.pairs, kind)
            seconds = self.options.epoch_seconds or EPOCH_S[kind]
            pair = begin_pair(case, kind, self.data, seconds, self.pairs)
            pair |= {"beside": self.options.beside} if self.options.beside else {}
            self.pairs.append(pair)
            self._save(pair)
            if kind != "later":
                self._end(pair)
        while (waiting := self._waiting()) and not self.options.no_wait:
            due_s = min(map(self._due_unix_s, waiting)) - time.time()
            time.sleep(max(0.0, min(60.0, due_s)))
            self._end_those_due()

    def _kinds_to_make(self) -> Iterator[str]:
        for pair in [p for p in self._waiting() if p["kind"] != "later"]:
            self._end(pair)  # an earlier sitting was ended after its probe
        for kind, wanted in self.wanted.items():
            done = sum(pair.get("kind") == kind for pair in self.pairs)
            yield from [kind] * (wanted - done)

    def _waiting(self) -> list[dict[str, Any]]:
        return [p for p in self.pairs if _waits(p)]

    def _due_unix_s(self, pair: dict[str, Any]) -> float:
        later = pair["kind"] == "later"
        return float(pair["probed_unix_s"]) + (self.options.later_seconds if later else 0.0)

    def _end_those_due(self) -> None:
        for pair in self._waiting():
            if self._due_unix_s(pair) <= time.time():
                self._end(pair)

    def _end(self, pair: dict[str, Any]) -> None:
        if pair.get("folder"):
            try:
                pair |= end_pair(self.known[pair["case"]], dict(pair), self.data)
            except FailedError as error:
                pair["no_epoch"] = str(error)
            self._save(pair)

    def _save(self, pair: dict[str, Any]) -> None:
        save(self.options.out, self.pairs)
        print(_line(pair), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", type=int, default=0, help="pairs of about 75 s in all")
    parser.add_argument("--long", type=int, default=0, help="pairs with epochs of over 10 min")
    parser.add_argument("--later", type=int, default=0, help="pairs run an hour after their probe")
    parser.add_argument("--later-seconds", type=float, default=HOUR_S)
    parser.add_argument("--no-wait", action="store_true", help="leave epochs that are not due yet")
    parser.add_argument("--beside", default="", help="what else runs on this machine, for the file")
    parser.add_argument("--epoch-seconds", type=float, help="of an epoch, instead of each kind's")
    parser.add_argument("--cases", default="", help="names, with commas between; --list shows them")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--summary", action="store_true", help="only sum up what is there")
    parser.add_argument("--work", type=Path, default=Path("build/pairs"), help="kept between runs")
    parser.add_argument("--out", type=Path, default=Path("results/pairs"))
    options = parser.parse_args()
    if options.list:
        print("\n".join(case.name for case in CASES))
        return
    options.work = options.work.expanduser().resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    file = options.out.with_suffix(".json")
    pairs: list[dict[str, Any]] = read_json(file)["pairs"] if file.is_file() else []
    if options.summary:  # changes no file: the environment in it is that of the pairs
        print(markdown(pairs, summary(pairs)), end="")
        return
    Sitting(options, pairs).run()
    print(json.dumps(save(options.out, pairs), indent=2))


if __name__ == "__main__":
    main()
