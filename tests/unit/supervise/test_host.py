"""Figures of the host, from the output of each system."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from ctrkit.supervise.host import (
    busy_cpu_s,
    read_host,
    speed_limit_of,
    throttle_count,
    vm_stat_swaps,
)

VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               13084.
Pageins:                                9999999.
Swapins:                                     10.
Swapouts:                                  1000.
"""


def test_this_host_has_figures() -> None:
    before, figures = psutil.cpu_times(), read_host()
    assert 0 < figures.available_bytes <= psutil.virtual_memory().total
    assert busy_cpu_s(before._asdict()) <= figures.busy_s
    assert figures.busy_s <= busy_cpu_s(psutil.cpu_times()._asdict())
    assert figures.swap_used_bytes is not None, "Linux and macOS both tell it"
    assert 0 <= figures.swap_used_bytes <= psutil.swap_memory().total


def test_idle_time_is_not_busy_and_a_guest_counts_once() -> None:
    times = {"user": 5.0, "system": 2.0, "steal": 1.0, "idle": 90.0, "iowait": 4.0, "guest": 3.0}
    assert busy_cpu_s(times) == 8.0


def test_swap_on_macos_is_swap_and_not_every_page() -> None:
    assert vm_stat_swaps(VM_STAT) == (10 * 16384, 1000 * 16384)
    assert vm_stat_swaps("") == (None, None)


def test_throttling_is_counted_over_all_cores(tmp_path: Path) -> None:
    assert throttle_count(tmp_path) is None
    for cpu, count in (("cpu0", "3"), ("cpu11", "4"), ("cpuidle", "100")):
        folder = tmp_path / cpu / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text(count + "\n")
    assert throttle_count(tmp_path) == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [("\tCPU_Speed_Limit \t= 62\n", 0.62), ("Note: No thermal warning level\n", None), ("", None)],
)
def test_the_speed_limit_of_macos(text: str, expected: float | None) -> None:
    assert speed_limit_of(text) == expected
