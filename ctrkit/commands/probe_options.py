"""Checks the options of a probe."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctrkit.commands.options import CommonOptions, duration_s
from ctrkit.core.errors import (
    UsageError,
)
from ctrkit.supervise.time_limits import TimeLimits

DEFAULT_BUDGET = "120s"
BRIEF_BUDGET_S = 60.0
_LEAST_BUDGET_S = 5.0


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """The options of a probe other than its workload and axes."""

    budget_s: float
    thorough: bool = False
    deadline_s: float | None = None
    run_refused: bool = False
    time_limits: TimeLimits = field(default_factory=TimeLimits)
    quiet: bool = False
    json_lines: bool = False


def read_probe_options(
    common: CommonOptions,
    budget: str,
    thorough: bool,
    deadline: str | None,
    *,
    run_refused: bool,
    quiet: bool,
    json_lines: bool = False,
) -> ProbeOptions:
    """Check the options of a probe.

    Raises:
        UsageError: a duration is invalid or too short.
    """
    budget_s = _budget_s(budget)
    limits = common.time_limits if thorough else common.time_limits.within_budget(budget_s)
    return ProbeOptions(
        budget_s=budget_s,
        thorough=thorough,
        deadline_s=duration_s("--deadline", deadline),
        run_refused=run_refused,
        time_limits=limits,
        quiet=quiet,
        json_lines=json_lines,
    )


def _budget_s(text: str) -> float:
    budget_s = duration_s("--budget", text)
    assert budget_s is not None, "it has a default"
    if budget_s < _LEAST_BUDGET_S:
        raise UsageError(f"--budget {text}: is too short to start anything; give at least 5s")
    return budget_s
