"""Ends a probe: saves and shows the recommendation, or the reason why there is none."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ctrkit.commands.probe_options import ProbeOptions
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import encode
from ctrkit.core.errors import (
    CtrkitError,
    InconclusiveError,
    InterruptedRunError,
    NoViableCellError,
    UsageError,
)
from ctrkit.core.files import finite, is_one_place
from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.core.records import Finding, Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.measure.steps import steps_measured
from ctrkit.probe.recommend import recommend
from ctrkit.probe.search import SearchResult
from ctrkit.report.run_reader import read_contents
from ctrkit.report.terminal import print_report
from ctrkit.report.views import report_view
from ctrkit.supervise.host_conditions import (
    unknowns,
)

Finish = Callable[[Recommendation, SearchResult], Recommendation]


def conclude_probe(
    run: RunFolder,
    inspection: Inspection,
    result: SearchResult,
    options: ProbeOptions,
    began_s: float,
    on_host: Sequence[Finding] = (),
    finish: Finish = lambda recommendation, _: recommendation,
    others: float | None = 0.0,
) -> Recommendation:
    """Recommend, or say why that is impossible; either way, the run folder says how it ended."""
    wall_s = time.monotonic() - began_s
    try:
        recommendation = recommend(
            result, inspection, deadline_s=options.deadline_s, host_findings=on_host,
            other_cores=others,
        )  # fmt: skip
    except UsageError as error:
        run.update(status="failed", status_reason=str(error), wall_s=wall_s)
        raise
    except (NoViableCellError, InconclusiveError) as error:
        if not result.interrupted:
            # a busy machine can explain a lack of time; but if trials failed, that is the reason
            failed = any(trial.failed for trial in result.trials)
            more = on_host[:1] if isinstance(error, InconclusiveError) and not failed else ()
            reason = "; ".join([str(error), *(f.text.partition(";")[0] for f in more)])
            run.update(status="done", status_reason=reason, wall_s=wall_s)
            raise type(error)(reason) from None
    else:
        launches = result.launches(recommendation.cell)
        steps = sum(steps_measured(launch) for launch in launches)
        signed = sign(recommendation, run, wall_s, inspection.launch_spread, steps)
        recommendation = finish(signed, result)
        run.save_recommendation(recommendation)
    if result.interrupted:
        run.update(status="interrupted", status_reason="stopped by the user", wall_s=wall_s)
        raise InterruptedRunError(f"interrupted; what was measured is in {run.path}")
    run.update(status="done", cell=recommendation.cell, wall_s=wall_s)
    return recommendation


def sign(
    recommendation: Recommendation,
    run: RunFolder,
    wall_s: float,
    spread: LaunchSpread | None,
    steps: int = 0,
) -> Recommendation:
    """The recommendation, with the probe's name and a note on what no probe can know.

    `steps`: how many steps of the recommended cell it measured.
    """
    found = list(recommendation.findings)
    if recommendation.projected_epoch_s is not None:
        found.append(
            unknowns(
                wall_s=wall_s,
                launches=recommendation.launches or 0,
                flags=recommendation.flags,
                epoch_s=recommendation.projected_epoch_s,
                spread=spread,
                steps=steps,
            )
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(
        recommendation, probe=run.path.name, origin=run.origin(), findings=found,
        projected_at=now, launch_spread=spread,
    )  # fmt: skip


def show_outcome(
    run: RunFolder, error: CtrkitError | None, *, as_json: bool, json_lines: bool = False
) -> None:
    """Print the report or the JSON document; bad input has no report.

    A closed terminal is a likely reason for an interrupted probe, and must not become another
    error.
    """
    with suppress(OSError) if isinstance(error, InterruptedRunError) else nullcontext():
        if json_lines:
            print_line(_document(run, None if error is None else str(error)))
        elif as_json:
            document = _document(run, None if error is None else str(error))
            json.dump(finite(document), sys.stdout, indent=2, allow_nan=False)
            print()
        elif not isinstance(error, UsageError):
            print_report([report_view(read_contents(run.path))])
            if isinstance(error, NoViableCellError | InconclusiveError):
                error.is_shown = is_one_place(sys.stdout, sys.stderr)


def _document(run: RunFolder, error: str | None) -> dict[str, Any]:
    """The JSON document: the recommendation's keys, `run`, `trials`, and `error` if any."""
    recommendation = run.recommendation()
    document: dict[str, Any] = {} if recommendation is None else dict(encode(recommendation))
    document |= {"run": str(run.path), "trials": [encode(record) for record in run.trials()]}
    if error is not None:
        document["error"] = error
    return document


def print_line(document: dict[str, Any]) -> None:
    """Print a JSON document as a line, at once."""
    print(json.dumps(finite(document), allow_nan=False), flush=True)
