from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctrkit.supervise.memory_kills import KillCounters

LINES = {
    1: "9:name=systemd:/\n4:memory:/{group}\n0::/\n",
    2: "0::/{group}\n",
}


def place(tmp_path: Path, version: int, group: str, kills: int) -> Path:
    """Process 7 in this group; the file of its counter."""
    proc = tmp_path / "proc" / "7"
    proc.mkdir(parents=True, exist_ok=True)
    (proc / "cgroup").write_text(LINES[version].format(group=group))
    root = tmp_path / "cgroup" / ("memory" if version == 1 else "")
    file = root / group / ("memory.oom_control" if version == 1 else "memory.events")
    file.parent.mkdir(parents=True, exist_ok=True)
    os.utime(file.parent)
    write(file, kills)
    return file


def write(file: Path, kills: int) -> None:
    file.write_text(f"oom_kill_disable 0\noom 9\noom_kill {kills}\noom_group_kill 9\n")


def counters(tmp_path: Path) -> KillCounters:
    return KillCounters(root=tmp_path / "cgroup", proc=tmp_path / "proc")


@pytest.mark.parametrize("version", [1, 2])
def test_only_kills_since_the_group_was_first_seen_count(tmp_path: Path, version: int) -> None:
    file = place(tmp_path, version, "jobs/a", kills=4)
    found = counters(tmp_path)
    found._began_s += 3600  # the group is older than the family
    found.watch([7, 8])
    assert found.kills() == 0
    write(file, 5)
    found.read()
    assert found.kills() == 1
    file.unlink()  # the group is gone: what it said last stays
    found.read()
    assert found.kills() == 1


@pytest.mark.parametrize("version", [1, 2])
def test_all_kills_of_a_group_that_the_family_made_count(tmp_path: Path, version: int) -> None:
    found = counters(tmp_path)
    found._began_s -= 3600
    place(tmp_path, version, "jobs/new", kills=1)
    found.watch([7])
    assert found.kills() == 1


def test_in_a_container_the_root_is_the_group(tmp_path: Path) -> None:
    found = counters(tmp_path)
    file = place(tmp_path, 2, "", kills=0)
    (tmp_path / "proc" / "7" / "cgroup").write_text("0::/seen/from/outside\n")
    found.watch([7])
    write(file, 1)
    found.read()
    assert found.kills() == 1


def test_a_kill_in_a_group_that_nobody_saw_counts_above_for_a_while(tmp_path: Path) -> None:
    now = 0.0
    above = place(tmp_path, 2, "jobs", kills=3)
    place(tmp_path, 2, "jobs/a", kills=0)
    found = KillCounters(tmp_path / "cgroup", tmp_path / "proc", clock=lambda: now)
    found.watch([7])
    assert found.kills() == 0
    write(above, 4)  # a worker went into jobs/b, and was killed there at once
    now = 5.0
    found.read()
    assert found.kills() == 1
    now = 100.0  # a death of now has nothing to do with it any more
    found.read()
    found.read()
    assert found.kills() == 0


def test_version_1_counts_a_kill_in_its_own_group_only(tmp_path: Path) -> None:
    above = place(tmp_path, 1, "jobs", kills=3)
    place(tmp_path, 1, "jobs/a", kills=0)
    found = counters(tmp_path)
    found.watch([7])
    write(above, 4)
    found.read()
    assert found.kills() == 0


def test_without_control_groups_nothing_is_proved(tmp_path: Path) -> None:
    found = counters(tmp_path)
    found.watch([7])
    assert found.kills() == 0
