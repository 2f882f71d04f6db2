"""`ctrkit report`: what run folders hold, for the terminal, as Markdown or as JSON."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

from ctrkit.errors import UsageError
from ctrkit.files import write_atomically
from ctrkit.report.contents import contents_json, read_contents
from ctrkit.report.listing import list_report, listed_run
from ctrkit.report.markdown import markdown_document
from ctrkit.report.terminal import print_report
from ctrkit.report.views import report_view
from ctrkit.runs import known_runs


def report(
    runs: list[Path], *, as_json: bool, markdown: Path | None, list_runs: bool = False
) -> None:
    """Report on run folders, the newest one of this machine where none is given.

    Args:
        runs: run folders, reported one after the other.
        as_json: one JSON document `{"runs": [...]}` on stdout and nothing else there.
        markdown: a file to write the report to instead of the terminal.
        list_runs: a line for each run instead of reports.

    Raises:
        UsageError: no run at all, no run folder, an unknown schema version, or a Markdown file
            that cannot be written.
    """
    if markdown is not None:
        _check_markdown(markdown)
    paths = runs or list(itertools.islice(known_runs(), None if list_runs else 1))
    if not paths:
        raise UsageError("no runs yet; start with `ctrkit probe`, or name a run folder")
    if list_runs:
        listed = [listed_run(path) for path in paths]
        documents, views = [run.as_json() for run in listed], [list_report(listed)]
    else:
        contents = [read_contents(path) for path in paths]
        documents = [contents_json(run) for run in contents] if as_json else []
        views = [report_view(run) for run in contents]
    if markdown is not None:
        _write_markdown(markdown, markdown_document(views))
    if as_json:
        text = json.dumps({"runs": documents}, indent=2, ensure_ascii=True, allow_nan=False)
        sys.stdout.write(text + "\n")
    elif markdown is None:
        print_report(views)


def _check_markdown(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"--markdown {path}: is a folder; name a file")
    if not path.parent.is_dir():
        raise UsageError(f"--markdown {path}: there is no folder {path.parent}; make it first")


def _write_markdown(path: Path, text: str) -> None:
    try:
        write_atomically(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(f"--markdown {path}: cannot be written: {error.strerror}") from None
    print(f"wrote {path}", file=sys.stderr)
