"""The first screen of the HTML report: the configuration, how long, how sure, why, what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.config import Cell
from ctrkit.core.epochs import EpochRow
from ctrkit.core.records import Recommendation, RunInfo, TrialRecord
from ctrkit.core.units import format_duration
from ctrkit.report.blocks import Tone
from ctrkit.report.contents import ELSEWHERE, RunContents
from ctrkit.report.incidents import summary_words
from ctrkit.report.ledger_view import LOST, WORDS
from ctrkit.report.matrix_view import NOT_RUN, cell_results, has_figures
from ctrkit.report.probe_view import finding_words, status_words
from ctrkit.report.script_run_view import configuration_words
from ctrkit.report.script_view import run_command
from ctrkit.report.shell_lines import command_lines, kept_options, short_path
from ctrkit.report.train_view import interval_words
from ctrkit.report.words import (
    cell_words,
    clean,
    deviation_words,
    epochs_projected,
    flag_words,
    no_total_words,
    percent,
    plural,
    range_words,
    sentence,
)
from ctrkit.supervise.ledger import totals

_CAUTIOUS = 0.25
_WORTH_A_WORD = 0.02
_MOST_NOTES = 2


@dataclass(frozen=True)
class Card:
    """One answer: the question, the answer in a few words, and details."""

    label: str
    value: str
    details: tuple[str, ...] = ()
    tone: Tone = "plain"


@dataclass(frozen=True)
class Summary:
    """The cards, lines to paste (`todo`), and badges: short facts with a tone."""

    cards: tuple[Card, ...]
    todo: str
    lines: tuple[str, ...]
    badges: tuple[tuple[str, Tone], ...]


def summary_of(contents: RunContents) -> Summary:
    """The first screen for a probe or a real run."""
    if contents.info.command != "probe":
        return _train(contents)
    if contents.recommendation is None:
        return _without_answer(contents)
    return _probe(contents, contents.recommendation)


def again_lines(argv: Sequence[str]) -> list[str]:
    """The command of a run, to repeat it; without `--out`, whose folder is no longer empty."""
    kept: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":  # the script's own options follow
            kept += [word, *words]
        elif word == "--out":
            next(words, None)
        elif not word.startswith("--out="):
            kept.append(word)
    return command_lines(["ctrkit", *kept])


def _probe(contents: RunContents, best: Recommendation) -> Summary:
    info = contents.info
    cards = (
        _configuration(best.cell, sentence(best.reason)),
        _duration(info, best),
        _confidence(best, contents.trials),
        _limit(best),
    )
    file = short_path(contents.path / "recommendation.json")
    command = ["ctrkit", "train", "--config", file, *kept_options(info.argv)]
    script, answer = info.workload.script, best.script
    if script is not None and answer is not None:
        command = run_command(script, answer, file, changed=best.cell != answer.as_written)
    return Summary(cards, "Train with it", tuple(command_lines(command)), _badges(contents))


def _configuration(cell: Cell, *details: str) -> Card:
    first, *rest = cell_words(cell).split(", ", 2)
    value = ", ".join([first, *rest[:1]])
    return Card("Configuration", value, tuple(d for d in (", ".join(rest[1:]), *details) if d))


def _duration(info: RunInfo, best: Recommendation) -> Card:
    epochs = epochs_projected(best, info.planned_epochs)
    low_s, high_s = best.projected_total_s_low, best.projected_total_s_high
    if best.projected_total_s is None:
        if best.projected_epoch_s is None:
            return Card("How long", "not projected", (sentence(no_total_words(best)),), "dim")
        value = f"{format_duration(best.projected_epoch_s)} an epoch"
        return Card("How long", value, (sentence(no_total_words(best)),))
    details = []
    if low_s is not None and high_s is not None:
        details.append(f"{range_words(low_s, high_s)} for {plural(epochs, 'epoch')}")
    elif low_s is not None:
        details.append(f"at least {format_duration(low_s)} for {plural(epochs, 'epoch')}")
    else:
        details.append(f"for {plural(epochs, 'epoch')}")
    if best.projected_epoch_s is not None:
        details.append(f"{format_duration(best.projected_epoch_s)} an epoch")
    return Card("How long", format_duration(best.projected_total_s), tuple(details))


def _confidence(best: Recommendation, trials: Sequence[TrialRecord]) -> Card:
    launches = [t for t in trials if t.cell_id == best.cell.cell_id and has_figures(t)]
    details = ["A run of all epochs should take a time in this range, 19 times in 20."]
    details.append(f"{plural(len(launches), 'launch').replace('launchs', 'launches')} measured.")
    if others := [cell for cell in best.tied if cell != best.cell]:
        details.append(f"Tied with {plural(len(others), 'other cell')}.")
    details += [sentence(words) for words in flag_words(best.flags)]
    notes = [re.split(r"[;:]|\. ", f.text)[0] for f in best.findings if f.share is None]
    details += [sentence(words) for words in notes[:_MOST_NOTES]]  # the answer has the rest
    share = _relative_half(best)
    if share is None:
        return Card("How sure", "no interval", tuple(details[1:]), "dim")
    tone: Tone = "bad" if share > _CAUTIOUS else "plain"
    return Card("How sure", f"±{percent(share)}", tuple(details), tone)


def _relative_half(best: Recommendation) -> float | None:
    mean_s, low_s, high_s = (
        best.projected_total_s, best.projected_total_s_low, best.projected_total_s_high
    )  # fmt: skip
    if not mean_s or low_s is None or high_s is None:
        return None
    return max(high_s - mean_s, mean_s - low_s) / mean_s


def _limit(best: Recommendation) -> Card:
    limits = [finding for finding in best.findings if finding.share is not None]
    if not limits:
        return Card("Limited by", "not known", (), "dim")
    first = limits[0]
    words = finding_words(first).removeprefix(f"{first.stage}: ")  # the title above says it
    return Card("Limited by", clean(first.stage, 24), (sentence(words),))


def _badges(contents: RunContents) -> tuple[tuple[str, Tone], ...]:
    """The status, and the number of cells per verdict."""
    info = contents.info
    badges: list[tuple[str, Tone]] = []
    if info.status != "done":
        badges.append((status_words(info), "bad"))
    counts: dict[tuple[str, Tone], int] = {}
    for result in cell_results(contents.trials):
        tone: Tone = "good" if result.verdict == "ok" else "bad" if result.failed else "dim"
        words = clean(result.verdict.split(" ")[0] if result.failed else result.verdict, 30)
        counts[words, tone] = counts.get((words, tone), 0) + 1
    badges += [
        (f"{plural(count, 'cell')} {words}", tone) for (words, tone), count in counts.items()
    ]
    if contents.missing:
        badges.append((f"{plural(len(contents.missing), 'part')} missing", "bad"))
    return tuple(badges)


def _without_answer(contents: RunContents) -> Summary:
    results = cell_results(contents.trials)
    measured = [r for r in results if r.verdict == "ok"]
    failed = [r for r in results if r.failed]
    viable = not results or any(r.verdict not in NOT_RUN and not r.failed for r in results)
    cards = [
        Card("Configuration", "none to recommend", (sentence(status_words(contents.info)),), "bad")
    ]
    if measured:
        best = measured[0].record
        total = format_duration(best.projected_total_s)
        cards.append(Card("Best so far", total if best.projected_total_s else "measured",
                          (cell_words(best.cell),)))  # fmt: skip
    if failed:
        reasons = dict.fromkeys(sentence(r.record.reason) for r in failed)
        cards.append(Card("Failed", plural(len(failed), "cell"), tuple(reasons)[:2], "bad"))
    todo = (
        "Probe again with a longer --budget"
        if viable
        else "Read below why each configuration failed"
    )
    lines = again_lines(contents.info.argv) if viable else []
    return Summary(tuple(cards), todo, tuple(lines), _badges(contents))


def _train(contents: RunContents) -> Summary:
    info = contents.info
    cards = [_train_status(contents)]
    if info.workload.script is not None:
        cards.append(Card("Configuration", configuration_words(contents)))
    elif info.cell is not None:
        cards.append(_configuration(info.cell))
    whole = contents.whole_epochs
    cards.append(_train_time(info, whole))
    cards += _train_limit(contents)
    if best := contents.best:
        cards.append(Card(best[0][:1].upper() + best[0][1:], best[1], (f"best, in {best[2]}",)))
    badges: list[tuple[str, Tone]] = []
    if contents.incidents:
        badges.append((plural(len(contents.incidents), "incident"), "bad"))
    words = summary_words(contents.incidents)
    if words and words not in info.status_reason:
        badges.append((words, "dim"))
    if contents.missing:
        badges.append((f"{plural(len(contents.missing), 'part')} missing", "bad"))
    todo, lines = _train_todo(contents)
    return Summary(tuple(cards), todo, tuple(lines), tuple(badges))


def _train_status(contents: RunContents) -> Card:
    info = contents.info
    planned = info.sizes.epochs if info.sizes else None
    done = (
        f"{len(contents.epochs)} of {planned} epochs"
        if planned
        else plural(len(contents.epochs), "epoch")
    )
    is_said = info.status == "done"  # the answer to "how long" says it
    took = () if info.wall_s is None or is_said else (f"took {format_duration(info.wall_s)}",)
    details = tuple(d for d in (done, sentence(info.status_reason), *took) if d)
    tone: Tone = "good" if info.status == "done" else "plain" if info.status == "running" else "bad"
    return Card("Status", clean(info.status, 30), details, tone)


def _train_limit(contents: RunContents) -> list[Card]:
    """What took most of the time, from the ledger, else from a probed step; empty if unknown.

    Time lost outside the loop comes first, if it matters.
    """
    wall_s = sum(row.wall_s for row in contents.ledger)
    if wall_s <= 0:
        projection = contents.info.projection
        limits = [f for f in (projection.findings if projection else []) if f.share]
        return [
            Card("Limited by", clean(f.stage, 24), (f"{percent(f.share)} of a step, as probed",))
            for f in limits[:1]
        ]
    spent = totals(contents.ledger)
    lost = sorted((n for n in LOST if spent[n] > _WORTH_A_WORD * wall_s), key=lambda n: -spent[n])
    rest = sorted((n for n in spent if n not in LOST), key=lambda n: -spent[n])
    first, *others = [*lost, *rest]
    details = [f"{format_duration(spent[first])}, {percent(spent[first] / wall_s)} of the time"]
    details.append("Then " + ", ".join(
        f"{WORDS[n]} {percent(spent[n] / wall_s)}" for n in others[:3] if spent[n] > 0
    ) + ".")  # fmt: skip
    label = "Time lost to" if lost else "Most time went to"
    return [Card(label, WORDS[first], tuple(details), "bad" if lost else "plain")]


def _train_time(info: RunInfo, whole: Sequence[EpochRow]) -> Card:
    projection = info.projection
    projected_s = projection.projected_epoch_s if projection else None
    if not whole:
        words = "nothing was projected" if projected_s is None else (
            f"projected {format_duration(projected_s)} an epoch"
        )  # fmt: skip
        return Card("How long", "no whole epoch yet", (words,), "dim")
    mean_s = sum(row["wall_s"] or 0.0 for row in whole) / len(whole)
    value, each = f"{format_duration(mean_s)} an epoch", ""
    if info.status == "done" and info.wall_s is not None:
        value, each = format_duration(info.wall_s), f"{value}, "
    if projection is None or projected_s is None:
        return Card("How long", value, (f"{each}nothing was projected",))
    inside = sum(interval_words(row["wall_s"] or 0.0, projection) == "inside" for row in whole)
    details = (
        f"{each}{deviation_words(mean_s, projected_s)} against {format_duration(projected_s)} "
        "projected",
        f"{inside} of {plural(len(whole), 'epoch')} inside the projected interval",
    )
    return Card("How long", value, details)


def _train_todo(contents: RunContents) -> tuple[str, list[str]]:
    info = contents.info
    if info.status == "done":
        return "Nothing to do: the run is finished", []
    if contents.alive:
        planned, time = info.planned_epochs, contents.measured_time
        if planned and time is not None:
            left_s = time.epochs_s(planned, begin=len(contents.epochs))
            return f"Wait: about {format_duration(left_s)} to go at this pace", []
        return "Wait: it runs", []
    if info.status == ELSEWHERE:
        return (
            "Look on the host where it was started: ctrkit cannot see from here whether it still "
            "runs",
            [],
        )
    if contents.has_checkpoint:
        command = ["ctrkit", "train", "--resume", short_path(contents.path)]
        return "Continue from its checkpoint", command_lines(command)
    if info.workload.script is not None:
        return "Start it again; it continues only if it loads its own checkpoint", again_lines(
            info.argv
        )
    return "Start a new run: it left no checkpoint", again_lines(info.argv)
