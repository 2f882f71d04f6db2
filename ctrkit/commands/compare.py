"""`ctrkit report --compare`: compares two runs, and fails a CI job on a regression."""

from __future__ import annotations

from pathlib import Path

from ctrkit.commands.report import check_outputs, deliver
from ctrkit.core.errors import CtrkitError, InconclusiveError, RegressionError, UsageError
from ctrkit.core.files import finite
from ctrkit.core.runs import RunFolder
from ctrkit.report.compare_view import compare_json, compare_view, gate_words, verdict_words
from ctrkit.report.comparison import Comparison
from ctrkit.report.comparison import compare as compare_contents
from ctrkit.report.run_reader import read_contents


def compare(
    base: Path,
    new: Path,
    *,
    threshold: str,
    other_runs: list[Path],
    list_runs: bool,
    as_json: bool,
    markdown: Path | None,
    html: Path | None,
) -> None:
    """Report on the new run against the base run.

    Args:
        base: run folder of a probe or a real run.
        new: run folder of the same command.
        threshold: the least slowdown that is a regression: `5%` or `0.05`.
        other_runs: run folders given as arguments, which is wrong use.
        list_runs: `--list` was given as well, which is wrong use.
        as_json: print only one JSON document `{"compare": {...}}` on stdout.
        markdown: a file for the report, instead of the terminal.
        html: likewise, as HTML.

    Raises:
        UsageError: bad options, an unreadable folder, or runs that cannot be compared.
        InconclusiveError: the report was made, but does not show whether there is a regression.
        RegressionError: the report was made, and shows a regression.
    """
    if other_runs or list_runs:
        beside = "--list" if list_runs else str(other_runs[0])
        raise UsageError(f"--compare BASE NEW takes two runs and nothing else; leave out {beside}")
    share = parse_threshold(threshold)
    check_outputs(markdown, html)
    for path in (base, new):
        RunFolder.open(path)  # a run with a damaged run.json can be reported on, but not compared
    comparison = compare_contents(read_contents(base), read_contents(new), share)
    error = _verdict_as_error(comparison)
    document = finite(compare_json(comparison, error.exit_code if error else 0))
    deliver(
        {"compare": document}, [compare_view(comparison)],
        as_json=as_json, markdown=markdown, html=html,
    )  # fmt: skip
    if error is not None:
        raise error


def parse_threshold(text: str) -> float:
    """The share meant by `5%`, `5 %` or `0.05`.

    Raises:
        UsageError: it is no share from 0 to below 1, or up to 1000 %.
    """
    number, percent, rest = text.strip().partition("%")
    try:
        value = float(number) / 100 if percent else float(number)
    except ValueError:
        value = -1.0
    # a plain 5 may mean 5 % or 500 %, so it is refused
    if rest or not 0 <= value <= (10 if percent else 0.999):
        raise UsageError(f"--threshold: '{text}' is not a share; write for example 5% or 0.05")
    return value


def _verdict_as_error(comparison: Comparison) -> CtrkitError | None:
    """The error for the exit code that the comparison's gate requires."""
    if comparison.gate == "passed":
        return None
    line = f"{gate_words(comparison)}; {verdict_words(comparison)}"
    is_regression = comparison.gate == "regression"
    return RegressionError(line) if is_regression else InconclusiveError(line)
