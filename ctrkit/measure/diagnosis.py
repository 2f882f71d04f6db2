"""What limits an epoch, what removing it would be worth, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell
from ctrkit.core.records import Finding
from ctrkit.core.units import format_duration, format_factor, format_percent, sentences
from ctrkit.measure.elasticity import FETCHING, OTHER, STARTUP, STEPPING, EpochModel, epoch_model
from ctrkit.measure.leeway import ANYTHING, Leeway
from ctrkit.measure.projection import Projection
from ctrkit.measure.steps import data_wait_share, samples_of, steps_measured

#: A stage limits an epoch if the epoch's elasticity to it is at least this ...
DOMINANT_SHARE = 0.5
#: ... and this many times the runner-up's.
DOMINANT_RATIO = 1.5
BALANCED = "balanced"
UNEXPLAINED = "unexplained"
#: A prediction and a measurement confirm each other within this share.
_DISAGREEMENT = 0.15
_MANY_STEPS = 10
_IN_STEP = (*STEPPING, "compute", OTHER)
#: Words for each stage in a sentence, with the stage's own name, which tables use.
_WORDS = {
    "fetch": "reading the data (fetch)",
    "collate": "putting rows together to batches (collate)",
    "ipc": "passing batches between processes (ipc)",
    "transfer": "the copy to the device (transfer)",
    "forward": "the forward pass",
    "backward": "the backward pass",
    "optimizer": "the optimizer",
    "compute": "the training step itself (compute)",
    OTHER: "what the loop does besides, such as logging or metrics (other)",
    STARTUP: "the start of the loader (startup)",
}


@dataclass(frozen=True, kw_only=True)
class Ceilings:
    """The two bounds of a cell's step: seconds with cached batches, and of its loader alone."""

    compute_step_s: float | None = None
    loader_step_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Case:
    """Everything that the findings are made from."""

    cell: Cell
    model: EpochModel
    elasticity: dict[str, float]
    step_s: float
    ceilings: Ceilings
    wait_share: float
    has_task: bool
    confidence: str
    projection: Projection | None
    leeway: Leeway


def diagnose(
    cell: Cell,
    launches: Sequence[Measurement],
    ceilings: Ceilings,
    *,
    also: Sequence[Measurement] = (),
    has_task: bool = True,
    projection: Projection | None = None,
    leeway: Leeway = ANYTHING,
) -> list[Finding]:
    """Findings on a cell that was really run; the limiting stage comes first.

    Args:
        cell: the configuration.
        launches: its launches.
        ceilings: its step and its loader, each measured alone, to confirm the findings.
        also: trials of the same training step alone; they tell its stages if the launches did not.
        has_task: False if a step only takes a batch.
        projection: the cell's projection; it gives the length of an epoch, so that a slow start of
            each epoch can be seen, and what the real run would gain.
        leeway: what can be changed about the loader; by default everything.

    Returns:
        The findings; empty if nothing was measured.
    """
    batches = projection.sizes.train_batches if projection is not None else None
    model = epoch_model(
        cell, launches, also=also, batches=batches, loader_step_s=ceilings.loader_step_s
    )
    if model is None or not (elasticity := model.elasticities()):
        return []
    waits = [s for s in map(data_wait_share, launches) if s is not None]
    case = _Case(
        cell=cell,
        model=model,
        elasticity=elasticity,
        step_s=_step_s(cell, launches) or model.measured_step_s,
        ceilings=ceilings,
        wait_share=sum(waits) / len(waits) if waits else 0.0,
        has_task=has_task,
        confidence=_confidence(launches, _confirmed(model, ceilings)),
        projection=projection,
        leeway=leeway,
    )
    found = [_limit(case)]
    if has_task and (slowed := _slowed(case)):
        found.append(slowed)
    # if steps get slower all the time, a replay of their mean explains nothing
    is_steady = projection is None or not projection.trends
    if is_steady and (unexplained := _unexplained(case)):
        # if much is unexplained, that comes first, since it weakens the other findings
        at = 0 if (unexplained.share or 0.0) >= DOMINANT_SHARE else len(found)
        found.insert(at, unexplained)
    return found


def _step_s(cell: Cell, launches: Sequence[Measurement]) -> float | None:
    """The mean step of the launches, as tables show it: of whole turns of the workers."""
    samples = samples_of(launches, max(1, cell.workers))
    return sum(sample.mean for sample in samples) / len(samples) if samples else None


def limiting_stage(elasticity: dict[str, float]) -> str:
    """The limiting stage, or BALANCED; `elasticity` has the largest first."""
    ranked = list(elasticity.items())
    runner_up = ranked[1][1] if len(ranked) > 1 else 0.0
    first, most = ranked[0]
    named = most >= DOMINANT_SHARE and most >= DOMINANT_RATIO * runner_up
    return first if named or runner_up == 0 else BALANCED


def _confirmed(model: EpochModel, ceilings: Ceilings) -> bool | None:
    """Whether the ceilings agree with a replay without the other part; None if unknown."""
    checks = []
    if ceilings.compute_step_s and model.consumer_s > 0:
        checks.append(abs(model.consumer_s / ceilings.compute_step_s - 1) <= _DISAGREEMENT)
    if ceilings.loader_step_s and model.has_loader_stages:
        ratio = model.loader_step_s() / ceilings.loader_step_s
        # a loader that does not limit may be slower beside the step
        limits = model.loader_step_s() > model.consumer_s
        checks.append(abs(ratio - 1) <= _DISAGREEMENT or not limits)
    return all(checks) if checks else None


def _confidence(launches: Sequence[Measurement], confirmed: bool | None) -> str:
    """High: several launches, many steps, ceilings agree. Low: few steps or ceilings disagree."""
    steps = sum(map(steps_measured, launches))
    if steps < _MANY_STEPS or confirmed is False:
        return "low"
    return "high" if confirmed and len(launches) > 1 else "medium"


def _limit(case: _Case) -> Finding:
    stage = limiting_stage(case.elasticity)
    if stage == BALANCED:
        return _balanced(case)
    share, model = case.elasticity[stage], case.model
    whole_s, left_s = model.epoch_s(), model.without(stage)
    worth = whole_s / left_s if left_s > 1e-4 * whole_s else None
    text = sentences(
        *_lead(case, stage, share),
        ""
        if worth is None
        else f"if {_WORDS[stage]} took no time, {_whole(case)} would be "
        f"{format_factor(worth)} faster",
        _saved_words(case, whole_s, left_s),
        _advice(case, stage),
    )
    return Finding(stage=stage, share=share, worth_x=worth, text=text, confidence=case.confidence)


def _balanced(case: _Case) -> Finding:
    (first, most), (second, next_most) = list(case.elasticity.items())[:2]
    whole = "the step" if STARTUP not in (first, second) else "the epoch"
    lead = (
        f"two stages limit {whole} about equally (balanced): {_WORDS[first]} "
        f"({format_percent(most)}) and {_WORDS[second]} ({format_percent(next_most)})"
    )
    stages = {first, second}
    if stages <= set(_IN_STEP):
        advice = [_wait_words(case)]
    elif stages <= {*FETCHING, STARTUP}:
        advice = [_loader_advice(case, first if first != STARTUP else second)]
    else:
        advice = ["making only one of them faster gains little: speed up both"]
    return Finding(
        stage=BALANCED,
        share=most + next_most,
        worth_x=None,
        text=sentences(lead, *advice),
        confidence=case.confidence,
    )


def _lead(case: _Case, stage: str, share: float) -> list[str]:
    """Sentences on what limits, and by how much."""
    step, part = format_duration(case.step_s), format_percent(share)
    if stage == STARTUP:
        startup = format_duration(case.model.startup_s)
        return [f"starting and ending the loader (startup) takes {startup} of each epoch, {part}"]
    if stage in _IN_STEP:
        return [_wait_words(case), f"{_WORDS[stage]} takes {part} of a step of {step}"]
    known = case.model.has_loader_stages
    apart = "" if known else "fetch, collate and ipc could not be told apart"
    if not case.has_task:
        most = f"{_WORDS[stage]} takes {part} of the {step} of a batch"
        return [most, "no training step was measured, only the loader", apart]
    whom = "data"
    if case.cell.workers:
        count = "worker" if case.cell.workers == 1 else f"{case.cell.workers} workers"
        whom = f"the {count} of the {case.cell.loader} loader"
    wait = format_percent(case.wait_share)
    return [
        f"data loading is the bottleneck: a step of {step} waits {wait} of its time for {whom}",
        f"most of that is {_WORDS[stage]}",
        apart,
    ]


def _whole(case: _Case) -> str:
    """What a stage is a part of: an epoch if its start counts, else a step or a batch."""
    if case.model.startup_s > 0.02 * case.model.epoch_s():
        return "an epoch"
    return "a step" if case.has_task else "a batch"


def _saved_words(case: _Case, whole_s: float, left_s: float) -> str:
    """Words on what the real run would gain, in its own time."""
    projection = case.projection
    if projection is None or whole_s <= 0:
        return ""
    terms = projection.terms
    looping_s = sum(terms[name].mean for name in ("restart", "training", "teardown"))
    saved_s = looping_s * (1 - left_s / whole_s)
    run = projection.run
    whose, total_s = ("the run's", run.mean) if run else ("an epoch's", projection.epoch.mean)
    if saved_s < 1 or saved_s < 0.01 * total_s:
        return ""
    saved, total = format_duration(saved_s), format_duration(total_s)
    return f"that would save at most {saved} of {whose} {total}"


def _advice(case: _Case, stage: str) -> str:
    if stage in _IN_STEP:
        return _stage_advice(case, stage)
    return _startup_advice(case) if stage == STARTUP else _loader_advice(case, stage)


def _startup_advice(case: _Case) -> str:
    cell = case.cell
    if not cell.workers:
        return "the loader is slow to begin an epoch: keep open what it opens each time"
    keeps = case.leeway.heeds("persistent") and not cell.persistent
    kept = "keep the workers between epochs (--persistent true), or " if keeps else ""
    start = " and make each start faster" if cell.start_method == "spawn" else ""
    less = ": import and load less in each" if start else ""
    return f"{kept}use fewer than {cell.workers} workers{start}{less}"


def _loader_advice(case: _Case, stage: str) -> str:
    """Advice on a slow loader, for the configuration at hand."""
    cell, leeway = case.cell, case.leeway
    if cell.loader == "resident":
        return "shorter histories help: the device gathers fewer values for each row"
    whole = [name for name in ("batches", "thread") if leeway.has(name) and name != cell.loader]
    if stage == "ipc":
        ways = ["--workers 0"] if leeway.heeds("workers") else []
        ways += ["--loader thread"] if leeway.has("thread") else []
        without = f", or read without worker processes ({' or '.join(ways)})" if ways else ""
        return f"send fewer and smaller tensors, without copies or Python objects{without}"
    if stage == "collate" and cell.loader in ("rows", "custom", "script"):
        batches = "--loader batches, or " if leeway.has("batches") else ""
        return f"make whole batches at once ({batches}a vectorised collate_fn)"
    more = leeway.workers_words(cell)
    if cell.loader == "thread":
        batches = "read with --loader batches and workers" if leeway.has("batches") else ""
        return f"one thread does not keep up: {more or batches or 'make reading faster'}"
    if cell.workers == 0:
        if cell.loader == "rows" and whole:
            options = " or ".join(f"--loader {name}" for name in whole)
            return f"read whole batches ({options})" + (f"; {more}" if more else " or use workers")
        kept = " or keep the data on the device" if leeway.has("resident") else ""
        return (
            f"make reading faster; {more}" if more else f"let workers read ahead (--workers){kept}"
        )
    few = "1 worker does" if cell.workers == 1 else f"{cell.workers} workers do"
    return f"{few} not keep up: make reading faster" + (
        f"; {more}" if more else ", or use more workers"
    )


def _stage_advice(case: _Case, stage: str) -> str:
    if stage == "optimizer":
        return "sparse or fused updates, or fewer parameters, make it faster"
    if stage != "transfer":
        return ""
    cell = case.cell
    pins = cell.device == "cuda" and not cell.pin and case.leeway.heeds("pin")
    if pins:
        return "less data per batch, or pinned memory (--pin true), makes the copy faster"
    return "less data per batch makes the copy faster"


def _wait_words(case: _Case) -> str:
    """Words on the loader's spare speed if the training step limits."""
    wait = case.wait_share
    waits = f"a step waits {format_percent(wait)} of its time for data"
    alone = ""
    if case.ceilings.loader_step_s:
        ratio = case.model.measured_step_s / case.ceilings.loader_step_s
        alone = f" (the loader alone delivers batches {format_factor(ratio)} as fast)"
    if wait < 0.02:
        return (
            f"data loading is not the bottleneck: {waits}, so neither workers nor prefetch nor "
            f"another loader can help{alone}"
        )
    most = f"at most {1 / (1 - wait):.2f}x" if wait < 1 else "much"
    return f"{waits}, so faster data loading would make it {most} faster{alone}"


def _slowed(case: _Case) -> Finding | None:
    """A finding that the training step takes longer beside its loader than alone.

    If batches are made beside it, they share the processor; if not, no measurement explains it.
    """
    alone_s, beside_s = case.ceilings.compute_step_s, case.model.consumer_s
    if not alone_s or beside_s <= alone_s * (1 + _DISAGREEMENT):
        return None
    share = (beside_s - alone_s) / case.model.measured_step_s
    cell, times = case.cell, f"{beside_s / alone_s:.2f}x as long as alone"
    if not cell.loads_ahead:
        return Finding(
            stage=UNEXPLAINED,
            share=share,
            worth_x=None,
            text=(
                f"{format_percent(share)} of a step is unexplained: the training step takes "
                f"{times}, although nothing of this run works beside it. "
                f"{_beside_words(case.leeway)}"
            ),
            confidence="low",
        )
    where = "the cores" if cell.device == "cpu" else "the processor or the bus"
    return Finding(
        stage="contention",
        share=share,
        worth_x=1 / (1 - share) if share < 0.9999 else None,
        text=(
            f"Beside the loader the training step takes {times}, because they share {where} "
            f"(contention): that costs {format_percent(share)} of a step. Fewer workers or threads "
            "help, and so does a faster loader"
        ),
        confidence="low" if case.confidence == "low" else "medium",
    )


def _beside_words(leeway: Leeway) -> str:
    """Words on what may slow the step from outside, as far as the host was watched."""
    if leeway.other_cores is not None and leeway.other_cores >= 0.5:
        return (
            f"Other processes used {leeway.other_cores:.1f} cores meanwhile; caches and memory "
            "bandwidth, which were not measured, may be the cause, too"
        )
    return "Caches or memory bandwidth, which were not measured, may be the cause"


def _unexplained(case: _Case) -> Finding | None:
    """A finding on the part of a step that a replay of its measured stages does not explain."""
    model = case.model
    explained_s, step_s = model.steady_step_s(), model.measured_step_s
    share = 1 - explained_s / step_s
    if share <= _DISAGREEMENT:
        return None
    return Finding(
        stage=UNEXPLAINED,
        share=share,
        worth_x=None,
        text=(
            f"{format_percent(share)} of a step is unexplained: its measured stages add up to "
            f"{format_duration(explained_s)}, but it took {format_duration(step_s)}"
        ),
        confidence="low",
    )
