"""CPU quotas of control groups, both versions, at every level, in fake file trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctrkit.core.control_groups import (
    Throttling,
    cpu_quota_cores,
    cpu_throttling,
    memory_left_bytes,
    memory_limit_bytes,
    own_swap,
    pressure_file,
)


def tree(root: Path, **files: str) -> Path:
    """Files below `root`, named with `__` for `/` and `_dot_` for `.`."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own"
    path.write_text(text)
    return path


def test_the_least_quota_of_all_levels_holds(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "v2", pod__cpu_dot_max="150000 100000", pod__box__cpu_dot_max="max 100000"
    )
    assert cpu_quota_cores(root, own(tmp_path, "0::/pod/box\n")) == 1.5


def test_version_1_has_quota_and_period_in_two_files(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "v1",
        cpu__job__cpu_dot_cfs_quota_us="50000",
        cpu__job__cpu_dot_cfs_period_us="100000",
        cpu__cpu_dot_cfs_quota_us="-1",
        cpu__cpu_dot_cfs_period_us="100000",
    )
    assert cpu_quota_cores(root, own(tmp_path, "3:cpu:/job\n0::/\n")) == 0.5


def test_in_a_container_the_groups_path_is_not_there(tmp_path: Path) -> None:
    root = tree(tmp_path / "v2", cpu_dot_max="25000 100000")
    assert cpu_quota_cores(root, own(tmp_path, "0::/docker/0123\n")) == 0.25


@pytest.mark.parametrize("text", ["max 100000", "nonsense", ""])
def test_no_quota_is_none(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path / "v2", cpu_dot_max=text)
    assert cpu_quota_cores(root, own(tmp_path, "0::/\n")) is None
    assert cpu_quota_cores(root, tmp_path / "missing") is None
    assert cpu_throttling(root, own(tmp_path, "0::/\n")) is None


def test_throttling_is_of_the_level_that_holds_back_most(tmp_path: Path) -> None:
    stat = "nr_periods {}\nnr_throttled {}\nthrottled_usec {}\n".format
    root = tree(
        tmp_path / "v2",
        a__cpu_dot_max="50000 100000", a__cpu_dot_stat=stat(100, 40, 2_000_000),
        a__b__cpu_dot_max="90000 100000", a__b__cpu_dot_stat=stat(100, 5, 100_000),
    )  # fmt: skip
    now = cpu_throttling(root, own(tmp_path, "0::/a/b\n"))
    assert now == Throttling(100, 40, 2.0)
    assert now.since(Throttling(60, 10, 0.5)) == Throttling(40, 30, 1.5)


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


def group(folder, files, most, used, cached=0):
    folder.mkdir(parents=True, exist_ok=True)
    limit, usage, cache = files
    (folder / limit).write_text(f"{most}\n")
    (folder / usage).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{cache} {cached}\n")


@pytest.mark.parametrize(
    ("line", "top", "files"), [("0::/a/b", "", V2), ("4:cpu,memory:/a/b", "memory", V1)]
)
def test_the_tightest_level_counts_and_cache_that_can_go_is_free(tmp_path, line, top, files):
    own = tmp_path / "cgroup"
    own.write_text(f"9:name=systemd:/x\n{line}\n")
    root = tmp_path / "fs"
    group(root / top / "a" / "b", files, 1000, 400, cached=100)
    group(root / top / "a", files, 5000, 4600)
    assert memory_left_bytes(root, own) == 400
    group(root / top / "a", files, 5000, 6000)
    assert memory_left_bytes(root, own) == 0


def test_no_limit_is_none(tmp_path):
    own = tmp_path / "cgroup"
    assert memory_left_bytes(tmp_path, own) is None  # no control groups at all
    own.write_text("0::/a\n4:memory:/a\n")
    group(tmp_path / "a", V2, "max", 400)
    group(tmp_path / "memory" / "a", V1, 2**63 - 4096, 400)
    assert memory_left_bytes(tmp_path, own) is None


def test_inside_a_container_the_root_of_what_is_seen_counts(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/docker/abc\n")
    group(tmp_path / "fs", V2, 1000, 250)
    assert memory_left_bytes(tmp_path / "fs", own) == 750


def test_the_limit_is_that_of_the_tightest_level(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    group(tmp_path / "fs" / "a" / "b", V2, "max", 1)
    group(tmp_path / "fs" / "a", V2, 5000, 1)
    assert memory_limit_bytes(tmp_path / "fs", own) == 5000
    own.write_text("4:memory:/none\n")
    assert memory_limit_bytes(tmp_path / "fs", own) is None


def test_swap_is_the_groups_own_where_it_counts_it(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/a\n")
    group(tmp_path / "fs" / "a", V2, 5000, 1)
    assert own_swap(tmp_path / "fs", own) is None  # an older kernel
    (tmp_path / "fs" / "a" / "memory.swap.current").write_text("4096\n")
    (tmp_path / "fs" / "a" / "memory.stat").write_text("pswpin 2\npswpout 3\n")
    page = os.sysconf("SC_PAGE_SIZE")
    assert own_swap(tmp_path / "fs", own) == (4096, 2 * page, 3 * page)


def test_pressure_is_the_groups_own_where_it_tells(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/a\n")
    assert pressure_file("io", tmp_path / "fs", own) == Path("/proc/pressure/io")
    (tmp_path / "fs" / "a").mkdir(parents=True)
    (tmp_path / "fs" / "a" / "io.pressure").write_text("some avg10=0 total=1\n")
    assert pressure_file("io", tmp_path / "fs", own) == tmp_path / "fs" / "a" / "io.pressure"
    own.write_text("0::/\n")  # in a container with a namespace of its own, its group is the root
    (tmp_path / "fs" / "io.pressure").write_text("some avg10=0 total=2\n")
    assert pressure_file("io", tmp_path / "fs", own) == tmp_path / "fs" / "io.pressure"
