"""Requests a script's first launch, and finds the largest batch that fits if its own does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ctrkit.core.config import WindowPlan, make_cell
from ctrkit.core.units import format_count
from ctrkit.probe.fitting_batch import next_batch
from ctrkit.probe.scripts.as_written import SCRIPT_LOADER
from ctrkit.probe.trials import TrialRequest

_FIRST_WINDOW_S = 8.0


def first_request(values: Mapping[str, Any], label: str = "the script as written") -> TrialRequest:
    """A request to run the script as it is, with these values for its command's placeholders."""
    cell = make_cell("the script as written", loader=SCRIPT_LOADER, **values)
    return TrialRequest(
        kind="full", cell=cell, windows=WindowPlan(window_s=_FIRST_WINDOW_S), label=label
    )


def fitting_batch_words(failed: int, fits: Callable[[int], bool | None]) -> str:
    """The largest batch that fits, in words that offer it; empty if none was found.

    Args:
        failed: the batch size that does not fit.
        fits: launches the script with a batch size and returns whether it trains; None ends the
            search.
    """
    tried = {failed: False}
    while (size := next_batch(tried)) is not None:
        found = fits(size)
        if found is None:
            break
        tried[size] = found
    fitting = [size for size, is_fit in tried.items() if is_fit]
    if not fitting:
        return ""
    most, least = max(fitting), min(size for size, is_fit in tried.items() if not is_fit)
    return (
        f"; batch {format_count(most)} fits, and {format_count(least)} does not "
        f"(--batch-size {most}): another batch size is another experiment"
    )
