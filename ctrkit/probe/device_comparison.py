"""Says in one sentence which device is faster for this model, with both times."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ctrkit.core.config import Cell
from ctrkit.core.records import Finding
from ctrkit.core.units import format_duration, format_factor
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.predict import Prediction

_SAME = 1.02


@dataclass(frozen=True)
class _Best:
    device: str
    step_s: float
    objective: float
    was_run: bool

    def words(self) -> str:
        how = "" if self.was_run else " (predicted)"
        return f"{format_duration(self.step_s)} on {self.device}{how}"


def device_finding(
    chosen: Cell,
    candidates: Sequence[Candidate],
    predictions: Sequence[Prediction],
    failed: Collection[str] = (),
) -> Finding | None:
    """A finding with the best step of each device; None if only one device was examined.

    It compares only configurations that compute the same as the chosen one, at its batch size.

    Args:
        chosen: the recommended cell.
        candidates: cells that were really run.
        predictions: cells that were not run.
        failed: devices on which all cells failed.
    """
    found: dict[str, _Best] = {}
    for best in (*_ran(chosen, candidates), *_predicted(chosen, predictions)):
        known = found.get(best.device)
        if known is None or (known.was_run, -known.objective) < (best.was_run, -best.objective):
            found[best.device] = best
    missing = [device for device in failed if device not in found]
    if len(found) + len(missing) < 2 or chosen.device not in found:
        return None
    ranked = sorted(found.values(), key=lambda best: best.objective)
    text = f"a step takes {' and '.join(best.words() for best in ranked)}"
    if len(ranked) > 1:
        text += f": {_verdict(ranked)}"
    if missing:
        text += f"; nothing could be measured on {' or '.join(missing)}"
    return Finding(
        stage="device", share=None, worth_x=None, text=text,
        confidence="medium" if all(best.was_run for best in ranked) else "low",
    )  # fmt: skip


def _verdict(ranked: Sequence[_Best]) -> str:
    gain = ranked[1].objective / ranked[0].objective
    if gain < _SAME:
        return f"{ranked[0].device} and {ranked[1].device} take the same time for the whole run"
    fast, slow = ranked[0].device, ranked[1].device
    return f"over the whole run {fast} is {format_factor(gain)} as fast as {slow}"


def _is_alike(cell: Cell, chosen: Cell) -> bool:
    return cell.numerics == chosen.numerics and cell.batch_size == chosen.batch_size


def _ran(chosen: Cell, candidates: Sequence[Candidate]) -> Iterable[_Best]:
    return [
        _Best(one.cell.device, one.step.mean, one.objective, True)
        for one in candidates
        if _is_alike(one.cell, chosen)
    ]


def _predicted(chosen: Cell, predictions: Sequence[Prediction]) -> Iterable[_Best]:
    return [
        _Best(one.cell.device, one.step.mean, one.objective, False)
        for one in predictions
        if _is_alike(one.cell, chosen)
    ]
