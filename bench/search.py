"""Measures regret and cost of the search: on simulated machines, and on exhaustive real grids.

Simulated: machines of two forms with held-out seeds (`search_machine.py`). The budget is 15 % of
what it costs to launch every cell once; the regret is the true time of the whole run of what is
recommended over that of the best cell. The null test has a matrix of two cells that are the same.

Real (`--real`): every cell of three grids is launched; then a search of its
own picks one, and both its pick and the exhaustive best are launched again, in turn: the regret is
the ratio of these fresh launches. Each probe's answer is kept in `--work`, so that the same
command continues where it was ended; the table is written after each grid, and `--summary` prints
it from what there is. With `--seeds 0` the simulated results of before stay.

    python bench/search.py --seeds 150
    python bench/search.py --seeds 0 --real --budget 45 --work ~/search
    python bench/search.py --summary
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from search_machine import FORMS, Machine

from ctrkit.core.environment import describe_environment
from ctrkit.core.errors import CtrkitError
from ctrkit.core.files import read_json, write_atomically, write_json
from ctrkit.probe.candidates import candidates_of, compare
from ctrkit.probe.matrix import MatrixPlan
from ctrkit.probe.recommend import recommend
from ctrkit.probe.search import run_search
from ctrkit.probe.windows import Costs, full_windows

SHARE = 0.15
#: Seconds of a launch of the exhaustive search beside its start-up.
_EXHAUSTIVE_S = 12.0
_LONGEST_S = 3600.0  # of a real probe
Row = dict[str, Any]


def exhaustive_s(machine: Machine, plan: MatrixPlan) -> float:
    """Seconds that one launch of every cell costs, with windows of the usual size."""
    total_s = 0.0
    for cell in plan.cells:
        costs = Costs(
            launch_s=machine.launch_s, step_s=machine.step_s[cell.device],
            workers_s=machine.restart_s(cell), validation_batch_s=machine.step_s[cell.device] / 3,
            checkpoint_s=0.2,
        )  # fmt: skip
        total_s += full_windows(cell, costs, machine.launch_s + _EXHAUSTIVE_S)[1]
    return total_s


def search_once(form: str, seed: int) -> Row:
    """Search one machine; returns the cost, and how far the answer is from the best cell."""
    machine = Machine(form, seed)
    plan, inspection = machine.matrix(), machine.inspection()
    every_s = exhaustive_s(machine, plan)
    began_s = time.process_time()
    result = run_search(
        plan, inspection, launch=machine.launch, clock=machine.clock,
        budget_s=SHARE * every_s, cores=machine.cores,
    )  # fmt: skip
    own_s = time.process_time() - began_s
    truth = {cell: machine.truth_s(cell) for cell in plan.cells}
    row: Row = {
        "form": form, "seed": seed, "cells": len(plan.cells), "launches": machine.launches,
        "share": machine.now_s / every_s, "own_s": own_s,
    }  # fmt: skip
    try:
        recommendation = recommend(result, inspection)
    except CtrkitError as error:
        return {**row, "regret": None, "why": str(error)}
    best = min(truth, key=lambda cell: truth[cell])
    chosen_s = truth[recommendation.cell]
    low_s, high_s = recommendation.projected_total_s_low, recommendation.projected_total_s_high
    return {
        **row, "regret": chosen_s / truth[best] - 1, "best": best.cell_id,
        "chosen": recommendation.cell.cell_id, "flags": list(recommendation.flags),
        "error": (recommendation.projected_total_s or 0.0) / chosen_s - 1,
        "held": (low_s or 0.0) <= chosen_s <= (high_s or 0.0),
    }  # fmt: skip


def null_once(form: str, seed: int) -> bool | None:
    """Whether two equal cells are called different; None if only one of them was run."""
    machine = Machine(form, seed)
    plan = machine.matrix()
    one = plan.cells[seed % len(plan.cells)]
    twins = (replace(one, threads=1), replace(one, threads=2))  # the machine ignores threads
    result = run_search(
        MatrixPlan(cells=twins), machine.inspection(), launch=machine.launch, clock=machine.clock,
        budget_s=60.0 + 10 * (machine.launch_s + machine.restart_s(one)), cores=machine.cores,
    )  # fmt: skip
    found = candidates_of(result.trials, machine.inspection())
    return compare(*found) == "different" if len(found) == 2 else None


def simulated(form: str, seeds: range) -> Row:
    """Run searches and null tests of one form over many seeds."""
    rows = [search_once(form, seed) for seed in seeds]
    nulls = [null_once(form, seed) for seed in seeds]
    return {"form": form, "searches": rows, "null": [n for n in nulls if n is not None]}


def summary(form: str, rows: Sequence[Row], null: Sequence[bool]) -> Row:
    """The summary of a form; a search without an answer counts as a regret of 100 %."""
    regrets = sorted(1.0 if row["regret"] is None else row["regret"] for row in rows)
    shares, known = [row["share"] for row in rows], [r for r in rows if r["regret"] is not None]
    plain = [r for r in known if not set(r["flags"]) - {"provisional"}]
    return {
        "form": form, "searches": len(rows), "answered": len(known),
        "cells": statistics.median(r["cells"] for r in rows),
        "launches": statistics.median(r["launches"] for r in rows),
        "share_mean": statistics.fmean(shares), "share_worst": max(shares),
        "regret_mean": statistics.fmean(regrets),
        "regret_90": regrets[min(len(regrets) - 1, int(0.9 * len(regrets)))],
        "regret_worst": regrets[-1],
        "optimal": sum(r < 0.005 for r in regrets) / len(regrets),
        "error_median": statistics.median(abs(r["error"]) for r in known),
        "held": sum(r["held"] for r in plain) / len(plain) if plain else None,
        "own_s": statistics.median(r["own_s"] for r in rows),
        "null_runs": len(null), "null_different": sum(null) / len(null) if null else None,
    }  # fmt: skip


# real grids

GRIDS: dict[str, list[str]] = {
    "loaders": ["--phase", "phase1", "--set", "model=bst", "--batch-size", "256",
                "--loader", "rows,batches,thread,resident", "--workers", "0,1,2,4",
                "--start-method", "fork,spawn"],
    "prefetch": ["--phase", "phase1", "--batch-size", "128",
                 "--loader", "rows,batches,thread", "--workers", "0,1,2", "--prefetch", "2,8",
                 "--start-method", "fork,forkserver"],
    "threads": ["--phase", "phase1", "--set", "model=bst", "--batch-size", "512",
                "--loader", "batches,thread,resident", "--workers", "0,1,2",
                "--start-method", "spawn", "--threads", "1,2"],
}  # fmt: skip
#: The options that choose a cell.
_OF_A_CELL = ("--loader", "--workers", "--start-method", "--prefetch", "--threads")


def probe(arguments: Sequence[str], folder: Path) -> Row:
    """Run `ctrkit probe --json` with these options; returns its output and its seconds.

    An earlier answer to the same options is returned as it was kept; errors are not kept.
    """
    kept = folder.with_suffix(".json")
    if kept.is_file():
        answer: Row = read_json(kept)
        if answer["arguments"] == list(arguments):
            return answer
    shutil.rmtree(folder, ignore_errors=True)  # of a probe that was ended
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "ctrkit", "probe", *arguments, "--json", "--quiet",
         "--out", str(folder)],
        capture_output=True, text=True, check=False, timeout=_LONGEST_S,
    )  # fmt: skip
    found: Row = json.loads(done.stdout) if done.stdout.strip() else {"error": done.stderr[-500:]}
    found |= {"took_s": time.monotonic() - began_s, "arguments": list(arguments)}
    if "error" not in found:
        write_json(kept, found)
    return found


def cell_options(cell: Row) -> list[str]:
    """The options that make a matrix of just this cell."""
    options = ["--device", cell["device"], "--workers", str(cell["workers"])]
    options += ["--threads", str(cell["threads"])]
    if cell["loader"] != "custom":
        options += ["--loader", cell["loader"]]
    if cell["workers"]:
        options += ["--start-method", cell["start_method"], "--prefetch", str(cell["prefetch"])]
    return options


def fresh(grid: Sequence[str], cells: Sequence[Row], launches: int, folder: Path) -> list[float]:
    """Projected seconds of the whole run of two cells, from fresh launches of both in turn."""
    totals: list[list[float]] = [[] for _ in cells]
    pairs = zip(grid[::2], grid[1::2], strict=True)
    kept = [text for pair in pairs if pair[0] not in _OF_A_CELL for text in pair]
    for i in range(launches * len(cells)):
        which = (0, 1, 1, 0)[i % 4] if len(cells) == 2 else 0
        told = probe([*kept, *cell_options(cells[which]), "--thorough", "--budget", "5s"],
                     folder / f"fresh-{i}")  # fmt: skip
        rows = [t for t in told.get("trials", []) if t["kind"] == "full" and t["verdict"] == "ok"]
        totals[which] += [t["projected_total_s"] for t in rows]
    return [statistics.fmean(t) if t else math.nan for t in totals]


def real_grid(name: str, every: float, budget: float, launches: int, folder: Path) -> Row:
    """Run one grid: every cell, then a search, then fresh launches of its pick and the best cell.

    The cost of every cell is that of its launch alone: the search's own order, its ceilings and
    what it launches twice are not counted. `every` are seconds for all of them.
    """
    grid = GRIDS[name]
    folder.mkdir(parents=True, exist_ok=True)
    everything = probe([*grid, "--thorough", "--budget", f"{every:g}s"], folder / "all")
    rows = [t for t in everything.get("trials", []) if t["kind"] == "full" and t["verdict"] == "ok"]
    if not rows:
        return {"grid": name, "regret": None, "why": everything.get("error", "no cell ran")}
    once = {t["cell_id"]: t["wall_s"] for t in reversed(rows)}  # the first launch of each
    best = min(rows, key=lambda row: float(row["projected_total_s"]))["cell"]
    searched = probe([*grid, "--budget", f"{budget:g}s"], folder / "search")
    row: Row = {
        "grid": name, "cells": len(once),
        "every_s": sum(once.values()), "search_s": searched["took_s"],
        "share": searched["took_s"] / sum(once.values()),
    }  # fmt: skip
    if "cell" not in searched:
        return {**row, "regret": None, "why": searched.get("error")}
    chosen = searched["cell"]
    row |= {"best": best, "chosen": chosen}
    if chosen == best:
        return {**row, "regret": 0.0}
    chosen_s, best_s = fresh(grid, [chosen, best], launches, folder)
    if not (chosen_s > 0 and best_s > 0):
        return {**row, "regret": None, "why": "a fresh launch measured nothing"}
    return {**row, "regret": max(0.0, chosen_s / best_s - 1), "ratio": chosen_s / best_s}


def table(forms: Sequence[Row], grids: Sequence[Row], first_seed: int) -> str:
    """The results of both parts as Markdown."""
    lines = ["# Regret and cost of the search", ""]
    if forms:
        lines += [
            f"Simulated machines, seeds from {first_seed} on; cost as a share of launching every"
            " cell once. Regret: the whole run of the recommended cell against the best one's.", "",
            "| form | searches | answered | cells | launches | cost mean | cost worst |"
            " regret mean | 90 % | worst | within 0.5 % | projection: median error |"
            " its interval held | same cells called different |",
            "| --- " * 14 + "|",
        ]  # fmt: skip
    for row in forms:
        held = "" if row["held"] is None else f"{row['held']:.1%}"
        null = "" if row["null_different"] is None else f"{row['null_different']:.1%}"
        lines.append(
            f"| {row['form']} | {row['searches']} | {row['answered']} | {row['cells']:.0f} |"
            f" {row['launches']:.0f} | {row['share_mean']:.1%} | {row['share_worst']:.1%} |"
            f" {row['regret_mean']:.2%} | {row['regret_90']:.2%} | {row['regret_worst']:.1%} |"
            f" {row['optimal']:.0%} | {row['error_median']:.1%} | {held} |"
            f" {null} of {row['null_runs']} |"
        )
    if grids:
        lines += [
            "", "Real grids on this machine; the regret is of fresh launches.", "",
            "| grid | cells | every cell s | search s | cost | regret |", "| --- " * 6 + "|",
        ]  # fmt: skip
    for row in grids:
        regret = row.get("why") if row["regret"] is None else f"{row['regret']:.1%}"
        if "cells" not in row:
            lines.append(f"| {row['grid']} | | | | | {regret} |")
            continue
        lines.append(
            f"| {row['grid']} | {row['cells']} | {row['every_s']:.0f} | {row['search_s']:.0f} |"
            f" {row['share']:.0%} | {regret} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=150, help="of each form; 0 for none")
    parser.add_argument("--first-seed", type=int, default=2_000_000, help="held out by default")
    parser.add_argument("--real", action="store_true", help="run real grids too")
    parser.add_argument("--grids", default=",".join(GRIDS))
    parser.add_argument("--budget", type=float, default=45.0, help="of a real search, seconds")
    parser.add_argument("--every", type=float, default=240.0, help="seconds for every real cell")
    parser.add_argument("--launches", type=int, default=4, help="fresh ones of a real cell")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--work", type=Path, default=Path("build/search"), help="kept answers")
    parser.add_argument("--summary", action="store_true", help="only print what there is")
    options = parser.parse_args()
    before: Row = (
        read_json(options.out / "search.json") if (options.out / "search.json").is_file() else {}
    )
    if options.summary:
        print(
            table(before.get("forms", []), before.get("grids", []), first_seed_of(before)), end=""
        )
        return
    chunks = [
        (form, range(first, min(first + 10, options.first_seed + options.seeds)))
        for form in FORMS
        for first in range(options.first_seed, options.first_seed + options.seeds, 10)
    ]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        parts = pool.starmap(simulated, chunks, chunksize=1)
    forms = []
    for form in FORMS if parts else ():
        own = [part for part in parts if part["form"] == form]
        rows = [row for part in own for row in part["searches"]]
        forms.append(summary(form, rows, [n for part in own for n in part["null"]]))
    searches = [row for part in parts for row in part["searches"]]
    if not parts:
        forms, searches = before.get("forms", []), before.get("searches", [])
    grids: list[Row] = [] if options.real else before.get("grids", [])
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    if not parts and before:
        settings["first_seed"] = str(first_seed_of(before))

    def save() -> str:
        text = table(forms, grids, int(settings["first_seed"]))
        options.out.mkdir(parents=True, exist_ok=True)
        found = {
            "settings": settings, "forms": forms, "grids": grids, "searches": searches,
            "environment": describe_environment(),
        }  # fmt: skip
        write_json(options.out / "search.json", found)
        write_atomically(options.out / "search.md", text.encode())
        return text

    for name in options.grids.split(",") if options.real else ():
        key = f"{name}-{options.every:g}-{options.budget:g}-{options.launches}"
        work = options.work.expanduser() / key
        grids.append(real_grid(name, options.every, options.budget, options.launches, work))
        print(json.dumps(grids[-1]), file=sys.stderr)
        save()
    print(save(), end="")


def first_seed_of(found: Row) -> int:
    """The first seed of results that were kept."""
    return int(found.get("settings", {}).get("first_seed", 0))


if __name__ == "__main__":
    main()
