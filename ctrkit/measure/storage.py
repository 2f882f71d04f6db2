"""Why a loader waits: a disk, a network file system, small files, or nothing that files explain.

Decides on counters of the system (`child/recording/family_reads.py`). What they do not exclude is
named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.child_records import FileUse, Measurement
from ctrkit.core.units import format_bytes, format_percent

_NETWORK = (
    "nfs", "cifs", "smb", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "9p", "afs", "fuse",
    "virtiofs", "wekafs", "orangefs",
)  # fmt: skip
#: A slower rate is no reading of data, but pipes to the workers or a log.
_NO_READING_PER_S = 100_000
#: From these shares on, the disk counts as the cause: of bytes from storage, of time in which a
#: disk is busy, of time in which processes wait for it.
_FROM_STORAGE, _DISK_BUSY, _STALLED = 0.3, 0.5, 0.2
_SMALL_BYTES, _MANY_FILES = 200_000, 8


@dataclass(frozen=True, kw_only=True)
class StorageReads:
    """What the launches of a cell read in their windows, together.

    `stall_share` and `disk_share` are shares of time: some process waited for storage, the busiest
    disk was busy. None if the system does not tell.
    """

    read_per_s: float
    storage_per_s: float
    call_bytes: float
    stall_share: float | None
    disk_share: float | None
    in_use: FileUse

    @property
    def is_network(self) -> bool:
        """Whether the files are on a network file system, or on one of a program (FUSE)."""
        return self.in_use.file_system.startswith(_NETWORK)

    @property
    def all_per_s(self) -> float:
        """Bytes read per second; a mapped file only counts as storage."""
        return max(self.read_per_s, self.storage_per_s)

    @property
    def uses_storage(self) -> bool:
        """Whether storage is read. Pipes and sockets count as reads, but never as storage."""
        return self.storage_per_s > _NO_READING_PER_S

    @property
    def is_from_storage(self) -> bool:
        """Whether much of the data comes from storage and not from memory."""
        return self.uses_storage and self.storage_per_s >= _FROM_STORAGE * self.all_per_s

    @property
    def is_disk_busy(self) -> bool:
        """Whether processes wait for storage, or a disk is busy."""
        waits = self.stall_share is not None and self.stall_share >= _STALLED
        return waits or (self.disk_share is not None and self.disk_share >= _DISK_BUSY)

    @property
    def knows_disk(self) -> bool:
        """Whether the system tells how busy disks are, or that processes wait for them."""
        return self.stall_share is not None or self.disk_share is not None

    @property
    def has_small_files(self) -> bool:
        """Whether the observed files are many and small."""
        use = self.in_use
        return (
            use.files >= _MANY_FILES
            and use.median_bytes is not None
            and use.median_bytes <= _SMALL_BYTES
        )


def reading_of(launches: Sequence[Measurement]) -> StorageReads | None:
    """What the launches read; None if no system tells."""
    told = [one for one in launches if "read_bytes" in one.reads and one.throughput_s]
    seconds = sum(one.throughput_s or 0.0 for one in told)
    if not told or seconds <= 0:
        return None

    def total(key: str) -> float:
        return sum(one.reads.get(key, 0.0) for one in told)

    def share(key: str) -> float | None:
        return min(1.0, total(key) / seconds) if all(key in one.reads for one in told) else None

    return StorageReads(
        read_per_s=total("read_bytes") / seconds,
        storage_per_s=total("storage_bytes") / seconds,
        call_bytes=total("read_bytes") / max(1.0, total("read_calls")),
        stall_share=share("io_stall_s"),
        disk_share=share("disk_busy_s"),
        in_use=max((one.in_use for one in told), key=lambda use: use.files),
    )


@dataclass(frozen=True)
class WaitCause:
    """What a mostly idle loader waits for, and what helps; `is_known` if that is shown."""

    words: str
    advice: str
    is_known: bool


def wait_cause(reading: StorageReads | None) -> WaitCause:
    """What a loader with little CPU use waits for, from counters."""
    if reading is None:
        return WaitCause("for a disk, a network, a sleep or a lock (which is not known here)", "",
                         False)  # fmt: skip
    rates, kind = _rates(reading), reading.in_use.file_system
    if reading.is_network and reading.all_per_s > _NO_READING_PER_S:
        if reading.uses_storage:
            return WaitCause(
                f"for a network file system ({kind}): {rates}{_files(reading)}",
                "copy the data to a local disk first, or pack them into fewer, larger files", True,
            )  # fmt: skip
        return WaitCause(
            f"and its files lie on a network file system ({kind}): {rates}{_files(reading)}. What "
            "is in memory is not read again, but opening a file may still ask the server: that, a "
            "lock or a sleep; which of them cannot be told from outside (ctrkit explain PID shows "
            "the line)", "", False,
        )  # fmt: skip
    if reading.uses_storage and reading.is_disk_busy:
        return WaitCause(
            f"for the disk: {rates}{_busy(reading)}{_files(reading)}",
            "pack small files into large ones, or keep the data in memory if they fit; if they do, "
            "the second epoch reads from memory and is faster", True,
        )  # fmt: skip
    if reading.is_from_storage or (reading.uses_storage and not reading.knows_disk):
        return WaitCause(
            f"while {rates}{_busy(reading)}{_files(reading)}: the disk, or what lies behind it, is "
            "the likely reason", "", False,
        )  # fmt: skip
    if reading.all_per_s <= _NO_READING_PER_S:
        return WaitCause(_without_reading(reading), "", False)
    little = "almost nothing"
    idle = ""
    if reading.uses_storage:
        little, idle = f"only {format_bytes(reading.storage_per_s)}/s", ", and no disk is busy"
    return WaitCause(
        f"although {little} of the {format_bytes(reading.read_per_s)}/s that it reads (from files "
        f"and pipes) comes from storage{idle}, so it is no disk: a lock, a sleep or another "
        "process; which of them cannot be told from outside (ctrkit explain PID shows the line)",
        "", False,
    )  # fmt: skip


def _without_reading(reading: StorageReads) -> str:
    """What a loader that reads almost nothing may wait for; looking up files is not reading."""
    end = "which of them cannot be told from outside (ctrkit explain PID shows the line)"
    others = "a sleep, a lock, another process or a network connection"
    if reading.is_network:
        return (
            f"and reads almost nothing, but its files lie on a network file system "
            f"({reading.in_use.file_system}): the server that it asks for them, {others}; {end}"
        )
    if reading.is_disk_busy:
        return (
            f"and reads almost nothing from files{_busy(reading)}: looking up files on it, {others}"
            f"; {end}"
        )
    return f"and reads almost nothing from files, so it is no disk: {others}; {end}"


def _rates(reading: StorageReads) -> str:
    return (
        f"{format_bytes(reading.all_per_s)}/s are read, {format_bytes(reading.storage_per_s)}/s of "
        "it from storage and not from memory"
    )


def _busy(reading: StorageReads) -> str:
    words = ""
    if reading.disk_share is not None:
        words += f", the busiest disk is busy {format_percent(reading.disk_share)} of the time"
    if reading.stall_share is not None:
        words += f", processes wait for storage {format_percent(reading.stall_share)} of the time"
    return words


def _files(reading: StorageReads) -> str:
    if not reading.has_small_files or reading.in_use.median_bytes is None:
        return ""
    return f", in many small files (half of those seen have {_size(reading)} or less)"


def _size(reading: StorageReads) -> str:
    return format_bytes(reading.in_use.median_bytes or 0)
