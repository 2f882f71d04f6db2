"""What a machine allows, with made-up control groups, and once as it really is."""

from __future__ import annotations

import pytest

from ctrkit.probe.hazards.limits import cgroup_allowance_bytes, read_limits

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
    assert cgroup_allowance_bytes(root, own) == 400
    group(root / top / "a", files, 5000, 6000)
    assert cgroup_allowance_bytes(root, own) == 0


def test_no_limit_is_none(tmp_path):
    own = tmp_path / "cgroup"
    assert cgroup_allowance_bytes(tmp_path, own) is None  # no control groups at all
    own.write_text("0::/a\n4:memory:/a\n")
    group(tmp_path / "a", V2, "max", 400)
    group(tmp_path / "memory" / "a", V1, 2**63 - 4096, 400)
    assert cgroup_allowance_bytes(tmp_path, own) is None


def test_inside_a_container_the_root_of_what_is_seen_counts(tmp_path):
    own = tmp_path / "cgroup"
    own.write_text("0::/docker/abc\n")
    group(tmp_path / "fs", V2, 1000, 250)
    assert cgroup_allowance_bytes(tmp_path / "fs", own) == 750


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
