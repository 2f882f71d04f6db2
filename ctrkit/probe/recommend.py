"""The recommendation: the best cell really run, what is tied with it, and what else to do."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ctrkit.core.cell import WITHOUT_WORKERS
from ctrkit.core.config import CELL_AXES, Cell
from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import CtrkitError, InconclusiveError, NoViableCellError, UsageError
from ctrkit.core.records import Finding, Inspection, Option, Recommendation
from ctrkit.core.units import format_duration
from ctrkit.measure.cores import core_findings, waiting_finding
from ctrkit.measure.diagnosis import Ceilings, diagnose
from ctrkit.measure.memory_growth import memory_finding
from ctrkit.measure.projection import Projection
from ctrkit.measure.steps import mean_step_s
from ctrkit.measure.storage import threads_finding
from ctrkit.probe.candidates import Candidate, candidates_of, differ, prefer
from ctrkit.probe.cell_results import failure_of, full_trials
from ctrkit.probe.device_comparison import device_finding
from ctrkit.probe.epoch_findings import batch_size_finding, epoch_findings, one_epoch_finding
from ctrkit.probe.fitting_batch import fitting_options
from ctrkit.probe.known_workers import leeway_of
from ctrkit.probe.last_resort import salvaged, unsure, unsure_finding
from ctrkit.probe.loss_findings import bad_loss_finding
from ctrkit.probe.memory_needs import batch_memory_finding
from ctrkit.probe.numerics import comparable, numerics_options
from ctrkit.probe.search import SearchResult
from ctrkit.probe.trials import projected_columns

_MOST_REASONS = 6
_LAST_RESORT = "no trial came to its end within the budget; of this cell a step was measured"
_BATCH_WORDS = "convergence at another batch size was not measured"


def recommend(
    search: SearchResult,
    inspection: Inspection,
    *,
    deadline_s: float | None = None,
    host_findings: Sequence[Finding] = (),
    other_cores: float = 0.0,
) -> Recommendation:
    """Choose among the cells that were really run.

    Args:
        search: what was measured.
        inspection: of the workload.
        deadline_s: time for the whole run; an option says how many epochs fit into it.
        host_findings: what is known of the machine's state, appended to the findings.
        other_cores: that other processes took while it was measured.

    Raises:
        NoViableCellError: every cell failed or was refused; the message has the reasons.
        InconclusiveError: none could be measured in the time there was.
        UsageError: no cell can run, since what the workload was given or returns is wrong.
    """
    candidates, is_unsure = candidates_of(search.trials, inspection), False
    if not candidates:
        search = replace(search, trials=tuple(salvaged(search.trials)))
        candidates = [unsure(c) for c in candidates_of(search.trials, inspection)]
        is_unsure = True
    if not candidates:
        raise _nothing_to_recommend(search)
    # what computes something else is shown as an option, with its loss, and never preferred
    ranked = sorted(comparable(candidates, lambda c: c.cell), key=lambda c: c.objective)
    tied = [c for c in ranked if not differ(c, ranked[0])]
    # a script is not to be changed for a gain that is not proven
    baseline = next((c for c in tied if c.cell == search.plan.baseline), None)
    chosen = baseline or prefer(tied)
    tied = [c for c in tied if c is not chosen]
    others = [c.cell for c in ranked if c is not chosen and c not in tied]
    others += [c.cell for c in tied]
    predicted = sorted(search.predictions, key=lambda p: p.objective)
    predicted = [p for p in predicted if p.cell.numerics == chosen.cell.numerics]
    others += [p.cell for p in predicted if p.cell != chosen.cell]
    columns: dict[str, Any] = projected_columns(chosen.projection)
    if chosen.projection is not None:
        columns["projected_startup_s"] = chosen.projection.startup.mean
        columns["projected_terms_s"] = {
            name: term.mean for name, term in chosen.projection.each_epoch.items()
        }
    return Recommendation(
        cell=chosen.cell,
        reason=_LAST_RESORT if is_unsure else _reason(chosen, ranked, tied, search, inspection),
        tied=[c.cell for c in tied],
        runner_up=others[0] if others else None,
        launches=_launches_projected(chosen.cell, search),
        findings=[
            *([unsure_finding(chosen.cell, search.trials)] if is_unsure else []),
            *findings(chosen, search, inspection, other_cores),
            *_devices(chosen.cell, candidates, search),
            *host_findings,
        ],
        options=[
            *options(chosen, ranked, search, deadline_s),
            *fitting_options(search.trials, search.plan.cells),
            *numerics_options(chosen, candidates, search.trials),
        ],
        flags=list(chosen.projection.flags) if chosen.projection else [],
        dataloader_kwargs=dataloader_kwargs(chosen.cell, inspection.axes),
        **columns,
    )


def _launches_projected(cell: Cell, search: SearchResult) -> int:
    """Launches that the projection is made from: those that confirm it, where there are any."""
    counted = full_trials(cell, search.trials)
    return len([t for t in counted if t.request.confirms] or counted)


def _reason(
    chosen: Candidate,
    ranked: Sequence[Candidate],
    tied: Sequence[Candidate],
    search: SearchResult,
    inspection: Inspection,
) -> str:
    """One sentence: why this cell."""
    what = "time per row"
    if chosen.projection is not None:
        what = "projected time" if chosen.projection.run else "projected time of an epoch"
    if chosen.cell == search.plan.baseline:
        text = _as_written_reason(chosen, ranked, tied, search)
    elif len(ranked) == 1:
        among = f"the fastest of {len(search.plan.cells)} configurations"
        text = f"predicted to be {among}, and confirmed by a real run"
        if len(search.plan.cells) == 1:
            text = "the only configuration to try, and it works"
    elif tied:
        fewer = all(chosen.cell.workers <= c.cell.workers for c in tied)
        why = "needs no more workers than they do" if fewer else "was the fastest of them"
        names = ", ".join(c.cell.name for c in tied)
        text = f"not measurably different from {names} in {what}; it {why}"
    else:
        gain = ranked[1].objective / chosen.objective
        among = f"{len(ranked)} configurations that were run"
        text = f"shortest {what} of {among}, {gain:.2f}x as fast as the next"
    other = chosen.cell.batch_size != inspection.default_batch_size
    if inspection.has_task and (other or len(search.plan.batch_sizes) > 1):
        text += f" (batch {chosen.cell.batch_size}: {_BATCH_WORDS})"
    if chosen.cell.numerics:
        changed = ", ".join(f"{axis} {value}" for axis, value in chosen.cell.numerics.items())
        text += (
            f" (with {changed}: that changes the numerics; no configuration with the phase's own "
            "was measured)"
        )
    return text


def _as_written_reason(
    chosen: Candidate, ranked: Sequence[Candidate], tied: Sequence[Candidate], search: SearchResult
) -> str:
    """Why a script is best left as it is, or why nothing better is known."""
    if tied:
        names = ", ".join(c.cell.name for c in tied)
        return f"as written: no gain is proven; {names} is not measurably different"
    cells = len(search.plan.cells)
    if cells == 1:
        return "as written, the only configuration there is to try"
    if len(ranked) > 1:
        return f"as written, the fastest of {len(ranked)} configurations that were run"
    predicted = [p for p in search.predictions if p.cell != chosen.cell]
    best = min(predicted, key=lambda p: p.objective, default=None)
    if best is None or best.objective >= chosen.objective:
        return _nothing_else_run(chosen, len(predicted), search)
    gain = chosen.objective / best.objective
    return (
        f"as written: {best.cell.name} is predicted to be {gain:.1f}x faster, but there was no "
        "time to run it; give a longer --budget"
    )


def _nothing_else_run(chosen: Candidate, predicted: int, search: SearchResult) -> str:
    """Why a script is left as it is where nothing else was run to its end, and what to do."""
    others = [cell for cell in search.plan.cells if cell != chosen.cell]
    failed = sum(failure_of(cell, search.trials) is not None for cell in others)
    if failed == len(others):
        return "as written: every other configuration failed"
    what_to_do = "give a longer --budget"
    why = "there was no time left"
    if search.interrupted:
        why, what_to_do = "the probe was interrupted", "probe again without interrupting it"
    if predicted == 0:
        but = f" ({failed} of {len(others)} failed)" if failed else ""
        return f"as written: no other configuration was fully measured{but}: {why}; {what_to_do}"
    which = "the other configurations"
    if predicted < len(others):
        which = f"{predicted} of {which} (the rest could not be predicted)"
    return (
        f"as written: {which} {'is' if predicted == 1 < len(others) else 'are'} predicted to be "
        f"no faster; none was fully measured: {why}"
    )


def findings(
    chosen: Candidate, search: SearchResult, inspection: Inspection, other_cores: float = 0.0
) -> list[Finding]:
    """What limits the chosen cell's step, and what is to be known of the projection."""
    alone, loader = search.compute(chosen.cell), search.loader(chosen.cell)
    ceilings = Ceilings(
        compute_step_s=mean_step_s(alone) if alone else None,
        loader_step_s=mean_step_s(loader) if loader else None,
    )
    leeway = leeway_of(chosen, search, inspection, other_cores)
    found = diagnose(
        chosen.cell,
        search.launches(chosen.cell),
        ceilings,
        also=[alone] if alone else [],
        has_task=inspection.has_task,
        projection=chosen.projection,
        leeway=leeway,
    )
    if bad := bad_loss_finding(chosen.cell, search.trials):
        found.append(bad)
    if growth := _memory_growth(chosen, search):
        found.append(growth)
    if inspection.has_task:
        found += core_findings(chosen.cell, search.launches(chosen.cell), physical_cores())
    launches = search.launches(chosen.cell)
    if waiting := waiting_finding(chosen.cell, launches, physical_cores(), leeway):
        found.append(waiting)
    if threads := threads_finding(chosen.cell, launches):
        found.append(threads)
    if any(t.ok and t.result.verdict == "shutdown-hang" for t in search.full_trials(chosen.cell)):
        found.append(_never_ends())
    about = epoch_findings(
        chosen.cell, search.launches(chosen.cell), chosen.projection, search.trials, inspection
    )
    if chosen.projection is None and not about and chosen.cell.loader != "none":
        about = [_unknown_length()]
    if chosen.projection is not None and chosen.projection.run is None:
        about = [_unknown_epochs(), *about]
    found += about
    sizes = inspection.sizes
    if other := batch_size_finding(chosen.cell, launches, inspection):
        found.insert(0, other)
    if once := one_epoch_finding(launches, sizes.epochs if sizes is not None else None):
        found.insert(0, once)
    if search.plan.own:
        found.append(
            Finding(stage="axes", share=None, worth_x=None, text=search.plan.own, confidence="high")
        )
    if len(search.plan.batch_sizes) > 1:
        found.append(_several_batch_sizes())
        plan, trials = search.plan, search.trials
        costs = batch_memory_finding(chosen.cell, trials, inspection, plan.limits)
        found += [costs] if costs else []
    return found


def _devices(chosen: Cell, candidates: Sequence[Candidate], search: SearchResult) -> list[Finding]:
    """How the devices compare, where there were several."""
    of_device: dict[str, list[Cell]] = {}
    for cell in search.plan.cells:
        of_device.setdefault(cell.device, []).append(cell)
    failed = [
        device
        for device, cells in of_device.items()
        if all(failure_of(cell, search.trials) is not None for cell in cells)
    ]
    found = device_finding(chosen, candidates, search.predictions, failed)
    return [found] if found is not None else []


def _memory_growth(chosen: Candidate, search: SearchResult) -> Finding | None:
    limits, projection = search.plan.limits, chosen.projection
    return memory_finding(
        [t.result.memory for t in search.full_trials(chosen.cell)],
        free_bytes=None if limits is None else limits.memory_bytes,
        batches=None if projection is None else projection.sizes.train_batches,
        epochs=None if projection is None else projection.sizes.epochs,
        step_s=chosen.step.mean,
    )


def _never_ends() -> Finding:
    return Finding(
        stage="shutdown",
        share=None,
        worth_x=None,
        text=(
            "its result was complete, but its process did not end (shutdown-hang): the"
            " measurement counts, but your own run would not end either"
        ),
        confidence="high",
    )


def _unknown_epochs() -> Finding:
    return Finding(
        stage="run",
        share=None,
        worth_x=None,
        text="ctrkit does not know how many epochs the run has, so it projects one epoch and not "
        "the whole run; say it with --epochs N",
        confidence="high",
    )


def _unknown_length() -> Finding:
    return Finding(
        stage="epoch",
        share=None,
        worth_x=None,
        text=(
            "the loader has no length and did not end, so ctrkit cannot project an epoch; cells are"
            " ranked by rows per second"
        ),
        confidence="high",
    )


def _several_batch_sizes() -> Finding:
    return Finding(
        stage="batch size",
        share=None,
        worth_x=None,
        text=f"batch sizes are compared by the projected time of the run only: {_BATCH_WORDS}",
        confidence="high",
    )


def options(
    chosen: Candidate,
    ranked: Sequence[Candidate],
    search: SearchResult,
    deadline_s: float | None,
) -> list[Option]:
    """What one could do instead, each with its projected time."""
    if chosen.projection is None:
        return []
    projection, epochs = chosen.projection, chosen.projection.sizes.epochs
    listed = []
    if deadline_s is not None:
        listed.append(_within(projection, deadline_s))
    for count in dict.fromkeys((epochs // 2, epochs // 3)) if epochs else ():
        if 0 < count < (epochs or 0):
            text = f"{count} of {epochs} epochs (--epochs {count})"
            listed.append(Option(text=text, projected_total_s=projection.total_of(count).mean))
    return listed + _other_devices(chosen, ranked, search)


def _within(projection: Projection, deadline_s: float) -> Option:
    """How many epochs end before the deadline, if the run takes as long as its upper bound."""
    epochs = projection.sizes.epochs
    if math.isinf(projection.epoch.high):
        return Option(
            text="how many epochs fit is not known: their steps get slower", projected_total_s=None
        )
    fitting = fitting_epochs(projection, deadline_s)
    limit = format_duration(deadline_s)
    if epochs is not None and fitting >= epochs:
        text = f"all {epochs} epochs fit into {limit}"
    elif fitting == 0:
        low = format_duration(projection.total_of(1).mean)
        return Option(
            text=f"not one epoch fits into {limit}: the first takes {low}", projected_total_s=None
        )
    else:
        of = "" if epochs is None else f" of {epochs}"
        text = f"{fitting}{of} epochs fit into {limit} (--epochs {fitting})"
    total_s = projection.total_of(fitting if epochs is None else min(fitting, epochs)).mean
    return Option(text=text, projected_total_s=total_s)


def fitting_epochs(projection: Projection, deadline_s: float) -> int:
    """Epochs that are over by the deadline even at the upper bound of the projection."""
    first = projection.first_epoch or projection.epoch
    left_s = deadline_s - projection.startup.high - first.high
    return max(0, 1 + math.floor(left_s / projection.epoch.high))


def _other_devices(
    chosen: Candidate, ranked: Sequence[Candidate], search: SearchResult
) -> list[Option]:
    """The best cell of each other device, measured or else predicted."""
    if chosen.projection is None or chosen.projection.run is None:
        return []  # without a number of epochs there is no time of a run to give
    totals: dict[str, tuple[float, str]] = {}
    for prediction in search.predictions:
        if prediction.projection is not None:
            device, seconds = prediction.cell.device, prediction.projection.total.mean
            if device not in totals or seconds < totals[device][0]:
                totals[device] = (seconds, "predicted")
    measured: dict[str, tuple[float, str]] = {}
    for candidate in ranked:
        if candidate.projection is not None:
            seconds = candidate.projection.total.mean
            measured.setdefault(candidate.cell.device, (seconds, "measured"))
    totals |= measured
    return [
        Option(text=f"on {device} instead of {chosen.cell.device} ({how})", projected_total_s=s)
        for device, (s, how) in sorted(totals.items())
        if device != chosen.cell.device
    ]


def dataloader_kwargs(cell: Cell, axes: Collection[str] = CELL_AXES) -> dict[str, Any]:
    """Arguments of a `torch.utils.data.DataLoader` that match the cell, for one's own loop.

    What the workload does not take is left out: the cell's value is not the loader's own then.
    """
    workers = 0 if cell.loader in WITHOUT_WORKERS else cell.workers
    kwargs: dict[str, Any] = {
        "batch_size": cell.batch_size,
        "num_workers": workers,
        "pin_memory": cell.pin,
    }
    if workers:
        kwargs |= {
            "prefetch_factor": cell.prefetch,
            "persistent_workers": cell.persistent,
            "multiprocessing_context": cell.start_method,
        }
    of_axis = {
        "batch_size": "batch_size", "num_workers": "workers", "pin_memory": "pin",
        "prefetch_factor": "prefetch", "persistent_workers": "persistent",
        "multiprocessing_context": "start_method",
    }  # fmt: skip
    return {name: value for name, value in kwargs.items() if of_axis[name] in axes}


def _nothing_to_recommend(search: SearchResult) -> CtrkitError:
    """Failures and refusals of every cell are exit code 4; a cell that had no time makes it 3.

    Bad input that fails in whichever cell is exit code 2, as where it is found before any trial.
    """
    if search.interrupted:
        return InconclusiveError("interrupted before any configuration was measured")
    if search.same_failure is not None and search.same_failure.is_misuse:
        return UsageError(search.same_failure.words)
    if search.same_failure is not None:
        return NoViableCellError(f"no configuration can run: {search.same_failure.words}")
    reasons = [
        f"{record.cell.name}: {record.verdict}: {record.reason}"
        for record in search.records
        if record.verdict not in ("ok", "skipped")
    ]
    shown = "; ".join(reasons[:_MOST_REASONS])
    if len(reasons) > _MOST_REASONS:
        shown += f"; and {len(reasons) - _MOST_REASONS} more"
    refused = {record.cell_id for record in search.records if record.verdict == "refused"}
    if all(
        cell.cell_id in refused or failure_of(cell, search.trials) for cell in search.plan.cells
    ):
        shown = "; ".join(
            [shown, *(o.text for o in fitting_options(search.trials, search.plan.cells))]
        )
        return NoViableCellError(f"no configuration can run: {shown or 'there is none to try'}")
    return InconclusiveError(
        "the budget was too short to measure any configuration; give a longer --budget"
        + (f" (failed so far: {shown})" if shown else "")
    )
