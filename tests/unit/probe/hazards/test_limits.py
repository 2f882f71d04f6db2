"""The real limits of this machine."""

from __future__ import annotations

from ctrkit.probe.hazards.limits import read_limits


def test_this_machine_has_memory_cores_and_a_default_start_method():
    limits = read_limits()
    assert limits.memory_bytes is not None
    assert limits.memory_bytes > 0
    assert limits.cores is not None
    assert limits.cores >= 1
    assert limits.start_method in limits.start_methods
    assert limits.python_version >= (3, 11)
    assert limits.system in ("Linux", "Darwin")
    assert (limits.shm_bytes is None) == (limits.system == "Darwin")
