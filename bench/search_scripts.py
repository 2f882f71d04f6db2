"""Measures regret of short searches for scripts: on the simulated machines of `search_machine.py`.

A script has one loader and starts with some number of workers of its own. It is launched as written
first, and the search has what is left of the budget: a few launches, with ceilings only where the
budget has room for them. The regret is the true time of the whole run of what is recommended over
that of the best cell.

    python bench/search_scripts.py --seeds 60 --budgets 45,90
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Sequence
from typing import Any

from search_machine import FORMS, Machine

from ctrkit.core.config import WindowPlan
from ctrkit.core.errors import CtrkitError
from ctrkit.probe.matrix import build_matrix
from ctrkit.probe.recommend import recommend
from ctrkit.probe.search import run_search
from ctrkit.probe.trials import Trial, TrialRequest

#: Workers of scripts as written, from which each is drawn.
WRITTEN = (0, 0, 2, 2, 4)
Row = dict[str, Any]


def search_once(form: str, seed: int, budget_s: float) -> Row:
    """Search for a script on one machine; a search without an answer has a regret of 100 %."""
    draw, machine = random.Random(seed), Machine(form, seed)
    machine.loaders, machine.devices = ["rows"], machine.devices[-1:]
    machine.launch_s = draw.uniform(4.0, 10.0)  # imports and a device
    machine.start_s = {"fork": 0.02 * machine.launch_s}
    written = draw.choice(WRITTEN)
    device = machine.devices[0]
    axes: dict[str, list[Any]] = {
        "device": [device], "start_method": ["fork"], "persistent": [False, True],
        "prefetch": [2, 4] if device == "cuda" else [2],
        "workers": sorted({0, 2, written, *(w for w in (4, 8, 16) if w <= machine.cores)}),
    }  # fmt: skip
    inspection = machine.inspection()
    plan = build_matrix(inspection, axes, cores=machine.cores, system="Linux")
    first = next(
        cell for cell in plan.cells
        if cell.workers == written and not cell.persistent and cell.prefetch in (None, 2)
    )  # fmt: skip
    request = TrialRequest(kind="full", cell=first, windows=WindowPlan(min_steps=20, window_s=2.0))
    known = Trial(request=request, result=machine.launch(request, math.inf), launch=1)
    result = run_search(
        plan, inspection, launch=machine.launch, clock=machine.clock,
        budget_s=budget_s - machine.now_s, cores=machine.cores, known=[known],
    )  # fmt: skip
    row: Row = {"written": written, "cells": len(plan.cells), "launches": machine.launches}
    try:
        chosen = recommend(result, inspection).cell
    except CtrkitError:
        return {**row, "regret": 1.0}
    best_s = min(map(machine.truth_s, plan.cells))
    return {**row, "regret": machine.truth_s(chosen) / best_s - 1}


def line(words: str, rows: Sequence[Row]) -> str:
    """A row of the table."""
    regrets = sorted(row["regret"] for row in rows)
    return (
        f"| {words} | {len(rows)} | {statistics.fmean(r['launches'] for r in rows):.1f} |"
        f" {statistics.fmean(regrets):.1%} | {regrets[int(0.9 * len(regrets))]:.1%} |"
        f" {regrets[-1]:.0%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=60, help="of each form and budget")
    parser.add_argument("--first-seed", type=int, default=6_000_000)
    parser.add_argument("--budgets", default="45,90", help="seconds, the first launch included")
    options = parser.parse_args()
    print("| script | searches | launches | regret mean | 90 % | worst |")
    print("| --- " * 6 + "|")
    for budget in options.budgets.split(","):
        for form in FORMS:
            rows = [
                search_once(form, seed, float(budget))
                for seed in range(options.first_seed, options.first_seed + options.seeds)
            ]
            for written in sorted({row["written"] for row in rows}):
                own = [row for row in rows if row["written"] == written]
                print(line(f"{budget} s, {form}, {written} workers as written", own))
            print(line(f"{budget} s, {form}, all", rows))


if __name__ == "__main__":
    main()
