"""Finds how much launches differed in earlier runs on this machine, for a new probe."""

from __future__ import annotations

from dataclasses import replace

from ctrkit.core.calibration import pairs_of, read_calibration
from ctrkit.core.child_records import Inspection
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.launch_spread import learned_spread


def with_launch_spread(inspection: Inspection) -> Inspection:
    """The inspection with the spread between launches, if earlier runs have shown it.

    An unreadable calibration file is ignored here; `ctrkit report --calibration` says what is
    wrong.
    """
    try:
        rows = read_calibration()
    except UsageError:
        rows = []
    pairs = pairs_of(rows, machine_fingerprint(), inspection.workload_fingerprint)
    return replace(inspection, launch_spread=learned_spread(pairs))
