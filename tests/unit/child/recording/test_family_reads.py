"""Counters of a real family of processes, and its open files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrkit.child.recording.family_reads import (
    between,
    counters,
    file_system_of,
    files_in_use,
    threads_of_workers,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WORKER = """
import mmap, sys, threading
path, go = sys.argv[1], sys.stdin
opened = [open(f"{path}/{name}", "rb") for name in ("a.jpg", "b.jpg")]
with open(f"{path}/big.npy", "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("open", flush=True)
go.readline()
sum(len(file.read()) for file in opened)
n = 0
for _ in range(3_000_000):
    n += 1
print("read", flush=True)
go.readline()
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A child that opens two files and maps a third, and reads when it is told to."""
    (tmp_path / "a.jpg").write_bytes(b"a" * 3_000_000)
    (tmp_path / "b.jpg").write_bytes(b"b" * 1_000_000)
    (tmp_path / "big.npy").write_bytes(b"c" * 2_000_000)
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    process.stdout.readline()


def test_what_a_worker_reads_and_burns_is_counted(worker: subprocess.Popen[str]) -> None:
    before = counters()
    go_on(worker)
    found = between(before, counters())
    assert 4_000_000 <= found["read_bytes"] < 5_000_000
    assert found["read_calls"] >= 2
    assert found["worker_cpu_s"] > 0
    assert found["storage_bytes"] <= 5_000_000


def test_the_files_of_a_worker_are_seen_and_no_programs(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    found = files_in_use(str(tmp_path / "elsewhere"))
    assert found["files"] >= 3
    assert found["file_system"]
    assert files_in_use(str(tmp_path)).get("files", 0) <= found["files"] - 3  # the trial's own


def test_the_threads_of_a_worker_are_counted(worker: subprocess.Popen[str]) -> None:
    assert threads_of_workers()["worker_threads"] >= 4


ALONE = """
import sys
from ctrkit.child.recording.family_reads import between, counters, threads_of_workers
before = counters()
open(sys.argv[1], "rb").read()
print(between(before, counters())["read_bytes"] >= 2_000_000, threads_of_workers())
"""


def test_without_workers_the_process_itself_counts(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"x" * 2_000_000)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path / "rows"], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "True {}\n", done.stderr


def test_a_counter_never_falls() -> None:
    assert between({"read_bytes": 5.0, "disk:sda": 1.0, "disk:sdb": 1.0, "gone": 1.0},
                   {"read_bytes": 2.0, "disk:sda": 1.5, "disk:sdb": 3.0}) == {
        "read_bytes": 0.0, "disk_busy_s": 2.0,
    }  # fmt: skip


def test_the_file_system_is_that_of_the_innermost_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /data rw,relatime shared:5 - nfs4 server:/export rw\n"
        "31 30 0:41 / /data/my\\040set rw - fuse.s3fs s3fs rw\n"
    )
    systems = {
        path: file_system_of(path, str(mounts))
        for path in ("/home/x", "/data/a/b", "/data/my set/1.jpg", "/database/x")
    }
    assert systems == {
        "/home/x": "ext4", "/data/a/b": "nfs4", "/data/my set/1.jpg": "fuse.s3fs",
        "/database/x": "ext4",
    }  # fmt: skip
    assert file_system_of("/x", os.devnull) == ""
