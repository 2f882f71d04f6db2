"""Checks that the right cause is named: delays one stage of a real loop at a time.

Each case is launched as a probe launches a trial, in a process of its own, and diagnosed by the
product's own functions. The injected share is not what was meant but what was measured: against the
same loop without the delay, launched just before. What counts: how often the stage is named where
its share is at least 65 %, and how often halves are called balanced.

    python bench/diagnosis.py --repeats 1
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrkit.core.child_files import load_measurement
from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell, ChildSpec, WindowPlan, WorkloadSpec, make_cell
from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.core.records import Finding
from ctrkit.measure.diagnosis import BALANCED, Ceilings, diagnose
from ctrkit.measure.projection import project
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import TimeLimits

WORKLOAD = WorkloadSpec(target=f"{Path(__file__).resolve().parent / 'delays.py'}:workload")
LEAST_SHARE = 0.65
BASE_S = {"fetch": 0.004, "collate": 0.002, "forward": 0.004, "backward": 0.006, "optimizer": 0.002}
MAKING, STEPPING = ("fetch", "collate"), ("forward", "backward", "optimizer")
LONG, SHORT = 20_000, 30


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loop with a delay in one stage, and the same loop without it."""

    expected: str
    workers: int
    delays: dict[str, Any]
    base: dict[str, Any] | None
    start_method: str = "fork"
    what: str = ""

    @property
    def cell(self) -> Cell:
        axes = {"start_method": self.start_method, "prefetch": 2} if self.workers else {}
        return make_cell(loader="custom", workers=self.workers, threads=1, batch_size=4, **axes)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The diagnosis of a case; `share` is the delay's share of an epoch, None for halves."""

    expected: str
    named: str
    share: float | None
    workers: int
    start_method: str | None
    what: str
    elasticity: float | None
    text: str
    others: list[str] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        return self.share is None or self.share >= LEAST_SHARE

    @property
    def right(self) -> bool:
        return self.named == self.expected


def injected(stage: str, workers: int, share: float, **more: Any) -> Case:
    """A case with a delay that makes up about this share of the epoch."""
    step_s = sum(BASE_S[s] for s in STEPPING)
    made_s = sum(BASE_S[s] for s in MAKING)
    base_s = step_s + made_s if workers == 0 else max(step_s, made_s / workers)
    whole_s = base_s / (1 - share)
    base: dict[str, Any] = {**BASE_S, "batches": LONG}
    delays = dict(base)
    if stage == "startup":
        base["batches"] = delays["batches"] = SHORT
        delays["startup"] = SHORT * (whole_s - base_s) + 0.5
    elif stage in MAKING and workers:
        delays[stage] += whole_s * workers - made_s
    else:
        delays[stage] += whole_s - base_s
    delays |= {key: value for key, value in more.items() if key == "burn"}
    return Case(
        expected=stage, workers=workers, delays=delays, base=base,
        start_method=more.get("start_method", "fork"),
        what="burns" if more.get("burn") else "sleeps",
    )  # fmt: skip


def fat(workers: int, megabytes: int, base_x: float = 1.0) -> Case:
    """A case whose batches send a payload through the pipe, in a loop `base_x` times as slow."""
    base = {**{stage: seconds * base_x for stage, seconds in BASE_S.items()}, "batches": LONG}
    delays = {**base, "payload_bytes": megabytes * 2**20}
    return Case(expected="ipc", workers=workers, delays=delays, base=base, what=f"{megabytes} MiB")


def halves(workers: int, one: str, other: str, seconds: float = 0.04) -> Case:
    """A case with half of the time in each of two stages; with workers, both sides are as slow."""
    delays = {one: seconds * (max(1, workers) if one in MAKING else 1), other: seconds}
    return Case(
        expected=BALANCED, workers=workers, delays={**delays, "batches": LONG}, base=None,
        what=f"{one} + {other}",
    )  # fmt: skip


def cases() -> Iterator[Case]:
    for share in (0.75, 0.85):
        for workers in (0, 1, 2):
            for stage in (*MAKING, *STEPPING, "startup"):
                yield injected(stage, workers, share)
    for workers, start_method in ((0, "fork"), (1, "fork"), (1, "spawn")):
        yield injected("fetch", workers, 0.75, burn=["fetch"], start_method=start_method)
        yield injected("optimizer", workers, 0.75, burn=["optimizer"], start_method=start_method)
    for workers in (1, 2):
        for megabytes, base_x in ((16, 1.0), (32, 2.0), (96, 1.0)):
            yield fat(workers, megabytes, base_x)
    yield halves(0, "fetch", "backward")
    yield halves(0, "collate", "optimizer")
    yield halves(0, "forward", "backward")
    yield halves(1, "fetch", "backward", 0.08)
    yield halves(2, "fetch", "backward", 0.08)
    yield halves(2, "forward", "optimizer")


def findings(case: Case, measured: Measurement) -> list[Finding]:
    return diagnose(case.cell, [measured], Ceilings(), projection=project([measured], None))


def _epoch_s(measured: Measurement) -> float:
    projection = project([measured], None)
    assert projection is not None
    return projection.epoch.mean


class Bench:
    """Launches cases, and for each case also its loop without the delay."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.launches = folder, 0

    def launch(self, case: Case, delays: dict[str, Any]) -> Measurement:
        self.launches += 1
        os.environ["DELAYS"] = json.dumps(delays)
        folder = self.folder / str(self.launches)
        outcome = run_child(
            ChildSpec(
                kind="full", folder=str(folder), workload=WORKLOAD, cell=case.cell,
                windows=WindowPlan(window_s=2.0, min_steps=12, max_steps=60, checkpoints=0),
            ),
            time_limits=TimeLimits(),
            evidence_folder=self.folder / f"evidence-{self.launches}",
        )  # fmt: skip
        measured = load_measurement(folder / "measurement.json")
        if measured is None or outcome.verdict != "ok":
            raise SystemExit(f"{case}: {outcome.verdict}: {outcome.reason}")
        return measured

    def run(self, case: Case) -> Result:
        """Launch the loop without and with the delay, and diagnose the one with it."""
        without = self.launch(case, case.base) if case.base is not None else None
        measured = self.launch(case, case.delays)
        share = 1 - _epoch_s(without) / _epoch_s(measured) if without is not None else None
        found = findings(case, measured)
        return Result(
            expected=case.expected, named=found[0].stage, share=share, workers=case.workers,
            start_method=case.cell.start_method, what=case.what, elasticity=found[0].share,
            text=found[0].text, others=[finding.text for finding in found[1:]],
        )  # fmt: skip


def summary(results: list[Result]) -> dict[str, Any]:
    single = [r for r in results if r.share is not None]
    counted = [r for r in single if r.counts]
    both = [r for r in results if r.share is None]
    return {
        "injected": len(single),
        "injected_counted": len(counted),
        "named_right": sum(r.right for r in counted),
        "named_right_share": sum(r.right for r in counted) / max(1, len(counted)),
        "halves": len(both),
        "called_balanced": sum(r.right for r in both),
    }


def markdown(results: list[Result], found: dict[str, Any]) -> str:
    lines = [
        "# Diagnosis: is the right cause named?",
        "",
        "`python bench/diagnosis.py`: a known delay in one stage of a real loop; its share is",
        "measured against the same loop without it, launched just before.",
        "",
        f"- a share of at least {LEAST_SHARE:.0%}: named right {found['named_right']} of "
        f"{found['injected_counted']} times ({found['named_right_share']:.0%})",
        f"- halves: called balanced {found['called_balanced']} of {found['halves']} times",
        "",
        "| injected into | how | workers | its share | named | elasticity |",
        "| --- | --- | ---: | ---: | --- | ---: |",
    ]
    for r in results:
        share = "half" if r.share is None else f"{r.share:.0%}"
        share += "" if r.counts else " (does not count)"
        named = r.named if r.right else f"**{r.named}**"
        workers = f"{r.workers} {r.start_method}" if r.workers else "0"
        elasticity = "" if r.elasticity is None else f"{r.elasticity:.2f}"
        lines.append(f"| {r.expected} | {r.what} | {workers} | {share} | {named} | {elasticity} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--only", default="", help="stages to inject into, with commas between")
    parser.add_argument("--out", type=Path, default=Path("results/diagnosis"))
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(Path(temporary))
        for _ in range(options.repeats):
            for case in cases():
                if only and case.expected not in only:
                    continue
                result = bench.run(case)
                results.append(result)
                share = "half" if result.share is None else f"{result.share:.0%}"
                mark = "  " if result.right else "! "
                print(
                    f"{mark}{case.expected:<10}{case.what:<22}w{case.workers} {share:>5} "
                    f"-> {result.named}: {result.text}",
                    flush=True,
                )
    found = summary(results)
    print(json.dumps(found, indent=2))
    write_json(
        options.out.with_suffix(".json"),
        {"summary": found, "results": results, "environment": describe_environment()},
    )
    write_atomically(options.out.with_suffix(".md"), markdown(results, found).encode())


if __name__ == "__main__":
    main()
