"""Findings on the recommended cell: what limits it, and how sure its projection is."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.child_records import Inspection
from ctrkit.core.config import Cell
from ctrkit.core.environment import physical_cores
from ctrkit.core.records import Finding
from ctrkit.measure.busy_workers import computing_finding, threads_finding
from ctrkit.measure.cores import core_findings, waiting_finding
from ctrkit.measure.diagnosis import Ceilings, diagnose
from ctrkit.measure.memory_growth import memory_finding
from ctrkit.measure.steps import mean_step_s
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.cell_failures import failure_words
from ctrkit.probe.device_comparison import device_finding
from ctrkit.probe.epoch_findings import batch_size_finding, epoch_findings, one_epoch_finding
from ctrkit.probe.known_workers import leeway_of
from ctrkit.probe.loss_findings import bad_loss_finding
from ctrkit.probe.memory_needs import batch_memory_finding
from ctrkit.probe.reasons import BATCH_WORDS
from ctrkit.probe.search import SearchResult


def findings(
    chosen: Candidate, search: SearchResult, inspection: Inspection, other_cores: float | None = 0.0
) -> list[Finding]:
    """Findings on what limits the chosen cell's step, and on its projection."""
    alone, loader = search.compute(chosen.cell), search.loader(chosen.cell)
    ceilings = Ceilings(
        compute_step_s=mean_step_s(alone) if alone else None,
        loader_step_s=mean_step_s(loader) if loader else None,
    )
    leeway = leeway_of(chosen, search, inspection, other_cores)
    launches = search.launches(chosen.cell)
    found = diagnose(
        chosen.cell,
        launches,
        ceilings,
        also=[alone] if alone else [],
        has_task=inspection.has_task,
        projection=chosen.projection,
        leeway=leeway,
    )
    if bad := bad_loss_finding(chosen.cell, search.trials):
        found.append(bad)
    cores = max(1, physical_cores() // search.plan.ranks)
    if growth := _memory_growth(chosen, search):
        found.append(growth)
    if inspection.has_task:
        found += core_findings(chosen.cell, launches, cores)
    if waiting := waiting_finding(chosen.cell, launches, cores, leeway):
        found.append(waiting)
    elif computing := computing_finding(chosen.cell, launches, cores):
        found.append(computing)
    if threads := threads_finding(chosen.cell, launches):
        found.append(threads)
    if any(t.ok and t.result.verdict == "shutdown-hang" for t in search.full_trials(chosen.cell)):
        found.append(_never_ends())
    found = _of_the_epoch(chosen, search, inspection, found)
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


def _of_the_epoch(
    chosen: Candidate, search: SearchResult, inspection: Inspection, found: Sequence[Finding]
) -> list[Finding]:
    """These findings plus those on the epoch and its projection, the most important first."""
    launches, sizes = search.launches(chosen.cell), inspection.sizes
    about = epoch_findings(chosen.cell, launches, chosen.projection, search.trials, inspection)
    if chosen.projection is None and not about and chosen.cell.loader != "none":
        about = [_unknown_length()]
    if chosen.projection is not None and chosen.projection.run is None:
        about = [_unknown_epochs(), *about]
    other = batch_size_finding(chosen.cell, launches, inspection)
    once = one_epoch_finding(launches, sizes.epochs if sizes is not None else None)
    first = [one for one in (once, other) if one is not None]
    return [*first, *found, *about]


def device_findings(
    chosen: Cell, candidates: Sequence[Candidate], search: SearchResult
) -> list[Finding]:
    """Findings on how the devices compare, if there were several."""
    of_device: dict[str, list[Cell]] = {}
    for cell in search.plan.cells:
        of_device.setdefault(cell.device, []).append(cell)
    failed = [
        device
        for device, cells in of_device.items()
        if all(failure_words(cell, search.trials) for cell in cells)
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
        text=f"batch sizes are compared by the projected time of the run only: {BATCH_WORDS}",
        confidence="high",
    )
