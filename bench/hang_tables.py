"""Shows the results of the hang bench as a table in the terminal, in Markdown, and as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from hang_check import SeenProbe, SeenTrial
from hang_corpus import Scenario
from hang_peers import SeenPeer
from rich.console import Console
from rich.table import Table

from ctrkit.core.environment import describe_environment

COLUMNS = (
    "scenario", "verdicts", "right", "slowest (limit)", "named", "left", "stock timeout=5",
)  # fmt: skip


def as_document(
    scenarios: Sequence[Scenario],
    probes: Sequence[SeenProbe],
    peers: Sequence[SeenPeer],
    skipped: Mapping[str, str],
) -> dict[str, Any]:
    """All results, with a summary and whether everything is as it should be."""
    trials = [trial for probe in probes for trial in probe.trials]
    controls = {scenario.name for scenario in scenarios if scenario.control}
    alarms = [t for t in trials if t.scenario in controls and t.verdict != "ok"]
    failures = [t for t in trials if t.scenario not in controls]
    right = sum(t.verdict in t.expected for t in failures)
    silent = [t.silent_s - (t.limit_s - 5) for t in trials if t.silent_s is not None]
    wanted = [t.named for t in failures if t.verdict != "ok" and t.named is not None]
    summary = (
        f"{right} of {len(failures)} verdicts right, {len(alarms)} false alarms in"
        f" {len(trials) - len(failures)} trials of {len(controls)} controls, latest detection"
        f" {max(silent, default=0.0):+.1f} s from its budget, culprit named in {sum(wanted)} of"
        f" {len(wanted)}, {sum(p.left for p in probes)} processes and"
        f" {sum(len(p.orphans) for p in probes)} names left"
    )
    return {
        "summary": summary,
        "fine": all(probe.fine for probe in probes),
        "environment": describe_environment(),
        "skipped": dict(skipped),
        "probes": [dataclasses.asdict(probe) for probe in probes],
        "peers": [dataclasses.asdict(peer) for peer in peers],
    }


def print_tables(
    scenarios: Sequence[Scenario],
    probes: Sequence[SeenProbe],
    peers: Sequence[SeenPeer],
    skipped: Mapping[str, str],
) -> None:
    """Print the tables in the terminal."""
    console = Console()
    table = Table(*COLUMNS)
    for row in _rows(scenarios, probes, peers):
        table.add_row(*row)
    console.print(table)
    if tunes := _loadtune_rows(peers):
        console.print("loadtune 0.3.0, two workers:")
        for name, outcome in tunes:
            console.print(f"  {name}: {outcome}")
    for name, reason in skipped.items():
        console.print(f"skipped {name}: {reason}")


def as_markdown(
    document: Mapping[str, Any],
    scenarios: Sequence[Scenario],
    probes: Sequence[SeenProbe],
    peers: Sequence[SeenPeer],
    skipped: Mapping[str, str],
) -> str:
    """The tables as Markdown, with the machine that they were measured on."""
    machine = document["environment"]["machine"]
    versions = document["environment"]["versions"]
    lines = [
        "# Hangs, deaths and healthy loaders",
        "",
        f"`python bench/hangs.py {' '.join(document['argv'])}` on {machine['system']}"
        f" {machine['release']}, {machine['processor']}, {machine['logical_cores']} logical cores,"
        f" {machine['memory_bytes'] / 2**30:.0f} GiB; Python {versions['python']},"
        f" torch {versions.get('torch', '?')}. {document['wall_s'] / 60:.0f} min.",
        "",
        document["summary"] + ".",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
    ]
    for row in _rows(scenarios, probes, peers):
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |")
    lines += ["", _LEGEND]
    if tunes := _loadtune_rows(peers):
        lines += ["", "## loadtune 0.3.0, two workers, `--timeout 20`, ended after 60 s", ""]
        lines += [f"- {name}: {outcome}" for name, outcome in tunes]
    if skipped:
        lines += ["", "## Skipped", ""]
        lines += [f"- {name}: {reason}" for name, reason in skipped.items()]
    return "\n".join(lines) + "\n"


_LEGEND = (
    "Verdicts: how many trials came to each, over 0 to 2 workers and the start methods that the"
    " scenario is about. Right: trials with a right verdict. Slowest: the longest time from the"
    " last progress to the verdict of a hang, and what was allowed. Named: trials whose reason"
    " names the guilty process and, where it can be known, the line. Left: processes, shared-memory"
    " files and semaphores that were there afterwards. Stock: one failing cell in a plain script,"
    " ended after 30 s."
)


def _rows(
    scenarios: Sequence[Scenario], probes: Sequence[SeenProbe], peers: Sequence[SeenPeer]
) -> list[tuple[str, ...]]:
    stock = {peer.scenario: peer for peer in peers if peer.tool.startswith("stock")}
    rows: list[tuple[str, ...]] = []
    for scenario in sorted(scenarios, key=lambda s: (s.control, s.name)):
        mine = [probe for probe in probes if probe.scenario == scenario.name]
        trials = [trial for probe in mine for trial in probe.trials]
        counted = Counter(trial.verdict for trial in trials)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counted.items()))
        right = sum(trial.verdict in trial.expected for trial in trials)
        left = sum(probe.left + len(probe.orphans) for probe in mine)
        row = (
            scenario.title, verdicts, f"{right}/{len(trials)}", _slowest(trials),
            _named(scenario, trials), str(left), _in_words(stock.get(scenario.name)),
        )  # fmt: skip
        rows.append(row)
    return rows


def _slowest(trials: Sequence[SeenTrial]) -> str:
    silent = [trial for trial in trials if trial.silent_s is not None]
    if not silent:
        return "-"
    slowest = max(silent, key=lambda trial: trial.silent_s or 0.0)
    return f"{slowest.silent_s:.1f} s ({slowest.limit_s:g} s)"


def _named(scenario: Scenario, trials: Sequence[SeenTrial]) -> str:
    failed = [trial for trial in trials if trial.named is not None]
    if not failed or scenario.guilty is None:
        return "-"
    what = "line" if scenario.guilty_lines else "process"
    return f"{what}: {sum(bool(trial.named) for trial in failed)}/{len(failed)}"


def _in_words(peer: SeenPeer | None) -> str:
    if peer is None:
        return "-"
    cell = f"{peer.workers} {peer.start_method}" if peer.start_method else str(peer.workers)
    words = [f"{cell}: {peer.outcome[:120]} ({peer.wall_s:.0f} s)"]
    if peer.line is not None and not peer.outcome.startswith("completed"):
        words.append("names the line" if peer.line else "names no line")
    if peer.left:
        words.append(f"leaves {peer.left} processes")
    if peer.orphans:
        words.append(f"leaves {peer.orphans} files in /dev/shm")
    return "; ".join(words)


def _loadtune_rows(peers: Sequence[SeenPeer]) -> list[tuple[str, str]]:
    return [(p.scenario, _in_words(p)) for p in peers if p.tool.startswith("loadtune")]
