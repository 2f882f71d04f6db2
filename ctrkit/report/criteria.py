"""Decides which class of its workload's criteria a run belongs to, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ctrkit.core.conditions import parse_condition
from ctrkit.core.config import Watch
from ctrkit.core.epochs import EpochRow
from ctrkit.core.records import RunInfo
from ctrkit.core.registry import plugin_and_settings
from ctrkit.report.blocks import Block, Column, Paragraph, Section, Table
from ctrkit.report.contents import DIED
from ctrkit.report.epoch_figures import best_epoch, watch_of
from ctrkit.report.words import clean, plural


@dataclass(frozen=True)
class Judged:
    """A condition of a class, its figure (None if unknown), and whether it is met.

    `note` says what else matters about the figure.
    """

    tier: str
    name: str
    condition: str
    value: float | None
    is_met: bool | None
    note: str = ""


@dataclass(frozen=True)
class Classification:
    """The result of a classification.

    Attributes:
        tier: the first class with all conditions met; None if there is none.
        incomplete: why the run cannot be judged yet; empty if it can.
    """

    tier: str | None
    incomplete: str
    judged: tuple[Judged, ...]


def classify(info: RunInfo, epochs: Sequence[EpochRow], partial: bool) -> Classification | None:
    """The class of a run; None if its workload has no criteria.

    Args:
        info: the run; its settings contain the criteria.
        epochs: rows of `epochs.csv`.
        partial: whether the last of them was cut short.
    """
    plugin, settings = plugin_and_settings(info.workload)
    criteria = plugin.criteria(settings)
    if not criteria:
        return None
    judged = tuple(
        _judge(tier, name, condition, epochs, watch_of(info))
        for tier, conditions in criteria.items()
        for name, condition in conditions.items()
    )
    met = [
        tier for tier in criteria if all(one.is_met is True for one in judged if one.tier == tier)
    ]
    return Classification(met[0] if met else None, _incomplete(info, epochs, partial), judged)


def classification_json(found: Classification | None) -> dict[str, Any] | None:
    """The classification as JSON values; None if the run has no criteria."""
    if found is None:
        return None
    judged = [asdict(one) for one in found.judged]
    for one in judged:
        del one["note"]
    return {"class": found.tier, "incomplete": found.incomplete or None, "conditions": judged}


def figure(name: str, epochs: Sequence[EpochRow], watch: Watch | None) -> float | None:
    """The figure that a condition names; None if unknown.

    A column of `epochs.csv` means its value in the best epoch, with or without the prefix `best_`;
    with `last_`, the value in the last epoch.
    """
    row: EpochRow | None
    if name.startswith("last_"):
        row, column = (epochs[-1] if epochs else None), name.removeprefix("last_")
    else:
        row, column = best_epoch(epochs, watch), name.removeprefix("best_")
    return None if row is None else row.get(column)


def criteria_section(classification: Classification) -> Section:
    """The class, whether it is final, and each condition with its figure."""
    blocks: list[Block] = []
    name = None if classification.tier is None else clean(classification.tier, 60)
    if classification.incomplete:
        so_far = f"as far as it went it meets {name}" if name else "so far it meets no class"
        blocks.append(Paragraph(f"Incomplete: {classification.incomplete}; {so_far}.", "bad"))
    elif name is None:
        blocks.append(Paragraph("The run meets no class of its phase's criteria.", "bad"))
    else:
        blocks.append(Paragraph(f"The run meets {name}.", "good"))
    rows = tuple(
        (
            clean(one.tier, 30), clean(one.name, 40), clean(one.condition, 40), _value_words(one),
            {True: "yes", False: "no", None: "not known"}[one.is_met],
        )
        for one in classification.judged
    )  # fmt: skip
    columns = (
        Column("class", right=False), Column("figure", right=False), Column("wanted"),
        Column("is"), Column("met", right=False),
    )  # fmt: skip
    return Section("Criteria", (*blocks, Table(columns, rows)))


def _judge(
    tier: str, name: str, condition: str, epochs: Sequence[EpochRow], watch: Watch | None
) -> Judged:
    value = figure(name, epochs, watch)
    is_met = None if value is None else parse_condition(condition).holds(value)
    is_column = not epochs or any(_column(name) in row for row in epochs)
    return Judged(tier, name, condition, value, is_met, "" if is_column else "no such figure")


def _column(figure_name: str) -> str:
    return figure_name.removeprefix("last_").removeprefix("best_")


def _value_words(one: Judged) -> str:
    if one.value is not None:
        return f"{one.value:.4f}" if one.value % 1 else f"{one.value:.0f}"
    return one.note


def _incomplete(info: RunInfo, epochs: Sequence[EpochRow], partial: bool) -> str:
    """Why the run has not reached its phase's end; empty if it has."""
    planned = info.planned_epochs or 0
    of_phase = int(info.workload.settings.get("epochs") or planned)
    done = f"{len(epochs)} of {plural(of_phase, 'epoch')}" if of_phase else f"{len(epochs)} epochs"
    if info.status != "done":
        verb = "has" if info.status == DIED else "is"
        return f"{done} finished, the run {verb} {clean(info.status, 30)}"
    if partial:
        return f"{done}, the last of them cut short"
    if len(epochs) >= planned:
        return f"{done} were asked for" if planned < of_phase else ""
    # early stopping by its own patience is a proper end; any other cut is not
    best, patience = best_epoch(epochs, watch_of(info)), info.sizes.patience if info.sizes else 0
    without_gain = len(epochs) - int(best["epoch"] or 0) if best else 0
    return "" if 0 < patience <= without_gain else f"{done}, then it was cut short"
