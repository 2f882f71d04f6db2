"""Says in one sentence why a cell is recommended, or why none is."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.child_records import Inspection
from ctrkit.core.errors import CtrkitError, InconclusiveError, NoViableCellError, UsageError
from ctrkit.core.units import format_count
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.cell_failures import failure_words
from ctrkit.probe.fitting_batch import fitting_options
from ctrkit.probe.search import SearchResult
from ctrkit.probe.state import NOT_CHOSEN

_MOST_REASONS = 6
LAST_RESORT = "no trial came to its end within the budget; of this cell a step was measured"
BATCH_WORDS = "convergence at another batch size was not measured"


def reason_for(
    chosen: Candidate,
    ranked: Sequence[Candidate],
    tied: Sequence[Candidate],
    search: SearchResult,
    inspection: Inspection,
) -> str:
    """Why this cell is recommended, in one sentence."""
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
    elif written := next((c for c in tied if c.cell == search.plan.baseline), None):
        text = (
            f"seemed {written.objective / chosen.objective:.2f}x as fast as the script as written, "
            "but their launches scatter too much to be sure: a longer --budget would tell"
        )
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
        text += f" (batch {chosen.cell.batch_size}: {BATCH_WORDS})"
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
    """Why a script is best left as written, or why nothing better is known."""
    if tied:
        *first, last = [c.cell.name for c in tied]
        names = f"{', '.join(first)} and {last}" if first else last
        are = "is" if len(tied) == 1 else "are"
        return f"as written: no gain is proven; {names} {are} not measurably different"
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
    """Why a script is left as written if nothing else ran to its end, and what to do."""
    others = [cell for cell in search.plan.cells if cell != chosen.cell]
    failed = sum(bool(failure_words(cell, search.trials)) for cell in others)
    if failed == len(others):
        return "as written: every other configuration failed"
    skipped = [r.reason for r in search.records if r.kind == "full" and r.verdict == "skipped"]
    if skipped and all(reason == NOT_CHOSEN for reason in skipped) and predicted == 0:
        return "as written: nothing says that another configuration is faster, so none was run"
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
    are = "is" if predicted == 1 < len(others) else "are"
    none = "the probe was interrupted" if search.interrupted else "none was run to its end"
    return f"as written: {which} {are} predicted to be no faster; {none}"


def _epoch_too_short(search: SearchResult) -> str:
    """Why an epoch that ended before any step was measured gives no answer; "" if none did.

    The length decides how many batches warm up, so one that is far too large leaves none to time.
    """
    whole = [
        (trial, trial.result.measurement)
        for trial in search.trials
        if trial.result.measurement is not None and trial.result.measurement.epoch_complete
    ]
    if not whole or any(trial.ok for trial in search.trials):
        return ""
    batches = max(found.epoch_batches for _, found in whole)
    claims = {found.sizes.train_batches for _, found in whole if found.sizes is not None}
    claim = next((claim for claim in claims if claim is not None and claim > batches), None)
    said = f", but its length is said to be {format_count(claim)}" if claim is not None else ""
    way = "let its len() be the number of batches, or " if claim is not None else ""
    return (
        f"an epoch has only {format_count(batches)} batch{'es' * (batches > 1)}{said}, and ended"
        f" before a step was measured; {way}make more batches, for example with a"
        " smaller --batch-size"
    )


def nothing_to_recommend(search: SearchResult) -> CtrkitError:
    """The error if nothing can be recommended.

    Exit code 4 if every cell failed or was refused; 3 if a cell had no time; 2 for bad input that
    fails in every cell, as if it had been found before any trial.
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
        cell.cell_id in refused or failure_words(cell, search.trials) for cell in search.plan.cells
    ):
        # alternatives come first, because a long list of failures is cut off when it is shown
        fitting = [one.text for one in fitting_options(search.trials, search.plan.cells)]
        words = "; ".join([*fitting, shown]) or "there is none to try"
        return NoViableCellError(f"no configuration can run: {words}")
    short = _epoch_too_short(search)
    if short:
        return InconclusiveError(short)
    return InconclusiveError(
        "the budget was too short to measure any configuration; give a longer --budget"
        + (f" (failed so far: {shown})" if shown else "")
    )
