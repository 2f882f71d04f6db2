"""Finds the largest batch that fits into a device's memory, if the run's own does not fit.

It is only offered, and never chosen: another batch size is another experiment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ctrkit.core.config import Cell
from ctrkit.core.records import Option
from ctrkit.core.units import format_bytes, format_count
from ctrkit.probe.trials import Trial, TrialResult

#: Words in a verdict's reason if the device's memory ran out, not the host's.
_OF_DEVICE = re.compile(r"the device has no memory left")
#: The most launches for this search, per device.
MOST_TRIES = 5


def next_batch(tried: Mapping[int, bool]) -> int | None:
    """The batch size to try next; None if the limit is known well enough.

    It halves until one fits; then it tries once the middle between that and the smallest that did
    not.

    Args:
        tried: whether each tried size fits; at least one did not.
    """
    failed = min(size for size, fits in tried.items() if not fits)
    fitting = max((size for size, fits in tried.items() if fits), default=0)
    if len(tried) > MOST_TRIES:
        return None
    if not fitting:
        return failed // 2 or None
    middle = (fitting + failed) // 2
    return middle if failed >= 2 * fitting and middle > fitting else None


def tried_sizes(device: str, trials: Sequence[Trial]) -> dict[int, bool]:
    """Tried batch sizes of a device, and whether each fits; empty if none ran out of memory."""
    found: dict[int, bool] = {}
    for trial in trials:
        if trial.cell.device != device or trial.request.kind == "loader":
            continue
        size = trial.cell.batch_size
        if ran_out(trial):
            found[size] = False
        elif trial.usable or (
            trial.result.measurement is not None and trial.result.verdict == "ok"
        ):
            found.setdefault(size, True)
    return found if False in found.values() else {}


def ran_out(trial: Trial) -> bool:
    """Whether a trial ran out of its device's memory."""
    return device_is_full(trial.result)


def device_is_full(result: TrialResult) -> bool:
    """Whether a launch ran out of its device's memory."""
    return result.verdict == "out-of-memory" and bool(_OF_DEVICE.search(result.reason))


def fitting_options(trials: Sequence[Trial], cells: Sequence[Cell]) -> list[Option]:
    """Options with a batch that fits, for each device on which a cell's batch does not."""
    found = []
    for device in dict.fromkeys(cell.device for cell in cells):
        tried = tried_sizes(device, trials)
        fitting = [size for size, fits in tried.items() if fits]
        if not tried or not fitting:
            continue
        most, failed = max(fitting), min(size for size, fits in tried.items() if not fits)
        text = (
            f"batch {format_count(most)} fits into the memory of {device}"
            f"{_taken(device, most, trials)}, and {format_count(failed)} does not "
            f"(--device {device} --batch-size {most}): another batch size is another experiment"
        )
        found.append(Option(text=text, projected_total_s=None))
    return found


def _taken(device: str, size: int, trials: Sequence[Trial]) -> str:
    """Its peak memory as ` (9.1 GB)`; empty if unknown."""
    peaks = [
        t.result.measurement.peak_device_bytes or 0
        for t in trials
        if (t.cell.device, t.cell.batch_size) == (device, size) and t.result.measurement is not None
    ]
    return f" ({format_bytes(max(peaks))})" if any(peaks) else ""
