"""CPU quotas of control groups, of both versions and at every level, in trees of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.core.control_groups import Throttling, cpu_quota_cores, cpu_throttling


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
