"""What limits the step, what removing it would be worth, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.config import Cell
from ctrkit.measure.steps import data_wait_share, mean_step_s, stage_means_s, steps_measured
from ctrkit.records import Finding, Measurement
from ctrkit.units import format_duration, format_factor

#: A stage limits the step if it is at least this share of it ...
DOMINANT_SHARE = 0.5
#: ... and this many times the runner-up.
DOMINANT_RATIO = 1.5
#: Ceilings and shares that differ by more than this do not confirm each other.
_DISAGREEMENT = 0.15
_FETCHING = ("fetch", "collate", "ipc")
_STEPPING = ("transfer", "forward", "backward", "optimizer")
_MANY_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """Both bounds of a cell's step: seconds with cached batches, and of its loader alone."""

    compute_step_s: float | None = None
    loader_step_s: float | None = None


def step_shares(
    launches: Sequence[Measurement], also: Sequence[Measurement] = ()
) -> dict[str, float]:
    """Shares of a step's wall time by stage; they add up to 1, and are empty if unknown.

    The wait for the loader is measured in the throughput window and given to the one of fetch,
    collate and ipc that takes longest (by name `fetch` if none was told apart); the rest is divided
    as the attribution windows of `launches`, else of `also`, divide it. A cell whose task was not
    attributed has its rest under `compute`.
    """
    shares = [s for s in map(data_wait_share, launches) if s is not None]
    if not shares:
        return {}
    wait = sum(shares) / len(shares)
    stages = stage_means_s(launches)
    if not any(stage in stages for stage in _STEPPING):
        stages = {**stage_means_s(also), **stages}
    fetching = {stage: stages[stage] for stage in _FETCHING if stage in stages}
    waited_for = max(fetching, key=lambda s: fetching[s]) if fetching else "fetch"
    stepping = {stage: stages[stage] for stage in _STEPPING if stages.get(stage, 0.0) > 0}
    whole = sum(stepping.values())
    divided = {waited_for: wait}
    if whole > 0:
        divided |= {stage: (1 - wait) * s / whole for stage, s in stepping.items()}
    elif wait < 1:
        divided["compute"] = 1 - wait
    return divided


def diagnose(
    cell: Cell,
    launches: Sequence[Measurement],
    ceilings: Ceilings,
    *,
    also: Sequence[Measurement] = (),
    has_task: bool = True,
) -> list[Finding]:
    """Findings on the step of a cell that was really run, the limiting stage first.

    `also` are trials of the same training step alone: they tell its stages apart where the
    launches did not. The list is empty where nothing was measured.
    """
    steps = [s for s in map(mean_step_s, launches) if s is not None]
    shares = step_shares(launches, also)
    if not steps or not shares:
        return []
    step_s = sum(steps) / len(steps)
    if not has_task:
        return [_only_loader(cell, step_s, _sureness(launches, confirmed=None))]
    wait = sum(shares.get(stage, 0.0) for stage in _FETCHING)
    alone = ceilings.compute_step_s
    confirmed = None if alone is None else abs(step_s * (1 - wait) / alone - 1) <= _DISAGREEMENT
    confidence = _sureness(launches, confirmed)
    findings = [_limit(cell, shares, wait, step_s, ceilings, confidence)]
    if alone is not None and step_s * (1 - wait) > alone * (1 + _DISAGREEMENT):
        findings.append(_slowed(cell, step_s * (1 - wait), alone, step_s, confidence))
    return findings


def _limit(
    cell: Cell,
    shares: dict[str, float],
    wait: float,
    step_s: float,
    ceilings: Ceilings,
    confidence: str,
) -> Finding:
    ranked = sorted(shares, key=lambda stage: shares[stage], reverse=True)
    first = ranked[0]
    second = ranked[1] if len(ranked) > 1 else None
    runner_up = shares[second] if second else 0.0
    stage, share = first, shares[first]
    if second and (share < DOMINANT_SHARE or share < DOMINANT_RATIO * runner_up):
        stage, share = "balanced", share + runner_up
    lead = (
        f"balanced: {first} ({shares[first]:.0%}) + {second} ({runner_up:.0%})"
        if stage == "balanced"
        else f"{stage} limits the step: {share:.0%} of {format_duration(step_s)}"
    )
    if stage in _FETCHING:
        advice = _loader_advice(cell)
    elif wait < 1 - DOMINANT_SHARE:
        advice = _compute_advice(wait, step_s, ceilings)
    else:
        advice = "neither the loader nor the training step alone is worth much; speed up both"
    worth = None if stage == "balanced" else _worth(share)
    return Finding(
        stage=stage, share=share, worth_x=worth, text=f"{lead}; {advice}", confidence=confidence
    )


def _worth(share: float) -> float | None:
    """How many times faster without it (Amdahl 1967); None where nothing would be left."""
    return 1 / (1 - share) if share < 0.9999 else None


def _loader_advice(cell: Cell) -> str:
    """What to do about a slow loader, in terms of the configuration at hand."""
    if cell.loader == "resident":
        return "the gather on the device takes most of the step; smaller histories help"
    if cell.workers == 0 and cell.loader == "rows":
        return "read whole batches (--loader batches or thread) or use workers"
    if cell.workers == 0:
        return "let workers read ahead (--workers) or keep the data on the device"
    return f"{cell.workers} workers do not keep up: make reading cheaper, or use more workers"


def _compute_advice(wait: float, step_s: float, ceilings: Ceilings) -> str:
    """What the loader can still give when the training step limits."""
    if wait < 0.02:
        text = "the loop hardly waits for data, so workers, prefetch or another loader cannot help"
    else:
        text = f"without any wait for data it would be {1 / (1 - wait):.2f}x faster, no more"
    if ceilings.loader_step_s:
        text += (
            f" (the loader alone delivers {format_factor(step_s / ceilings.loader_step_s)} as fast)"
        )
    return text


def _slowed(cell: Cell, beside_s: float, alone_s: float, step_s: float, sure: str) -> Finding:
    """The training step takes longer beside its loader than alone: they share something."""
    share = (beside_s - alone_s) / step_s
    where = "the cores" if cell.device == "cpu" else "the processor or the bus"
    return Finding(
        stage="contention",
        share=share,
        worth_x=_worth(share),
        text=(
            f"beside its loader the training step takes {beside_s / alone_s:.2f}x as long as alone:"
            f" they share {where}; fewer workers or threads, or a cheaper loader, help"
        ),
        confidence="low" if sure == "low" else "medium",
    )


def _only_loader(cell: Cell, step_s: float, confidence: str) -> Finding:
    return Finding(
        stage="fetch",
        share=1.0,
        worth_x=None,
        text=(
            f"a step is only taking a batch ({format_duration(step_s)} with {cell.workers}"
            " workers): no training step was measured beside it"
        ),
        confidence=confidence,
    )


def _sureness(launches: Sequence[Measurement], confirmed: bool | None) -> str:
    """High: several launches, many steps, ceilings agree. Low: few steps or ceilings disagree."""
    steps = sum(map(steps_measured, launches))
    if steps < _MANY_STEPS or confirmed is False:
        return "low"
    return "high" if confirmed and len(launches) > 1 else "medium"
