"""`ctrkit report`: shows run folders in the terminal, or as Markdown, HTML or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ctrkit.core.calibration import read_calibration
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_atomically
from ctrkit.core.runs import known_runs, newest_run
from ctrkit.report.blocks import Report
from ctrkit.report.calibration_view import (
    NOTHING_YET,
    calibration_json,
    calibration_report,
    summarize,
)
from ctrkit.report.contents import contents_json
from ctrkit.report.html import Page, check_html_extra, html_document, plain_page, run_pages
from ctrkit.report.listing import list_report, listed_run
from ctrkit.report.markdown import markdown_document
from ctrkit.report.run_reader import read_contents
from ctrkit.report.status import judgement_json, status_update
from ctrkit.report.terminal import print_report
from ctrkit.report.views import report_view


def report(
    runs: list[Path],
    *,
    as_json: bool,
    markdown: Path | None,
    html: Path | None = None,
    list_runs: bool = False,
    with_output: bool = False,
) -> None:
    """Report on run folders; without any, on the newest of the working folder or this machine.

    Args:
        runs: run folders, reported one after the other.
        as_json: print only one JSON document `{"runs": [...]}` on stdout.
        markdown: a file for the report, instead of the terminal.
        html: likewise, as one self-contained HTML file.
        list_runs: a line for each run instead of reports.
        with_output: the HTML file includes the last output of training programs.

    Raises:
        UsageError: there is no run, a folder is no run folder or has an unknown schema version, a
            file cannot be written, or packages for HTML are missing.
    """
    if with_output and html is None:
        raise UsageError(
            "--with-output belongs to --html FILE: other reports never hold what a program printed"
        )
    check_outputs(markdown, html)
    paths = runs or (list(known_runs()) if list_runs else _newest())
    if not paths:
        raise UsageError("no runs yet; start with `ctrkit probe`, or name a run folder")
    if list_runs:
        listed = [listed_run(path) for path in paths]
        deliver(
            {"runs": [run.as_json() for run in listed]}, [list_report(listed)],
            as_json=as_json, markdown=markdown, html=html,
        )  # fmt: skip
        return
    contents = [read_contents(path) for path in paths]
    views = [report_view(run) for run in contents]
    as_values = [contents_json(run) | judgement_json(run) for run in contents] if as_json else []
    deliver(
        {"runs": as_values}, views,
        as_json=as_json, markdown=markdown, html=html,
        to_paste=[status_update(view, run) for view, run in zip(views, contents, strict=True)],
        pages=lambda: run_pages(contents, with_output=with_output),
    )  # fmt: skip


def _newest() -> list[Path]:
    newest = newest_run(Path.cwd())
    return [newest] if newest is not None else []


def report_calibration(
    *, other: bool, as_json: bool, markdown: Path | None, html: Path | None
) -> None:
    """Report how right projections have been on this machine.

    Args:
        other: whether other reports were requested, too.
        as_json: print only one JSON document `{"calibration": {...}}` on stdout.
        markdown: a file for the report, instead of the terminal.
        html: likewise, as one self-contained HTML file.

    Raises:
        UsageError: other reports were requested, or the calibration file cannot be read.
    """
    if other:
        raise UsageError("--calibration is over all runs: leave out run folders, --compare, --list")
    check_outputs(markdown, html)
    rows, machine = read_calibration(), machine_fingerprint()
    summary = summarize(rows, machine)
    view = calibration_report(rows, summary, machine)
    if not (rows or as_json or markdown or html):
        print(NOTHING_YET)
        return
    document = {"calibration": calibration_json(rows, summary)}
    deliver(document, [view], as_json=as_json, markdown=markdown, html=html)


def check_outputs(markdown: Path | None, html: Path | None) -> None:
    """Check, before anything is read, that the requested files can be written.

    Raises:
        UsageError: a file cannot be written, or packages for HTML are missing.
    """
    for option, file in (("--markdown", markdown), ("--html", html)):
        if file is not None:
            _check_file(option, file)
    if html is not None:
        check_html_extra()


def deliver(
    document: dict[str, Any],
    views: Sequence[Report],
    *,
    as_json: bool,
    markdown: Path | None,
    html: Path | None,
    to_paste: Sequence[Report] | None = None,
    pages: Callable[[], list[Page]] | None = None,
) -> None:
    """Write reports to the requested places; to the terminal if there are none.

    Args:
        document: the JSON document that `--json` prints.
        views: the reports for people.
        as_json: print the document.
        markdown: a file for the reports as Markdown.
        html: a file for them as HTML.
        to_paste: the reports for Markdown, if they contain more.
        pages: makes the HTML pages, if they contain more.
    """
    if markdown is not None:
        _write_file("--markdown", markdown, markdown_document(to_paste or views))
    if html is not None:
        made = pages() if pages is not None else [plain_page(view) for view in views]
        _write_file("--html", html, html_document(made))
    if as_json:
        text = json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)
        sys.stdout.write(text + "\n")
    elif markdown is None and html is None:
        print_report(views)


def _check_file(option: str, path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}; make it first")


def _write_file(option: str, path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {error.strerror}") from None
    print(f"wrote {path}", file=sys.stderr)
