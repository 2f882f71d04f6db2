"""Compares loaders: ours, torch's, those of CTR libraries, and the machine's limit.

All are asked for shuffled batches in turn, round after round, in one process; a ratio is taken
within a round, so that a machine that slows down slows both. What is started and made ahead before
a turn does not count, nor does the restart between epochs. Peers that are not installed are left
out and named (`pip install "ctrkit[bench]"`).

    python bench/loaders.py --seconds 0.5          (quick)
    python bench/loaders.py --scale-rows 1000000,26000000 --step-windows 6
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import loader_peers as peers
import numpy as np
import torch
from loader_peers import Contender, Machine
from loader_scale import beside_the_step, scale, warm
from loader_turns import Compared, compare

from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.ctr.data.default import default_store
from ctrkit.ctr.data.store import Store

# ---- the tables ----------------------------------------------------------------------------------

PEERS = ("fuxictr", "deepctr-torch", "torch-rechub", "torchdata", "spdl", "datasets")


def spread(values: Sequence[float], digits: int = 2) -> str:
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} .. {max(values):.{digits}f})"


def compared_table(found: Compared, chosen: Sequence[Contender]) -> list[str]:
    limit, ours = peers.limit(1).name, peers.OUR_THREADS[0]
    lines = [
        f"## Batches of {found.batch_size}", "",
        f"| loader | bytes a row | thousand rows/s | of the limit | bytes of the limit's |"
        f" `{ours}` is faster by |",
        "| --- " * 6 + "|",
    ]  # fmt: skip
    for contender in chosen:
        name = contender.name
        of_limit = found.ratio(name, limit)
        share = contender.row_bytes / peers.ROW_BYTES
        faster = found.ratio(ours, name)
        lines.append(
            f"| {name} | {contender.row_bytes} | {found.rate(name) / 1000:,.1f} |"
            f" {of_limit[0]:.2%} ({of_limit[1]:.2%} .. {of_limit[2]:.2%}) |"
            f" {of_limit[0] * share:.2%} |"
            f" {faster[0]:.2f} x ({faster[1]:.2f} .. {faster[2]:.2f}) |"
        )
    return [*lines, "", *targets(found, chosen), ""]


def targets(found: Compared, chosen: Sequence[Contender]) -> list[str]:
    """The questions of the comparison, answered in words."""

    def line(what: str, name: str, to: str | None) -> list[str]:
        if to is None or name not in found.rates or to not in found.rates:
            return []
        middle, least, most = found.ratio(name, to)
        return [f"- {what} ({to}): {middle:.2f} ({least:.2f} .. {most:.2f})"]

    ours = peers.OUR_THREADS[0]
    ctr = found.best([c for c in chosen if c.group == "ctr"])
    stock = found.best([c for c in chosen if c.group == "stock"], "stock, a tensor per field")
    return [
        *(
            item
            for name, to in peers.LIMITS.items()
            for item in line(f"`{name}` to its limit", name, to)
        ),
        *line(f"`{ours}` to the fastest loader of a CTR library", ours, ctr),
        *line(f"`{ours}` to the stock DataLoader at its best", ours, stock),
    ]


def scale_table(found: Sequence[dict[str, Any]], batch_size: int) -> list[str]:
    lines = [
        f"## Stores of growing size, batches of {batch_size}, page cache warm", "",
        "| rows | files MB | thousand rows/s | to the smallest | of the limit | packed part of its"
        " limit | memory above, with all buffers, MB |",
        "| --- " * 7 + "|",
    ]  # fmt: skip
    for row in found:
        lines.append(
            f"| {row['rows']:,} | {row['store_bytes'] / 1e6:.0f} |"
            f" {statistics.median(row['rows_per_s']) / 1000:.0f} | {spread(row['of_smallest'])} |"
            f" {spread(row['of_limit'])} | {spread(row['packed_of_limit'])} |"
            f" {row['anonymous_bytes'] / 1e6:.0f} |"
        )
    return [*lines, ""]


def step_lines(found: dict[str, Any]) -> list[str]:
    return [
        "## Beside the step", "",
        f"Phase 3, batches of {found['batch_size']}, {found['threads']} threads, CPU:"
        f" {len(found['ratios'])} windows of {found['steps']} steps each. A step with `thread`"
        f" takes {spread(found['ratios'], 3)} of one on cached batches.", "",
    ]  # fmt: skip


@dataclass(kw_only=True)
class Results:
    """All results."""

    settings: dict[str, Any]
    environment: dict[str, Any]
    load_before: tuple[float, ...]
    left_out: list[str]
    peers: dict[str, str]
    compared: list[Compared] = field(default_factory=list)
    scale: list[dict[str, Any]] = field(default_factory=list)
    step: dict[str, Any] | None = None


def text_of(results: Results, chosen: Sequence[Contender]) -> str:
    machine, settings = results.environment["machine"], results.settings
    lines = [
        "# Loaders", "",
        f"{machine['system']}, {machine['processor']}, {machine['physical_cores']} cores,"
        f" {machine['memory_bytes'] / 2**30:.0f} GiB.",
        f"Peers: {', '.join(f'{k} {v}' for k, v in results.peers.items()) or 'none'}.", "",
        f"{settings['rounds']} rounds, {settings['seconds']} s a turn; median, least and most of"
        f" the ratio within a round. Load of the machine before: {results.load_before[0]:.1f}.",
        "Ours load the default store (histories from the CSR); the others a table of"
        f" {settings['rows']:,} rows.", "",
    ]  # fmt: skip
    if results.left_out:
        lines += [f"Left out, not installed: {', '.join(results.left_out)}.", ""]
    for found in results.compared:
        lines += compared_table(found, chosen)
    if results.scale:
        lines += scale_table(results.scale, settings["scale_batch_size"])
    if results.step:
        lines += step_lines(results.step)
    return "\n".join(lines)


def peer_versions() -> dict[str, str]:
    found = {}
    for name in PEERS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=numbers, default=[256, 2048])
    parser.add_argument("--rows", type=int, default=200_000, help="of the peers' table")
    parser.add_argument("--only", default="", help="contenders whose name has this in it")
    parser.add_argument("--scale-rows", type=numbers, default=[], help="sizes of large stores")
    parser.add_argument("--scale-batch-size", type=int, default=2048)
    parser.add_argument("--step-windows", type=int, default=0, help="of the Phase 3 step")
    parser.add_argument("--steps", type=int, default=8, help="of a window")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    everyone = peers.contenders()
    here = [c for c in everyone if c.is_here()]
    always = {*peers.LIMITS.values(), peers.OUR_THREADS[0]}
    chosen = [c for c in here if options.only in c.name or c.name in always]
    settings = {key: value for key, value in vars(options).items() if key != "out"}
    results = Results(
        settings=settings,
        environment=describe_environment(),
        load_before=os.getloadavg(),
        left_out=[c.name for c in everyone if not c.is_here()],
        peers=peer_versions(),
    )
    with tempfile.TemporaryDirectory(prefix="ctrkit-loaders-") as folder:
        table = np.ones((-(-peers.LIMIT_BYTES // peers.ROW_BYTES), peers.ROW_BYTES), np.uint8)
        store = Store.open(default_store())
        warm(store)
        machine = Machine(peers.make_rows(options.rows), store, table, Path(folder))
        for batch_size in options.batch_sizes:
            found = compare(machine, chosen, batch_size, options.rounds, options.seconds)
            results.compared.append(found)
            print("\n".join(compared_table(found, chosen)), flush=True)
        if options.scale_rows:
            results.scale = scale(machine, options.scale_rows, options.scale_batch_size,
                                  options.rounds, options.seconds)  # fmt: skip
            print("\n".join(scale_table(results.scale, options.scale_batch_size)), flush=True)
        if options.step_windows:
            del machine, table
            results.step = beside_the_step(store, options.step_windows, options.steps)
            print("\n".join(step_lines(results.step)), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write_json(options.out / "loaders.json", results)
    write_atomically(options.out / "loaders.md", text_of(results, chosen).encode())


if __name__ == "__main__":
    main()
