"""Why a loader waits, from counters: each cause needs evidence that excludes the others."""

from __future__ import annotations

from typing import Any

import pytest

from ctrkit.core.child_records import FileUse, Measurement
from ctrkit.measure.storage import reading_of, wait_cause

WINDOW_S = 10.0
MB = 1e6


def launch(in_use: FileUse | None = None, **reads: float) -> Measurement:
    """Counters over a window of ten seconds."""
    known = {"read_bytes": 0.0, "storage_bytes": 0.0, "read_calls": 0.0, **reads}
    return Measurement(
        kind="full", throughput_s=WINDOW_S, throughput_steps=10, reads=known,
        in_use=in_use or FileUse(),
    )  # fmt: skip


def cause(in_use: FileUse | None = None, **reads: float) -> Any:
    return wait_cause(reading_of([launch(in_use, **reads)]))


DISK = {"read_bytes": 500 * MB, "storage_bytes": 480 * MB, "disk_busy_s": 9.3, "io_stall_s": 6.0}
SMALL = FileUse(files=30, median_bytes=64_000, file_system="ext4")


def test_a_disk_is_named_where_what_is_read_comes_from_it_and_it_is_busy() -> None:
    found = cause(**DISK)
    assert found.is_known
    assert found.words.startswith("for the disk: 50 MB/s are read, 48 MB/s of it from storage")
    assert "the busiest disk is busy 93 % of the time" in found.words
    assert "processes wait for storage 60 % of the time" in found.words


def test_many_small_files_are_said_with_their_size() -> None:
    found = cause(SMALL, **DISK)
    assert "many small files (half of those seen have 64 kB or less)" in found.words
    assert "pack small files" in found.advice
    few = FileUse(files=2, median_bytes=64_000)
    large = FileUse(files=30, median_bytes=64_000_000)
    assert not any("small" in cause(use, **DISK).words for use in (few, large))


@pytest.mark.parametrize("system", ["nfs4", "cifs", "fuse.s3fs", "lustre", "9p"])
def test_a_network_file_system_is_named(system: str) -> None:
    found = cause(FileUse(files=3, median_bytes=10**6, file_system=system), **DISK)
    assert found.words.startswith(f"for a network file system ({system})")
    assert found.is_known


@pytest.mark.parametrize("system", ["ext4", "xfs", "overlay", "tmpfs", ""])
def test_a_local_one_is_not(system: str) -> None:
    assert "network file system" not in cause(FileUse(files=3, file_system=system), **DISK).words


def test_a_mapped_file_counts_though_nobody_asked_for_it() -> None:
    found = cause(storage_bytes=300 * MB, disk_busy_s=8.0)
    assert found.words.startswith("for the disk")


def test_a_disk_that_is_not_seen_to_be_busy_is_only_likely() -> None:
    found = cause(read_bytes=50 * MB, storage_bytes=50 * MB, disk_busy_s=0.5, io_stall_s=0.1)
    assert not found.is_known
    assert "the likely reason" in found.words


def test_pipes_beside_the_files_do_not_hide_a_disk() -> None:
    """Batches that workers send and sockets count as reads: they may be most of them."""
    piped = cause(read_bytes=5000 * MB, storage_bytes=300 * MB, disk_busy_s=9.5)
    assert piped.words.startswith("for the disk: 500 MB/s are read, 30 MB/s of it from storage")
    idle = cause(read_bytes=5000 * MB, storage_bytes=300 * MB, disk_busy_s=0.5, io_stall_s=0.1)
    assert not idle.is_known
    assert "only 30 MB/s of the 500 MB/s that it reads (from files and pipes) comes from" in (
        idle.words
    )
    assert "and no disk is busy, so it is no disk" in idle.words
    untold = cause(read_bytes=5000 * MB, storage_bytes=300 * MB)
    assert "the likely reason" in untold.words


def test_a_network_file_system_that_is_not_read_is_not_held_to_be_the_cause() -> None:
    files = FileUse(files=3, median_bytes=10**6, file_system="nfs4")
    cached = cause(files, read_bytes=500 * MB, storage_bytes=0.0)
    assert not cached.is_known
    assert "opening a file may still ask the server: that, a lock or a sleep" in cached.words
    asleep = cause(files, read_bytes=1000.0)
    assert not asleep.is_known
    assert "reads almost nothing, but its files lie on a network file system (nfs4)" in asleep.words
    assert "no disk" not in asleep.words


def test_looking_up_files_on_a_busy_disk_is_not_ruled_out() -> None:
    found = cause(read_bytes=1000.0, disk_busy_s=9.0)
    assert not found.is_known
    assert "the busiest disk is busy 90 % of the time: looking up files on it, a sleep" in (
        found.words
    )


def test_files_from_memory_are_no_disk() -> None:
    found = cause(read_bytes=500 * MB, storage_bytes=0.0, disk_busy_s=9.0)
    assert not found.is_known
    assert "so it is no disk: a lock, a sleep or another process" in found.words


def test_a_loader_that_reads_nothing_waits_for_something_else() -> None:
    found = cause(read_bytes=1000.0)
    assert "reads almost nothing from files, so it is no disk" in found.words
    assert not found.is_known


def test_without_counters_nothing_is_guessed() -> None:
    told_nothing = Measurement(kind="full", throughput_s=WINDOW_S)
    assert reading_of([told_nothing]) is None
    assert "a disk, a network, a sleep or a lock" in wait_cause(None).words
