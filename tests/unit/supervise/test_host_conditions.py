"""Findings on the host: each from its figures, none from a quiet one; readings of this host."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from ctrkit.core.environment import usable_cpus
from ctrkit.supervise.host import HostFigures, busy_cpu_s, cpu_times, starved_s
from ctrkit.supervise.host_conditions import (
    HostLook,
    Power,
    folder_bytes,
    host_findings,
    look_at_host,
    read_power,
    unknowns,
)

FIGURES = HostFigures(
    busy_s=100.0, available_bytes=8 * 10**9, swap_used_bytes=0, swapped_in_bytes=0,
    swapped_out_bytes=0, temperature_c=50.0, throttles=3, speed_limit=None, stolen_s=1.0,
    starved_s=2.0,
)  # fmt: skip
GB16 = 16 * 10**9
HALF_OF_ALL = 50.0 * usable_cpus()


def stages(
    *, own_cpu_s: float = 100.0, power: Power | None = None, slept: bool = False,
    data_bytes: int | None = None, **changes: Any,
) -> list[str]:  # fmt: skip
    """Findings after 100 s in which 100 CPU seconds were used, but for what is changed."""
    begin = HostLook(at_s=0.0, host=FIGURES, own_cpu_s=5.0)
    after = dataclasses.replace(FIGURES, **({"busy_s": 200.0} | changes))
    end = HostLook(at_s=100.0, host=after, own_cpu_s=5.0 + own_cpu_s)
    found = host_findings(
        begin, end, power or Power(), slept=slept, data_bytes=data_bytes, memory_bytes=GB16
    )
    assert all(finding.share is None and finding.confidence for finding in found)
    return [finding.stage for finding in found]


def test_a_quiet_host_is_not_worth_a_word() -> None:
    assert stages() == []
    assert stages(own_cpu_s=60.0) == [], "0.4 cores of others are always there"


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"own_cpu_s": 20.0}, "other processes"),
        ({"busy_s": 200.0 + HALF_OF_ALL, "stolen_s": 1.0 + HALF_OF_ALL}, "stolen CPU"),
        ({"swapped_out_bytes": 10**9}, "swapping"),
        ({"available_bytes": 5 * 10**8}, "memory pressure"),
        ({"starved_s": 12.0}, "memory pressure"),
        ({"power": Power(memory_pressure=4)}, "memory pressure"),
        ({"throttles": 9}, "throttling"),
        ({"speed_limit": 0.6}, "throttling"),
        ({"power": Power(frequency_share=0.5)}, "low power"),
        ({"power": Power(low_power=True, on_battery=True)}, "low power"),
        ({"power": Power(on_battery=True)}, "battery"),
        ({"slept": True}, "sleep"),
        ({"data_bytes": 7 * 10**9}, "page cache"),
    ],
)  # fmt: skip
def test_each_condition_is_found_alone(changes: dict[str, Any], stage: str) -> None:
    assert stages(**changes) == [stage]


@pytest.mark.parametrize(
    "changes",
    [
        {"swapped_in_bytes": None, "swapped_out_bytes": None, "throttles": None},
        {"stolen_s": None, "starved_s": None},
        {"swapped_out_bytes": 10**7},
        {"data_bytes": 10**9},
        {"power": Power(low_power=False, on_battery=False, frequency_share=1.0, memory_pressure=1)},
    ],
)
def test_what_is_not_told_or_small_is_not_found(changes: dict[str, Any]) -> None:
    assert stages(**changes) == []


def test_this_host_can_be_looked_at() -> None:
    begin, end = look_at_host(), look_at_host()
    assert end.at_s >= begin.at_s
    assert end.own_cpu_s >= begin.own_cpu_s > 0
    assert isinstance(read_power(), Power)


def test_power_on_linux_is_read_from_files(tmp_path: Path) -> None:
    assert read_power(root=tmp_path, system="linux").frequency_share is None
    for core, limit in ((0, 2_000_000), (1, 1_000_000)):
        folder = tmp_path / f"devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_max_freq").write_text(f"{limit}\n")
        (folder / "cpuinfo_max_freq").write_text("4000000\n")
    (tmp_path / "firmware/acpi").mkdir(parents=True)
    (tmp_path / "firmware/acpi/platform_profile").write_text("low-power\n")
    found = read_power(root=tmp_path, system="linux")
    assert (found.frequency_share, found.low_power) == (0.25, True)


@pytest.mark.parametrize(("said", "low"), [(" lowpowermode         1\n", True), ("nothing", None)])
def test_power_on_macos_is_what_pmset_says(said: str, low: bool | None) -> None:
    answers = {"pmset": said, "sysctl": "2\n" if low else ""}
    found = read_power(lambda command: answers[command[0]], system="darwin")
    assert (found.low_power, found.memory_pressure) == (low, 2 if low else None)


def test_memory_stalls_are_read_from_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_text("some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0 total=1\n")
    assert starved_s(path) == 2.5
    assert starved_s(tmp_path / "none") is None


def test_a_folder_weighs_its_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_bytes(bytes(10))
    (tmp_path / "b").write_bytes(bytes(5))
    assert folder_bytes(tmp_path) == 15
    assert psutil.virtual_memory().total > 15


def test_what_a_probe_cannot_know_is_said_with_how_sure_it_is() -> None:
    sure = unknowns(wall_s=90.0, launches=3, flags=[], epoch_s=3600.0)
    assert sure.confidence == "high"
    assert "a probe of 1 min 30 s" in sure.text
    assert "throttling" in sure.text
    assert "steps" not in sure.text
    seen = unknowns(wall_s=90.0, launches=3, flags=[], epoch_s=3600.0, steps=180)
    assert "less often than once in 60 steps" in seen.text
    assert unknowns(wall_s=9.0, launches=2, flags=["drift"], epoch_s=None).confidence == "medium"
    assert unknowns(wall_s=9.0, launches=1, flags=[], epoch_s=None).confidence == "low"


def test_only_the_cores_that_may_be_used_count(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  1110 0 0 5000 0 0 0 0 0 0\n"
        "cpu0 10 0 0 1000 0 0 0 0 0 0\ncpu1 100 0 0 1000 0 0 0 5 0 0\n"
        "cpu7 1000 0 0 3000 0 0 0 0 0 0\nintr 5\n"
    )
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    assert busy_cpu_s(cpu_times(stat, {0, 1})) == pytest.approx(115 * tick_s)
    assert cpu_times(stat, {1})["steal"] == pytest.approx(5 * tick_s)
    assert cpu_times(stat, {7})["user"] == pytest.approx(1000 * tick_s)  # others are offline
    whole = cpu_times(stat, {0, 1, 7})  # then the system's own sum
    assert whole["user"] == pytest.approx(psutil.cpu_times().user, rel=0.1)
