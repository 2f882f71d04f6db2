"""Which epoch of a run was best, and what its figures in `epochs.csv` need said about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ctrkit.core.config import Watch
from ctrkit.core.epochs import FIXED_COLUMNS, OWN, EpochRow, OddValue, own_column
from ctrkit.core.plugins import Metric, Plugin
from ctrkit.core.records import RunInfo
from ctrkit.core.registry import plugin_of
from ctrkit.report.words import clean

_NO_NUMBERS = ("nan", "inf", "-inf")


def watch_of(info: RunInfo) -> Watch | None:
    """The metric that decides on best.pt and patience; older runs get it from their plug-in."""
    return info.watch or plugin_of(info.workload.target).watch


def best_epoch(epochs: Sequence[EpochRow], watch: Watch | None) -> EpochRow | None:
    """The epoch with the best value of the watched metric (the first of equals).

    None without one.
    """
    if watch is None:
        return None
    column, sign = own_column(watch[0]), 1 if watch[1] == "max" else -1
    known = [(sign * value, row) for row in epochs if (value := row.get(column)) is not None]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def best_words(
    plugin: Plugin, watch: Watch | None, epochs: Sequence[EpochRow]
) -> tuple[str, str, str] | None:
    """The watched metric's name, its best value, and in which epoch; None without one."""
    row = best_epoch(epochs, watch)
    if row is None or watch is None:
        return None
    metric = plugin.metric(own_column(watch[0]))
    name = clean(metric.live or metric.label or metric.name, 60)
    return name, metric.text(row[metric.name]), f"epoch {row['epoch']}"


def shown_metrics(plugin: Plugin, epochs: Iterable[EpochRow]) -> list[Metric]:
    """The metrics that some epoch has a column for, in the order of a report."""
    return plugin.metrics_of(dict.fromkeys(name for row in epochs for name in row))


def epoch_notes(
    epochs: Sequence[EpochRow], odd: Sequence[OddValue], watch: Watch | None
) -> list[str]:
    """A sentence for each figure that a reader could misunderstand.

    Args:
        epochs: rows of `epochs.csv`.
        odd: values in it that are no numbers.
        watch: the metric that decides on best.pt and patience.
    """
    return [*_odd_notes(odd), *_gaps(epochs, odd), *_renamed(epochs), *_unwatched(epochs, watch)]


def live_notes(rows: Sequence[EpochRow], odd: Sequence[OddValue], watch: Watch | None) -> list[str]:
    """Notes on new epochs during a run, when gaps may still be filled.

    Args:
        rows: rows of all epochs so far.
        odd: values in the new ones that are no numbers.
        watch: the metric that decides on best.pt and patience.
    """
    return [*_odd_notes(odd), *_renamed(rows), *_unwatched(rows, watch)]


def _odd_notes(odd: Sequence[OddValue]) -> Iterator[str]:
    by_value: dict[tuple[str, str], list[int]] = {}
    for one in odd:
        text = one.text if one.text in _NO_NUMBERS else ""
        by_value.setdefault((one.column, text), []).append(one.epoch)
    for (column, text), numbers in by_value.items():
        name = clean(column, 60)
        if text:
            yield f"{name} is {text} in {_epochs_words(numbers)}"
        else:
            value = next(one.text for one in odd if one.column == column)
            yield (
                f"{name} is no number in {_epochs_words(numbers)} ('{clean(value, 40)}'): "
                "epochs.csv keeps it as text"
            )


def _gaps(epochs: Sequence[EpochRow], odd: Sequence[OddValue]) -> Iterator[str]:
    """Metrics that only some epochs have."""
    is_odd = {(one.epoch, one.column) for one in odd}
    for name in dict.fromkeys(name for row in epochs for name in row if name not in FIXED_COLUMNS):
        lacking = [
            int(row["epoch"] or 0)
            for row in epochs
            if row.get(name) is None and (row["epoch"], name) not in is_odd
        ]
        if lacking and len(lacking) < len(epochs):
            yield f"{clean(name, 60)} has no value in {_epochs_words(lacking)}"


def _renamed(epochs: Sequence[EpochRow]) -> Iterator[str]:
    for name in dict.fromkeys(name for row in epochs for name in row):
        plain = name.removeprefix(OWN)
        if plain != name and own_column(plain) == name:
            yield f"{name} is the workload's metric '{plain}': {plain} is a column of every run"


def _unwatched(epochs: Sequence[EpochRow], watch: Watch | None) -> Iterator[str]:
    if watch is None or not epochs:
        return
    if all(row.get(own_column(watch[0])) is None for row in epochs):
        yield (
            f"{clean(watch[0], 60)} is watched, but no epoch has a number for it: there is no "
            "best.pt, and it never stops early"
        )


def _epochs_words(numbers: Sequence[int]) -> str:
    listed = ", ".join(str(number) for number in numbers[:5])
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"epoch {listed}{more}" if len(numbers) == 1 else f"epochs {listed}{more}"
