"""Incidents in words: what happened in a real run, where, what was done, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from ctrkit.core.config import Cell, decode
from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_duration
from ctrkit.report.blocks import Block, Bullets, Facts, Paragraph, Section
from ctrkit.report.words import cell_words, clean, plural, sentence

Json = Mapping[str, Any]
"""A line of `incidents.jsonl`: `core.runs.Incident` as JSON, or of another version."""

_SHOWN = 20
_NAMED = 3


def incidents_section(incidents: Sequence[Json]) -> Section:
    """A section with each incident: a headline, then its facts."""
    shown = incidents[-_SHOWN:]
    blocks: list[Block] = []
    if len(incidents) > len(shown):
        earlier = plural(len(incidents) - len(shown), "earlier incident")
        blocks.append(Paragraph(f"{earlier} in incidents.jsonl", "dim"))
    for incident in shown:
        if not incident.get("verdict"):  # another kind of line
            words = (f"{key} {value}" for key, value in incident.items() if value not in (None, ""))
            blocks.append(Bullets((clean(", ".join(words), 200),)))
            continue
        blocks += [Paragraph(_headline(incident)), Facts(tuple(_facts(incident)))]
    return Section("Incidents", tuple(blocks))


def live_line(incident: Json) -> str:
    """The line that a display shows when the run restarts."""
    return clean(
        f"{_what(incident)}: {_text(incident, 'reason')}; {_done(incident)}; "
        f"evidence in {_text(incident, 'evidence')}",
        1000,
    )


def summary_words(incidents: Sequence[Json]) -> str:
    """`1 restart (deadlock in epoch 1, step 23), 73 s lost`: a run's incidents, or nothing.

    The seconds of all its restarts add up.
    """
    parts = []
    restarted = [i for i in incidents if i.get("action") == "restarted"]
    restarts = [_what(incident) for incident in restarted]
    if restarts:
        named = restarts[:_NAMED] + ["..."] * (len(restarts) > _NAMED)
        lost_s = sum(s for i in restarted if isinstance(s := i.get("lost_s"), int | float))
        lost = f", {format_duration(lost_s)} lost" if lost_s else ""
        parts.append(f"{plural(len(restarts), 'restart')} ({'; '.join(named)}){lost}")
    if any(incident.get("action") == "finished" for incident in incidents):
        parts.append("its process did not end by itself")
    return "; ".join(parts)


def has_moment(incident: Json) -> bool:
    """Whether its time and place are those at which it happened, not those of its report."""
    told_later = ("host slept", "was stopped")
    return not (incident.get("action") == "noted" and incident.get("verdict") in told_later)


def moved_words(incidents: Sequence[Json]) -> str:
    """A caution on the projection: since when the run has used another cell; or nothing."""
    for incident in incidents:
        after = incident.get("cell_after")
        if after is not None and after != incident.get("cell_before"):
            return f"{_what(incident)}: since then it has run in another cell than was projected"
    return ""


def _headline(incident: Json) -> str:
    when = _text(incident, "at")
    with suppress(ValueError):
        when = datetime.fromisoformat(when).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{_text(incident, 'number')}. {when}: {_what(incident)}"


def _what(incident: Json) -> str:
    """The verdict, and the steps done of the epoch: `deadlock in epoch 1, step 23`."""
    verdict, stage = _text(incident, "verdict"), _text(incident, "stage")
    if not has_moment(incident):
        return verdict
    if not incident.get("epoch"):
        return f"{verdict} in stage '{stage}'"
    where = f"in epoch {_text(incident, 'epoch')}, step {_text(incident, 'step')}"
    return f"{verdict} {where}" + (f" ({stage})" if stage not in ("", "step") else "")


def _facts(incident: Json) -> list[tuple[str, str]]:
    rows = [
        ("reason", sentence(_text(incident, "reason"))),
        ("cause", _if_new(incident, "cause")),
        ("fix", _if_new(incident, "fix")),
        ("ran in", _cell(incident.get("cell_before"))),
        ("done", sentence(_done(incident))),
        ("why", sentence(_text(incident, "why"))),
        ("lost", _lost(incident)),
        ("note", sentence(_text(incident, "note"))),
        ("evidence", _text(incident, "evidence")),
    ]
    return [row for row in rows if row[1]]


def _if_new(incident: Json, key: str) -> str:
    """A sentence, unless the reason says it already."""
    text, reason = _text(incident, key), _text(incident, "reason")
    return "" if text.rstrip(".").casefold() in reason.casefold() else sentence(text)


def _done(incident: Json) -> str:
    """What was done about it."""
    action, place = incident.get("action"), incident.get("resumed_from")
    if action == "finished":
        return "nothing was lost: its result was complete, and its process was ended"
    if action == "noted":
        return "it went on by itself"
    if action != "restarted" or not isinstance(place, dict):
        return "the run was stopped"
    begins = place.get("epoch") == 1 and not place.get("batch")
    where = f"epoch {place.get('epoch')}, batch {place.get('batch')}"
    before, after = incident.get("cell_before"), incident.get("cell_after")
    cell = "the same cell" if before == after else f"another cell: {_cell(after)}"
    return f"restarted from {'the beginning' if begins else where} in {cell}"


def _lost(incident: Json) -> str:
    steps, lost_s = incident.get("lost_steps"), incident.get("lost_s")
    parts = [plural(steps, "step")] if isinstance(steps, int) else []
    if isinstance(lost_s, int | float):
        parts.append(format_duration(lost_s))
    return ", ".join(parts)


def _cell(values: Any) -> str:
    try:
        return cell_words(decode(Cell, values, "cell"))
    except (UsageError, TypeError):
        return ""


def _text(incident: Json, key: str) -> str:
    value = incident.get(key)
    return "" if value is None else clean(str(value))
