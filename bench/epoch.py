"""Compares training rows/s, end to end, with FuxiCTR's and torch-rechub's trainers on one model.

All train the same DCNv2 from the same first parameters on the same rows of a generated store, each
in its own process, in turn: ours by `ctrkit train` with the thread loader, the peers by their own
`fit` and loaders, at whichever number of workers served them best in the first round. As a side
line, our model and step over a stock per-row DataLoader. Rows/s are those of the second epoch's
training part, start-up, validation and checkpoints not counted. That the models are equal is
checked first: parameters, and predictions before and after three steps.

    python bench/epoch.py --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from ctrkit.core.environment import describe_environment, physical_cores
from ctrkit.core.files import write_atomically, write_json

BENCH = Path(__file__).resolve().parent
OURS, PEERS, STOCK = "ctrkit", ("fuxictr", "rechub"), "stock"
REFERENCE = {"users": 577_482, "items": 335_164}
WIDTH, CROSS_LAYERS = 16, 3
PACKAGES = ("fuxictr", "torch-rechub")
RUN_DEADLINE_S = 1200.0
EQUAL_BEFORE = 1e-5  # of probabilities, from one start
# FuxiCTR takes an embedding whose elements add up to exactly 0 for padding. If that is the only
# event of a history, the mean is divided by 1e-12, and the run ends with NaN. The bench then tries
# another order of the rows, and says so.
TRIES = 5
NOTES = {
    "ctrkit": "one table, fused Adam, clipping at 10",
    "fuxictr": "clipping at 10",
    "rechub": "bias outside of the cross product, no clipping",
    "stock": "our model and step",
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A size of the tables (a share of the reference scale) and a batch size."""

    tables: float
    batch_size: int
    history: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """The result of one launch of a contender; `train_s` and `cpu_s` hold a value per epoch.

    The CPU time is that of the training process alone, without its loader's workers.
    """

    contender: str
    workers: int
    round: int
    rows_per_s: float
    cpu_us_per_row: float
    train_s: list[float]
    cpu_s: list[float]
    val_auc: list[float]
    val_labels: list[list[int]]
    peak_rss_bytes: int
    command_s: float
    load_average: float


class Contest:
    """One case: its store, its exported rows, and the launches of contenders on them."""

    def __init__(self, folder: Path, case: Case, options: argparse.Namespace) -> None:
        self.folder, self.case, self.options = folder, case, options
        folder.mkdir(parents=True)
        self.environment = {**os.environ, "CTRKIT_HOME": str(folder / "home")}
        scaled = [f"--{n}={max(100, round(size * case.tables))}" for n, size in REFERENCE.items()]
        self._call(
            [sys.executable, "-m", "ctrkit", "data", "synth", "--out", str(folder / "store"),
             f"--rows={options.rows}", *scaled],
        )  # fmt: skip
        from epoch_settings import Settings, export

        self.settings = Settings(
            store=str(folder / "store"), rows=str(folder / "rows"), result="",
            batch_size=case.batch_size, epochs=options.epochs, threads=options.threads,
            history=case.history, width=WIDTH, cross_layers=CROSS_LAYERS,
            hidden=tuple(options.hidden), lr=1e-3, clip=10.0, seed=42,
        )  # fmt: skip
        export(self.settings)
        meta = json.loads((folder / "store" / "meta.json").read_text())
        self.train_rows = meta["rows"]["train"]
        self.launches = 0
        self.failures: list[str] = []

    def launch(
        self, contender: str, workers: int, *, check: bool = False, order: int = 0
    ) -> dict[str, Any]:
        """Launch a contender; returns its answer, with the whole command's seconds as `command_s`.

        Raises:
            RuntimeError: the contender failed; the message is the last line that it wrote.
        """
        self.launches += 1
        folder = self.folder / f"{self.launches}-{contender}"
        folder.mkdir()
        settings = replace(
            self.settings, result=str(folder / "answer.json"), workers=workers, check=check,
            order=order,
        )  # fmt: skip
        settings.write(folder / "settings.json")
        program = str(BENCH / f"epoch_{contender}.py")
        command = [sys.executable, program, str(folder / "settings.json")]
        if contender == OURS and not check:
            command = [
                sys.executable, "-m", "ctrkit", "train", "--workload", f"{program}:workload",
                "--device=cpu", "--loader=thread", "--workers=0", f"--threads={settings.threads}",
                f"--batch-size={settings.batch_size}", f"--epochs={settings.epochs}",
                "--quiet", f"--out={folder / 'run'}",
            ]  # fmt: skip
        self.environment["EPOCH_SETTINGS"] = str(folder / "settings.json")
        began_s = time.monotonic()
        self._call(command)
        answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
        if contender == OURS and not check:
            with open(folder / "run" / "epochs.csv", newline="") as file:
                answer["epochs_wall_s"] = [float(row["wall_s"]) for row in csv.DictReader(file)]
        return {**answer, "command_s": time.monotonic() - began_s}

    def measure(self, contender: str, workers: int, number: int) -> Run:
        """Launch once, for a row of the result; a peer that fails gets another order of rows."""
        for attempt in range(TRIES):
            try:
                answer = self.launch(contender, workers, order=(number - 1) * TRIES + attempt)
                break
            except RuntimeError as error:
                self.failures.append(f"{contender}, {workers} workers, round {number}: {error}")
                print(self.failures[-1], file=sys.stderr, flush=True)
                if contender not in PEERS or attempt == TRIES - 1:
                    raise
        run = Run(
            contender=contender, workers=workers, round=number,
            rows_per_s=self.train_rows / statistics.fmean(answer["train_s"][1:]),
            cpu_us_per_row=statistics.fmean(answer["cpu_s"][1:]) / self.train_rows * 1e6,
            load_average=os.getloadavg()[0],
            **{k: answer[k] for k in (
                "train_s", "cpu_s", "val_auc", "val_labels", "peak_rss_bytes", "command_s"
            )},
        )  # fmt: skip
        print(
            f"{contender:8} {workers} workers: {run.rows_per_s:9,.0f} rows/s,"
            f" AUC {run.val_auc[-1]:.4f}, load {run.load_average:.1f}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return run

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=RUN_DEADLINE_S
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no word"]
            raise RuntimeError(lines[-1])


def check_models(contest: Contest) -> dict[str, dict[str, Any]]:
    """For each contender: parameters, optimizer, distance of its predictions from ours; or `error`.

    Raises:
        SystemExit: ours fails, or a peer's model is not equal to it.
    """
    found: dict[str, dict[str, Any]] = {}
    ours: dict[str, Any] = {}
    for contender in (OURS, *PEERS):
        try:
            answer = contest.launch(contender, 0, check=True)
        except RuntimeError as error:
            if contender == OURS:
                raise SystemExit(f"ours fails: {error}") from None
            found[contender] = {"error": str(error)}
            print(f"{contender} is left out: {error}", file=sys.stderr)
            continue
        ours = ours or answer
        far = {
            f"off_{when}": max(abs(a - b) for a, b in zip(answer[when], ours[when], strict=True))
            for when in ("before", "after")
        }
        found[contender] = {k: answer[k] for k in ("parameters", "optimizer")} | far
        if answer["parameters"] != ours["parameters"] or far["off_before"] > EQUAL_BEFORE:
            raise SystemExit(
                f"{contender}: not the same model: {found[contender]}, ours {found[OURS]}"
            )
    return found


def contend(contest: Contest, peers: list[str]) -> list[Run]:
    """Launch all in turn, round by round; the first round also finds each peer's best workers."""
    options = contest.options
    runs: list[Run] = []
    workers = {OURS: [0]} | dict.fromkeys((*peers, STOCK), options.peer_workers)
    for number in range(1, options.rounds + 1):
        for contender, counts in workers.items():
            if contender == STOCK and number > 1:
                continue  # not part of the comparison
            tried = [contest.measure(contender, count, number) for count in counts]
            runs += tried
            workers[contender] = [max(tried, key=lambda run: run.rows_per_s).workers]
    labels = {json.dumps(run.val_labels) for run in runs}
    if len(labels) != 1:
        raise SystemExit(f"not the same validation rows: {labels}")
    return runs


def best(runs: list[Run], contender: str) -> list[Run]:
    """The fastest run of a contender in each round."""
    of = [run for run in runs if run.contender == contender]
    return [
        max((run for run in of if run.round == number), key=lambda run: run.rows_per_s)
        for number in sorted({run.round for run in of})
    ]


def spread(values: list[float], form: str) -> str:
    """The values as text: median (min .. max)."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({low:{form}} .. {high:{form}})"


def summary(case: Case, runs: list[Run], peers: list[str]) -> dict[str, Any]:
    """Our rate over that of each round's faster peer, and our AUC minus that of the better peer."""
    ours = best(runs, OURS)
    against = {peer: best(runs, peer) for peer in peers}
    ratios = [
        run.rows_per_s / max(of[i].rows_per_s for of in against.values())
        for i, run in enumerate(ours)
    ]
    auc = {
        name: statistics.median(run.val_auc[-1] for run in best(runs, name))
        for name in (OURS, *peers)
    }
    return {
        "tables": case.tables, "batch_size": case.batch_size, "ratios": ratios,
        "ratio": statistics.median(ratios), "auc": auc, "auc_leads": [
            run.val_auc[-1] - max(of[i].val_auc[-1] for of in against.values())
            for i, run in enumerate(ours)
        ],
    }  # fmt: skip


def table(case: Case, checks: dict[str, Any], runs: list[Run], peers: list[str]) -> list[str]:
    """A case as Markdown."""
    parameters = checks[OURS]["parameters"]
    lines = [
        "",
        f"## Tables of {case.tables:g} x the reference scale, batch {case.batch_size}:"
        f" {parameters:,} parameters",
        "",
        "| trainer | workers | thousand rows/s | ours / it | CPU µs/row | AUC | memory | apart |",
        "| --- " * 8 + "|",
    ]
    ours = best(runs, OURS)
    for name in (OURS, *peers, STOCK):
        rows = best(runs, name)
        ratios = [a.rows_per_s / b.rows_per_s for a, b in zip(ours, rows, strict=False)]
        lines.append(
            f"| {name} | {rows[-1].workers}"
            f" | {spread([run.rows_per_s / 1000 for run in rows], '.1f')}"
            f" | {'' if name == OURS else spread(ratios, '.2f')}"
            f" | {spread([run.cpu_us_per_row for run in rows], '.1f')}"
            f" | {spread([run.val_auc[-1] for run in rows], '.4f')}"
            f" | {max(run.peak_rss_bytes for run in rows) / 2**20:,.0f} MiB | {NOTES[name]} |"
        )
    for name in PEERS:
        if "error" in checks[name]:
            lines.append(f"\n{name} is left out: {checks[name]['error']}")
        else:
            lines.append(
                f"\n{name}: {checks[name]['parameters']:,} parameters; its predictions are off ours"
                f" by at most {checks[name]['off_before']:.1e} before and"
                f" {checks[name]['off_after']:.1e} after three steps."
            )
    return lines


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    def numbers(kind: type) -> Any:
        return lambda text: [kind(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=300_000, help="impressions of the store")
    parser.add_argument("--batch-size", type=numbers(int), default=[2048])
    parser.add_argument("--tables", type=numbers(float), default=[1.0, 0.1, 0.01],
                        help="users and items, as shares of the reference scale")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--history", type=int, default=50, help="events; 0: the ids alone")
    parser.add_argument("--hidden", type=numbers(int), default=[128, 64])
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--peer-workers", type=numbers(int), default=[0, 2])
    parser.add_argument("--quick", action="store_true", help="small, to see that it works")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    if options.epochs < 2:
        parser.error("--epochs: at least 2, the first one is not counted")
    if options.quick:
        options.rows, options.rounds, options.tables = 30_000, 1, options.tables[:1]
        options.peer_workers = options.peer_workers[:1]
    return options


def main() -> None:
    options = options_of()
    found: list[dict[str, Any]] = []
    lines: list[str] = []
    cases = [
        Case(tables=tables, batch_size=batch_size, history=options.history)
        for tables in options.tables
        for batch_size in options.batch_size
    ]
    with tempfile.TemporaryDirectory(prefix="ctrkit-epoch-") as temporary:
        for number, case in enumerate(cases):
            try:
                contest = Contest(Path(temporary) / str(number), case, options)
                checks = check_models(contest)
                peers = [name for name in PEERS if "error" not in checks[name]]
                runs = contend(contest, peers)
            except RuntimeError as error:
                raise SystemExit(f"bench/epoch.py: {error}") from None
            lines += table(case, checks, runs, peers)
            lines += [f"\nFailed, and launched again: {each}" for each in contest.failures]
            summed = summary(case, runs, peers) if peers else {}
            found.append(
                {"models": checks, "summary": summed, "runs": [vars(run) for run in runs],
                 "failures": contest.failures}
            )  # fmt: skip
            text = "\n".join([*heading(found, options), *lines, ""])
            save(found, text, options)
    print(text, end="")


def save(found: list[dict[str, Any]], text: str, options: argparse.Namespace) -> None:
    """Save the results so far."""
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    environment = describe_environment()
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            environment["versions"][package] = metadata.version(package)
    document = {"settings": settings, "cases": found, "environment": environment}
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "epoch.json", document)
    write_atomically(options.out / "epoch.md", text.encode())


def heading(found: list[dict[str, Any]], options: argparse.Namespace) -> list[str]:
    """The heading: the overall result, and how it was measured."""
    machine = describe_environment()["machine"]
    loads = [run["load_average"] for case in found for run in case["runs"]]
    deep = "-".join(str(size) for size in options.hidden)
    lines = [
        "# Training end to end: ours against FuxiCTR and torch-rechub",
        "",
        f"{machine['processor']}, {machine['physical_cores']} cores, {options.threads} threads for"
        f" each trainer, load average {min(loads):.1f} .. {max(loads):.1f}. DCNv2 (width {WIDTH},"
        f" {CROSS_LAYERS} cross layers, deep part {deep}) on {options.rows:,} impressions with"
        f" histories of {options.history}; {options.rounds} rounds of {options.epochs} epochs, the"
        " first epoch not counted, each round in another order of the rows; median (min .. max)."
        " The CPU time is the training process's.",
        "",
        "| tables | batch | ours / the faster peer | AUC, ours - the better peer |",
        "| --- " * 4 + "|",
    ]
    for each in (case["summary"] for case in found if case["summary"]):
        lines.append(
            f"| {each['tables']:g} x | {each['batch_size']} | {spread(each['ratios'], '.2f')}"
            f" | {spread(each['auc_leads'], '+.4f')} |"
        )
    return lines


if __name__ == "__main__":
    main()
