"""Runs every scenario of the corpus with `ctrkit probe`: verdict, time, culprit, leftovers.

Beside it, what stock `DataLoader(timeout=5)` does with the same loaders, and loadtune with three.
Prints a table and writes it to results/. Exit code 1 if anything was not as it should be.

    python bench/hangs.py --quick --only hang_after_batches,healthy
    python bench/hangs.py --jobs 4 --repeats 50
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from hang_check import SeenProbe, probe_scenario
from hang_corpus import START_METHODS, WORKERS, Scenario, load_corpus, unmet
from hang_left import STOP
from hang_peers import LOADTUNE_SCENARIOS, SeenPeer, install_loadtune, run_loadtune, run_stock
from hang_tables import as_document, as_markdown, print_tables

from ctrkit.core.environment import usable_cpus
from ctrkit.core.files import write_atomically, write_json

Result = TypeVar("Result")
QUICK_WORKERS, QUICK_METHODS = (0, 2), ("fork", "spawn")


def main() -> int:
    options = _options()
    scenarios, skipped = _chosen(options.only)
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ctrkit-hangs-") as temporary:
        folder = Path(temporary)
        probes = _probe_all(scenarios, options, folder)
        peers = [] if options.no_peers else _run_peers(scenarios, options.jobs, folder)
    print_tables(scenarios, probes, peers, skipped)
    document = as_document(scenarios, probes, peers, skipped) | {
        "argv": sys.argv[1:],
        "wall_s": time.monotonic() - began_s,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, document)
    table = as_markdown(document, scenarios, probes, peers, skipped)
    write_atomically(options.out.with_suffix(".md"), table.encode())
    print(document["summary"])
    return 0 if document["fine"] else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--jobs", type=int, default=min(4, usable_cpus()),
        help="scenarios at a time: hangs burn nothing, but their starts do",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=50, help="trials of each control")
    parser.add_argument("--only", default="", help="NAME,... of scenarios")
    parser.add_argument(
        "--quick", action="store_true", help="0 and 2 workers, fork and spawn, once"
    )
    parser.add_argument("--no-peers", action="store_true", help="ctrkit alone")
    parser.add_argument("--stall-timeout", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--out", type=Path, default=Path("results/hangs.json"))
    return parser.parse_args()


def _chosen(only: str) -> tuple[list[Scenario], dict[str, str]]:
    """The scenarios to run, and those that cannot be run here with the reason."""
    corpus = load_corpus()
    names = [name for name in only.split(",") if name]
    if unknown := set(names) - {scenario.name for scenario in corpus}:
        raise SystemExit(f"--only: no such scenario: {', '.join(sorted(unknown))}")
    wanted = [scenario for scenario in corpus if not names or scenario.name in names]
    skipped = {s.name: reason for s in wanted if (reason := unmet(s)) is not None}
    return [scenario for scenario in wanted if scenario.name not in skipped], skipped


def _probe_all(
    scenarios: list[Scenario],
    options: argparse.Namespace,
    folder: Path,
) -> list[SeenProbe]:
    """Probe each scenario once and controls repeatedly; those that burn CPU run alone."""
    repeats = 1 if options.quick else options.repeats
    workers = QUICK_WORKERS if options.quick else WORKERS
    methods = QUICK_METHODS if options.quick else START_METHODS

    def probe(scenario: Scenario) -> list[SeenProbe]:
        probes: list[SeenProbe] = []
        while not probes or (scenario.control and 0 < _trials(probes) < repeats):
            place = Path(tempfile.mkdtemp(dir=folder))
            probes.append(
                probe_scenario(
                    scenario, workers, methods, place,
                    stall_timeout_s=options.stall_timeout,
                )
            )  # fmt: skip
            _tell(probes[-1])
            if not probes[-1].trials or STOP.is_set():
                break
        return probes

    return [seen for probes in _in_turn(probe, scenarios, options.jobs) for seen in probes]


def _trials(probes: Iterable[SeenProbe]) -> int:
    return sum(len(probe.trials) for probe in probes)


def _in_turn(
    run: Callable[[Scenario], Result], scenarios: list[Scenario], jobs: int
) -> list[Result]:
    """The results in the scenarios' order: several at a time, those that burn CPU one by one."""
    quiet = [scenario for scenario in scenarios if not scenario.burns]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            results = dict(zip((s.name for s in quiet), pool.map(run, quiet), strict=True))
        except BaseException:  # Ctrl-C: end what runs, and do not begin what waits
            STOP.set()
            pool.shutdown(cancel_futures=True)
            raise
    results |= {scenario.name: run(scenario) for scenario in scenarios if scenario.burns}
    return [results[scenario.name] for scenario in scenarios]


def _run_peers(scenarios: list[Scenario], jobs: int, folder: Path) -> list[SeenPeer]:
    def stock(scenario: Scenario) -> SeenPeer:
        return run_stock(scenario, Path(tempfile.mkdtemp(dir=folder)))

    peers = _in_turn(stock, scenarios, jobs)
    wanted = [scenario for scenario in scenarios if scenario.name in LOADTUNE_SCENARIOS]
    if wanted:
        try:
            installed = install_loadtune(folder / "loadtune")
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return peers
        for scenario in wanted:
            peers.append(run_loadtune(scenario, installed, Path(tempfile.mkdtemp(dir=folder))))
    return peers


def _tell(probe: SeenProbe) -> None:
    """Print a line on stderr as soon as a probe is over, with what was wrong."""
    print(
        f"{probe.scenario}: {len(probe.trials)} trials in {probe.wall_s:.0f} s,"
        f" {'fine' if probe.fine else 'NOT FINE'}",
        file=sys.stderr,
        flush=True,
    )
    for problem in probe.problems:
        print(f"    {problem}", file=sys.stderr)
    for trial in probe.trials:
        if trial.problems:
            print(
                f"    {trial.workers} {trial.start_method or ''}: {'; '.join(trial.problems)}"
                f" [{trial.reason}]",
                file=sys.stderr,
            )


if __name__ == "__main__":
    sys.exit(main())
