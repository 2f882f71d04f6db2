"""The cells of a script: as written first, then every axis that can be varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ctrkit.core.child_records import Inspection
from ctrkit.core.command_line import placeholders_of
from ctrkit.core.config import Cell, ScriptSpec
from ctrkit.core.script_records import ScriptSeen
from ctrkit.probe.hazards.facts import HazardFacts
from ctrkit.probe.matrix import MatrixPlan, build_matrix
from ctrkit.probe.scripts.as_written import train_loader_of

#: Start methods that import the script again in each worker.
_IMPORTING = ("spawn", "forkserver")


def script_matrix(
    script: ScriptSpec,
    seen: ScriptSeen,
    as_written: Cell,
    inspection: Inspection,
    axes: Mapping[str, Sequence[Any]],
    *,
    run_refused: bool = False,
    facts: HazardFacts | None = None,
) -> MatrixPlan:
    """The cells to try for a script; the first is the script as written.

    Args:
        script: the script.
        seen: what its first launch showed.
        as_written: its own configuration.
        inspection: inspection made from the same launch.
        axes: values named on the command line; other axes except workers keep the script's value.
        run_refused: also try what a rule refuses.
        facts: facts for the hazard rules.
    """
    named = placeholders_of(script.command)
    own = as_written.start_method or seen.default_start_method
    defaults: dict[str, tuple[Any, ...]] = {
        "device": (as_written.device,),
        "batch_size": (as_written.batch_size,),
        "pin": (as_written.pin,),
        "threads": (as_written.threads,),
        "nproc": (as_written.nproc,),
        **({"start_method": (own,)} if own else {}),
        **({"prefetch": (as_written.prefetch,)} if as_written.prefetch else {}),
    }
    if as_written.device == "cuda":  # as written first, then what usually matters on CUDA
        defaults["pin"] = (as_written.pin, not as_written.pin)
        defaults["prefetch"] = tuple(dict.fromkeys((as_written.prefetch or 2, 2, 4)))
    if "device" in named:
        defaults["device"] = tuple(seen.devices) or (as_written.device,)
        loader = train_loader_of(seen)
        if loader is not None and loader.pin:
            defaults["pin"] = (True, False)  # only the cells on CUDA can have it
    plan = build_matrix(
        inspection, axes, run_refused=run_refused, facts=facts, defaults=defaults,
        ranks=1 if "nproc" in named else max(seen.ranks, seen.trainers),
    )  # fmt: skip
    reasons = {cell: "" if run_refused else refusal_of(cell, seen, as_written)
               for cell in plan.cells}  # fmt: skip
    cells = [cell for cell, why in reasons.items() if not why]
    return replace(
        plan,
        cells=tuple(dict.fromkeys((as_written, *cells))),
        if_waiting=tuple(c for c in plan.if_waiting if not refusal_of(c, seen, as_written)),
        refused=(
            *((cell, why) for cell, why in plan.refused if cell != as_written),
            *((cell, why) for cell, why in reasons.items() if why),
        ),
        baseline=as_written,
    )


def refusal_of(cell: Cell, seen: ScriptSeen, as_written: Cell) -> str:
    """Why the script cannot run in this cell; empty if it may.

    Its own configuration is never refused, since it runs.
    """
    loader = train_loader_of(seen)
    if cell == as_written or loader is None or not cell.workers:
        return ""
    if loader.iterable and loader.shares_out is not True and cell.workers > 1:
        return (
            f"{loader.dataset} is an iterable data set that does not ask get_worker_info: each of "
            f"{cell.workers} workers would yield all of its rows"
        )
    if cell.start_method in _IMPORTING and loader.unpicklable:
        return f"{cell.start_method} must send the data set to its workers: {loader.unpicklable}"
    if cell.start_method in _IMPORTING and seen.main_guard is False:
        return (
            f"{cell.start_method} imports the script in each worker, and it starts training on "
            'import: put that under if __name__ == "__main__":'
        )
    return ""
