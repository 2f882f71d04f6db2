"""The options of `ctrkit report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctrkit.core.errors import UsageError

Runs = Annotated[
    list[Path] | None,
    typer.Argument(metavar="RUN", help="Run folders. Default: the newest in the working folder, "
                   "or of this machine if it has none."),
]  # fmt: skip
Markdown = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the report to this file, as Markdown."),
]  # fmt: skip
Html = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write the report to this file, as one HTML page with charts."
    ),
]  # fmt: skip
Compare = Annotated[
    tuple[Path, Path] | None,
    typer.Option(metavar="BASE NEW", help="Compare two probes, or two training runs."),
]  # fmt: skip
Threshold = Annotated[
    str,
    typer.Option(
        metavar="SHARE",
        help="With --compare: fail if NEW is slower than BASE by more than this.",
    ),
]  # fmt: skip
ListRuns = Annotated[
    bool, typer.Option("--list", help="List all runs, the newest first.")
]  # fmt: skip
Calibration = Annotated[
    bool,
    typer.Option("--calibration", help="Show how right projections have been on this machine."),
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout.")
]  # fmt: skip
WithOutput = Annotated[
    bool,
    typer.Option(
        "--with-output",
        help="With --html: add the end of what failed programs printed. Without it the file is "
        "safer to share, as programs print tokens.",
    ),
]  # fmt: skip


def report(
    runs: Runs = None,
    markdown: Markdown = None,
    html: Html = None,
    with_output: WithOutput = False,
    compare: Compare = None,
    threshold: Threshold = "5%",
    list_runs: ListRuns = False,
    calibration: Calibration = False,
    as_json: Json = False,
) -> None:
    """Show what a probe found, or how a training run went.

    `--compare` says whether NEW is faster or slower than BASE, and how sure that is.

    Exit codes: 0 done, 2 bad input or runs that cannot be compared. With `--compare` also 5 if NEW
    is slower by more than the threshold, and 3 if that cannot be told.
    """
    if with_output and (calibration or compare is not None or list_runs):
        raise UsageError("--with-output belongs to the report of a run")
    if calibration:
        from ctrkit.commands.report import report_calibration

        report_calibration(
            other=bool(runs or compare or list_runs), as_json=as_json, markdown=markdown, html=html
        )
    elif compare is not None:
        from ctrkit.commands.compare import compare as run_compare

        run_compare(
            *compare, threshold=threshold, other_runs=runs or [], list_runs=list_runs,
            as_json=as_json, markdown=markdown, html=html,
        )  # fmt: skip
    else:
        from ctrkit.commands.report import report as run

        run(
            runs or [], as_json=as_json, markdown=markdown, html=html, list_runs=list_runs,
            with_output=with_output,
        )  # fmt: skip
