"""Makes the cells of a probe from options and defaults, and sets invalid combinations apart."""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from typing import Any

from ctrkit.core.axes import Surroundings
from ctrkit.core.cell import (
    AXES,
    CELL_AXES,
    WITHOUT_ANY_WORKERS,
    WITHOUT_WORKERS,
    Cell,
    make_cell,
)
from ctrkit.core.checkup import MachineLimits
from ctrkit.core.child_records import Inspection
from ctrkit.core.environment import (
    all_cores,
    performance_cores,
    physical_cores,
    usable_cores,
)
from ctrkit.core.errors import UsageError
from ctrkit.probe.hazards.facts import HazardFacts, known_facts
from ctrkit.probe.hazards.rules import refusal, warning_lines

_MOST_WAITING_WORKERS = 64


@dataclass(frozen=True, kw_only=True)
class MatrixPlan:
    """The cells to probe, in a stable order, and the refused ones with reasons.

    Attributes:
        if_waiting: cells with more workers than cores; they count only if their loader is found to
            wait for a disk or a network.
        notes: lines on what was asked for.
        warnings: lines on the cells' hazards.
        limits: free resources of the machine; None to try cells that would not fit as well.
        baseline: the cell that others are compared with: a script as written.
        own: which defaults of the user's function were kept.
        ranks: processes of a script that train and share the cores, each with workers of its own.
    """

    cells: tuple[Cell, ...]
    if_waiting: tuple[Cell, ...] = ()
    refused: tuple[tuple[Cell, str], ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    limits: MachineLimits | None = None
    baseline: Cell | None = None
    own: str = ""
    ranks: int = 1

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batch sizes of the cells; several only if the user asked for them."""
        return tuple(sorted({cell.batch_size for cell in self.cells}))


def build_matrix(
    inspection: Inspection,
    axes: Mapping[str, Sequence[Any]] | None = None,
    *,
    run_refused: bool = False,
    cores: int | None = None,
    system: str | None = None,
    facts: HazardFacts | None = None,
    defaults: Mapping[str, tuple[Any, ...]] | None = None,
    ranks: int = 1,
) -> MatrixPlan:
    """Make the matrix of a workload on this machine.

    Args:
        inspection: the available devices, loaders and axes.
        axes: the values of each axis named on the command line: exactly the set of cells. `device`
            may contain `auto`. A value that fits no cell becomes a refused row.
        run_refused: also run cells that a hazard rule refuses.
        cores: physical cores; this machine's if left out.
        system: `platform.system()`; this machine's if left out.
        facts: facts for the hazard rules; without them, the machine's limits are unknown.
        defaults: values for axes that the user did not name, instead of the usual ones.
        ranks: processes of a script that train and share the cores.

    Raises:
        UsageError: a value is unknown or out of range, or a device is not available here.
    """
    asked = {axis: tuple(values) for axis, values in (axes or {}).items() if values}
    own = own_values(inspection)
    cores = cores or physical_cores()
    if "auto" in asked.get("device", ()):
        own.pop("device", None)
        asked |= _with_auto(asked.pop("device"), _defaults(inspection, cores, "cpu")["device"])
    _check(asked, inspection)
    applied, notes = _applied(asked, inspection)
    kept = own_note(inspection, own.keys() - applied.keys())
    said = own | applied
    usual = dict(defaults or {}) | said
    if "workers" in said and "persistent" not in said:
        usual["persistent"] = (False,)  # named worker counts are cells of one kind
    devices = usual.get("device") or _defaults(inspection, cores, "cpu")["device"]
    values = [
        _defaults(inspection, cores, device, ranks) | usual | {"device": (device,)}
        for device in devices
    ]
    cells, invalid = _combined(values, said)
    unheeded = inspection.unheeded
    beyond: Sequence[Cell] = ()
    # a loader held back by a quota below one core would look like one that waits
    if "workers" in inspection.axes and "workers" not in said and usable_cores() >= 1:
        more = {"workers": waiting_workers(max(1, cores // ranks))}
        beyond = list(_combined([of_device | more for of_device in values], said)[0])
    refused = _unmet(applied, cells, invalid)
    known = facts or known_facts(inspection, MachineLimits(system=system or platform.system()))
    if not run_refused:
        _refuse_hazards(cells, refused, known, said)
        beyond = [cell for cell in beyond if refusal(cell, known) is None]
    return MatrixPlan(
        cells=tuple(replace(cell, unheeded=unheeded) for cell in cells),
        if_waiting=tuple(replace(cell, unheeded=unheeded) for cell in beyond),
        refused=tuple((replace(cell, unheeded=unheeded), why) for cell, why in refused.items()),
        notes=(*notes, *([kept] if kept else ())),
        own=kept,
        warnings=warning_lines(tuple(cells), known),
        limits=None if run_refused else known.limits,
        ranks=ranks,
    )


def _combined(
    values: Sequence[Mapping[str, tuple[Any, ...]]], said: Mapping[str, tuple[Any, ...]]
) -> tuple[dict[Cell, None], dict[Cell, str]]:
    """All valid cells of each device's values, and the invalid ones with reasons."""
    cells: dict[Cell, None] = {}
    invalid: dict[Cell, str] = {}
    for combination in chain.from_iterable(
        product(*(of_device[axis] for axis in CELL_AXES)) for of_device in values
    ):
        chosen = dict(zip(CELL_AXES, combination, strict=True))
        if "threads" not in said:  # divide the cores among the processes
            chosen["threads"] = max(1, chosen["threads"] // chosen["nproc"])
        reason = _invalid(chosen)
        if reason is None:
            cells.setdefault(_cell(chosen))
        else:
            invalid.setdefault(_cell(chosen), reason)
    return cells, invalid


def _refuse_hazards(
    cells: dict[Cell, None], refused: dict[Cell, str], facts: HazardFacts, said: Collection[str]
) -> None:
    """Move the cells that a hazard rule refuses to `refused`, each once for those alike."""
    for cell in list(cells):
        hazard = refusal(cell, facts)
        if hazard is not None:
            del cells[cell]
            if not any(_is_same_but_unnamed(cell, other, said) for other in refused):
                refused[cell] = hazard.reason


def _is_same_but_unnamed(cell: Cell, other: Cell, said: Collection[str]) -> bool:
    """Whether two cells differ only in how copies are tuned, which the user did not ask about."""
    tuned = {axis: getattr(other, axis) for axis in ("pin", "prefetch") if axis not in said}
    return replace(cell, **tuned) == other


def waiting_workers(cores: int) -> tuple[int, ...]:
    """Worker counts beyond the cores, for loaders that wait for something else."""
    counts = {min(factor * cores, _MOST_WAITING_WORKERS) for factor in (2, 4)}
    return tuple(sorted(count for count in counts if count > cores))


def _defaults(
    inspection: Inspection, cores: int, device: str, ranks: int = 1
) -> dict[str, tuple[Any, ...]]:
    """The values to try on a device if the user asked for nothing.

    An axis that the workload does not take has a single value.
    """
    varies = _varying_axes(inspection)
    around = Surroundings(
        devices=tuple(inspection.devices) if "device" in varies else ("cpu",),
        loaders=tuple(inspection.loaders),
        batch_size=inspection.default_batch_size,
        cores=cores,
        usable_cores=usable_cores(),
        all_cores=all_cores() if performance_cores() is not None else cores,
        device=device,
        ranks=ranks,
    )
    return {
        name: row.tried(around) if name in varies else row.tried(around)[:1]
        for name, row in AXES.items()
    }


def own_values(inspection: Inspection) -> dict[str, tuple[Any, ...]]:
    """The defaults of a user's own function, for axes that the user does not name."""
    own = {axis: (value,) for axis, value in inspection.own_defaults.items()}
    if "device" in own and own["device"][0] not in inspection.devices:
        del own["device"]
    return own


def own_note(inspection: Inspection, kept: Collection[str]) -> str:
    """A line on axes that keep the user's function's values; empty if there are none."""
    own = inspection.own_defaults
    words = [f"{AXES[axis].option} {str(own[axis]).lower()}" for axis in own if axis in kept]
    if not words:
        return ""
    return (
        f"{inspection.workload_name} is called with its own defaults ({', '.join(words)}); name "
        "an option to try other values, e.g. --workers 0,2,4"
    )


def _varying_axes(inspection: Inspection) -> set[str]:
    """Axes that this workload takes; `loader` if it has several."""
    return {*inspection.axes, "loader"}


def _applied(
    asked: Mapping[str, tuple[Any, ...]], inspection: Inspection
) -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """The requested values on axes that the workload takes, and a note on each other one."""
    varies = _varying_axes(inspection)
    applied, notes = {}, []
    for axis, values in asked.items():
        if axis in varies or axis == "threads":  # the child always sets torch's threads
            applied[axis] = tuple(dict.fromkeys(values))
        else:
            option = AXES[axis].option
            notes.append(f"{option} is ignored: {inspection.workload_name} does not take it")
    return applied, notes


def _invalid(chosen: Mapping[str, Any]) -> str | None:
    """Why these values make no cell; None if they do."""
    if chosen["workers"] > 0 and chosen["loader"] in WITHOUT_WORKERS:
        return f"the {chosen['loader']} loader has no worker processes"
    if chosen["pin"] and chosen["loader"] == "resident":
        return "the resident loader makes its batches on the device: there is nothing to copy"
    problems = (AXES[name].device_problem(chosen[name], chosen["device"]) for name in AXES)
    return next(filter(None, problems), None)


def _cell(chosen: Mapping[str, Any]) -> Cell:
    """The cell of valid values; without workers, axes of workers are left out."""
    axes = dict(chosen)
    if not axes["workers"]:
        axes |= WITHOUT_ANY_WORKERS
    return make_cell("matrix", **axes)


def _unmet(
    asked: Mapping[str, tuple[Any, ...]], cells: Mapping[Cell, None], invalid: Mapping[Cell, str]
) -> dict[Cell, str]:
    """A refused row for each requested value that no valid cell has."""
    refused: dict[Cell, str] = {}
    for axis, values in asked.items():
        for value in values:
            if any(getattr(cell, axis) == value for cell in cells):
                continue
            bearer = next((cell for cell in invalid if getattr(cell, axis) == value), None)
            if bearer is not None:
                refused[bearer] = invalid[bearer]
            elif AXES[axis].of_workers and cells and value is not False:
                bearer = replace(next(iter(cells)), **{axis: value})
                refused[bearer] = (
                    f"{AXES[axis].option} {value} needs workers, but no configuration has any"
                )
    return refused


def _with_auto(named: Sequence[str], found: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The axis `device` with `auto` replaced by the devices found here.

    Empty if `auto` stands alone: then the devices are those of a probe that names none.
    """
    if tuple(named) == ("auto",):
        return {}
    devices = [each for name in named for each in (found if name == "auto" else (name,))]
    return {"device": tuple(dict.fromkeys(devices))}


def _check(asked: Mapping[str, tuple[Any, ...]], inspection: Inspection) -> None:
    """Check each value by itself, before any combination.

    Raises:
        UsageError: it is unknown, out of range, or not available here.
    """
    for axis, values in asked.items():
        if axis not in AXES:
            raise UsageError(f"unknown axis '{axis}'; known are {', '.join(AXES)}")
        for value in values:
            if problem := AXES[axis].problem(value, ""):
                raise UsageError(f"{AXES[axis].option}: {problem}")
    for axis, there, where in (
        ("device", inspection.devices, "on this machine"),
        ("loader", inspection.loaders, f"for the workload {inspection.workload_name}"),
        ("start_method", multiprocessing.get_all_start_methods(), "on this system"),
    ):
        for value in asked.get(axis, ()):
            if value not in there:
                raise UsageError(
                    f"{AXES[axis].option} {value}: not available {where}; "
                    f"available: {', '.join(there)}"
                )
