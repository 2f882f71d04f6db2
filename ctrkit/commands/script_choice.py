"""`train --auto-device` of a script: takes what a probe recommended, or probes briefly first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctrkit.commands.options import Axes
from ctrkit.commands.script_cell import ScriptChoice, choose_script_cell, recommended_for
from ctrkit.core.bystander import say
from ctrkit.core.command_line import placeholders_of
from ctrkit.core.config import ScriptSpec
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import CtrkitError, InterruptedRunError, UsageError
from ctrkit.core.runs import known_runs
from ctrkit.probe.scripts.as_written import first_values
from ctrkit.supervise.stop import handle_interrupts
from ctrkit.supervise.time_limits import TimeLimits


def choose_or_probe(
    script: ScriptSpec,
    axes: Axes,
    wanted: Mapping[str, Any],
    *,
    config: Path | None,
    auto_device: bool,
    stall_timeout_s: float | None = None,
    most_s: float = math.inf,
    quiet: bool = False,
) -> ScriptChoice:
    """Choose the requested configuration; `--auto-device` probes if no probe is known.

    Args:
        script: the script.
        axes: the axes that the user gave.
        wanted: the same, with one value each.
        config: `--config`.
        auto_device: use a probe's recommendation.
        stall_timeout_s: `--stall-timeout`, which also applies to a probe.
        most_s: the most seconds of a probe after its first launch.
        quiet: show no progress.

    Raises:
        UsageError: as `choose_script_cell`.
        InterruptedRunError: the user stopped the probe.
    """
    if not auto_device:
        return choose_script_cell(script, wanted, config, None)
    found = recommended_for(script, known_runs(), machine_fingerprint())
    if found is not None:
        return choose_script_cell(script, wanted, None, found)
    _check_before_probe(script, wanted)
    if not quiet:
        say("ctrkit: there is no probe of this command yet, so ctrkit probes it briefly first")
    # here, since a run that nothing is probed for would load all of the probe, too, to start
    from ctrkit.commands.script_probe import brief_script_probe

    try:
        with handle_interrupts(graceful=False) as stop:
            found, run = brief_script_probe(
                script, axes, stop, time_limits=TimeLimits(stall_timeout_s=stall_timeout_s),
                most_s=most_s, quiet=quiet,
            )  # fmt: skip
    except InterruptedRunError:
        raise
    except CtrkitError as error:
        return _as_written(script, wanted, str(error))
    if not quiet:
        say(f"ctrkit: ctrkit report {run} shows the probe")
    return choose_script_cell(script, wanted, None, found, "a brief probe")


def _check_before_probe(script: ScriptSpec, wanted: Mapping[str, Any]) -> None:
    """Let an impossible choice fail before the probe; a probe finds values for placeholders."""
    choose_script_cell(script, {**first_values(script, {}), **wanted}, None, None)


def _as_written(script: ScriptSpec, wanted: Mapping[str, Any], reason: str) -> ScriptChoice:
    """The choice if nothing could be measured: the script as written with the requested axes."""
    named = placeholders_of(script.command)
    try:
        choice = choose_script_cell(script, wanted, None, None)
    except UsageError as error:
        given = ", ".join(f"{{{axis}}}" for axis in named)
        raise UsageError(
            f"--auto-device: a value for {given} could not be found: {reason}; {error}"
        ) from None
    return replace(choice, why=f"{choice.why}. --auto-device found nothing better: {reason}")
