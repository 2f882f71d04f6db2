"""Chooses the charts of a report, and their headings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctrkit.core.errors import UsageError
from ctrkit.core.records import TrialRecord
from ctrkit.report.charts.scales import cell_labels
from ctrkit.report.contents import RunContents
from ctrkit.report.epoch_figures import shown_metrics
from ctrkit.report.incidents import has_moment
from ctrkit.report.ledger_view import HEADING
from ctrkit.report.matrix_view import cell_results, has_figures
from ctrkit.report.trial_steps import TrialSteps, read_steps

if TYPE_CHECKING:
    from ctrkit.report.charts.svg import Chart

_MOST_TIMELINES = 4
_STAMPS = "stamps.parquet"

Pictures = dict[str, list["Chart"]]
"""Charts by the heading of their section, in the order of the page."""


def probe_pictures(contents: RunContents, prefix: str) -> tuple[Pictures, list[str]]:
    """The charts of a probe, and a sentence for each missing input.

    `prefix` starts the ids in the SVGs.
    """
    from ctrkit.report.charts.matrix_chart import heat_map
    from ctrkit.report.charts.projection_chart import projection_chart
    from ctrkit.report.charts.steps_chart import stage_chart, step_chart
    from ctrkit.report.charts.timeline_chart import TIMELINE_NOTE, timeline_chart

    trials, best, info = contents.trials, contents.recommendation, contents.info
    epochs = info.planned_epochs or 0
    best_id = best.cell.cell_id if best else None
    found, missing = _trial_steps(contents)
    pictures: dict[str, list[Chart | None]] = {
        "Projection": [projection_chart(trials, best, epochs, prefix) if best else None],
        "Cells": [heat_map(trials, best, prefix), step_chart(trials, best_id, prefix)],
        "Where a step goes": [stage_chart(trials, prefix)],
        "Batch by batch": [
            timeline_chart(f"{prefix}-timeline{i}", label, one.steps, "" if i else TIMELINE_NOTE)
            for i, (label, one) in enumerate(zip(_labels(trials, found), found, strict=True))
        ],
    }
    return _drawn(pictures), missing


def train_pictures(contents: RunContents, prefix: str) -> tuple[Pictures, list[str]]:
    """The charts of a real run, and a sentence for each missing input."""
    from ctrkit.report.charts.epochs_chart import curves_chart, times_chart
    from ctrkit.report.charts.ledger_chart import ledger_chart

    info, epochs = contents.info, contents.epochs
    plugin = contents.plugin
    metrics = shown_metrics(plugin, epochs)
    marked = incident_epochs(contents.incidents)
    pictures: dict[str, list[Chart | None]] = {
        "Epochs": [curves_chart(epochs, metrics, plugin.known_epochs, marked, prefix)],
        "Actual against projected": [
            times_chart(epochs, info.projection, info.sizes, marked, prefix)
        ],
        HEADING: [ledger_chart(contents.ledger, contents.incidents, prefix)],
    }
    return _drawn(pictures), []


def incident_epochs(incidents: Sequence[dict[str, object]]) -> list[float]:
    """The epochs with incidents, if the incidents name them."""
    epochs = [incident.get("epoch") for incident in incidents if has_moment(incident)]
    numbers = {float(e) for e in epochs if isinstance(e, int | float) and not isinstance(e, bool)}
    return sorted(number for number in numbers if number > 0)


def _labels(trials: Sequence[TrialRecord], found: Sequence[TrialSteps]) -> list[str]:
    """`thread, no workers: trial 008`: which cell, and the number in the trial's name."""
    cells = {record.cell_id: record.cell for record in trials}
    names = cell_labels([cells[one.cell_id] for one in found])
    numbers = [one.trial.partition("-")[0] for one in found]
    return [f"{name}: trial {number}" for name, number in zip(names, numbers, strict=True)]


def _drawn(pictures: dict[str, list[Chart | None]]) -> Pictures:
    kept = {heading: [c for c in charts if c is not None] for heading, charts in pictures.items()}
    return {heading: charts for heading, charts in kept.items() if charts}


def _trial_steps(contents: RunContents) -> tuple[list[TrialSteps], list[str]]:
    """Steps of the last trials of the recommended cell and a few others, and what is missing."""
    ran = [r.record.cell_id for r in cell_results(contents.trials) if has_figures(r.record)]
    best = contents.recommendation
    if best is not None and best.cell.cell_id in ran:
        ran = [best.cell.cell_id, *(c for c in ran if c != best.cell.cell_id)]
    path = contents.path / _STAMPS
    if ran and not path.is_file():
        return [], [f"{_STAMPS}: is missing, so there are no batch timelines"]
    try:
        return read_steps(path, ran[:_MOST_TIMELINES]), []
    except UsageError as error:
        return [], [str(error)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        return [], [f"{_STAMPS}: cannot be read: {type(error).__name__}: {error}"]
