"""Finds the other end of a descriptor: of a pipe, a socket or a file lock."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from ctrkit.supervise.explain.scene import Process, Wait

_INODE = re.compile(r"^(pipe|socket):\[(\d+)\]$")
_MAX_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Who holds which descriptor, read once for all readable processes.

    Attributes:
        holders: pids by `pipe:[inode]` or `socket:[inode]`.
        names: short names by pid.
        peers: remote addresses by socket.
        owners: by waiting pid, the pid that holds the file lock.
    """

    holders: Mapping[str, Sequence[int]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    peers: Mapping[str, str] = field(default_factory=dict)
    owners: Mapping[int, int] = field(default_factory=dict)

    def words(self, pid: int, target: str) -> str:
        """The target of this process's wait, in words; unchanged if nothing is known about it."""
        match = _INODE.match(target)
        if match is None:
            owner = self.owners.get(pid)
            return f"{target}, held by {self._name(owner)}" if owner else target
        others = [one for one in self.holders.get(target, ()) if one != pid]
        if match[1] == "socket":
            peer = self.peers.get(target)
            if peer:
                return f"a socket to {peer}"
            return f"a socket shared with {self._all(others)}" if others else "a local socket"
        if not others:
            return "a pipe that no other process has open"
        return f"a pipe shared with {self._all(others)}"

    def _all(self, pids: Sequence[int]) -> str:
        named = ", ".join(self._name(one) for one in pids[:_MAX_NAMED])
        more = len(pids) - _MAX_NAMED
        return f"{named} and {more} more" if more > 0 else named

    def _name(self, pid: int) -> str:
        name = self.names.get(pid)
        return f"pid {pid} ({name})" if name else f"pid {pid}"


def name_targets(processes: Sequence[Process]) -> list[Process]:
    """The processes, with the targets of their waits in words; reads only if there are any."""
    if not any(wait.target or wait.syscall in _LOCKS for one in processes for wait in one.waits):
        return list(processes)
    ends = read_ends([one.pid for one in processes])
    return [
        replace(one, waits=tuple(_named(one.pid, wait, ends) for wait in one.waits))
        for one in processes
    ]


_LOCKS = ("flock", "fcntl")


def _named(pid: int, wait: Wait, ends: Ends) -> Wait:
    if wait.target is None:
        owner = ends.owners.get(pid) if wait.syscall in _LOCKS else None
        return replace(wait, target=f"a file that pid {owner} has locked") if owner else wait
    return replace(wait, target=ends.words(pid, wait.target))


def read_ends(pids: Sequence[int]) -> Ends:
    """Read the ends from /proc; empty on a system without it."""
    holders: dict[str, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*/fd"):
        pid = int(folder.parent.name)
        for target in _targets(folder):
            if target.startswith(("pipe:", "socket:")) and pid not in holders[target]:
                holders[target].append(pid)
    waiting = _read_locks()
    seen = {one for held in holders.values() for one in held} | set(waiting.values())
    return Ends(
        holders=holders,
        names={pid: name for pid in seen if (name := _command_name(pid))},
        peers={key: peer for pid in pids for key, peer in _peers(pid).items()},
        owners=waiting,
    )


def _targets(folder: Path) -> list[str]:
    found = []
    with suppress(OSError):
        for name in os.listdir(folder):
            with suppress(OSError):
                found.append(os.readlink(folder / name))
    return found


def _command_name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()[:40]
    return ""


def _peers(pid: int) -> dict[str, str]:
    """Remote addresses of a process's TCP and UDP sockets."""
    found = {}
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        read = getattr(process, "net_connections", None) or process.connections
        for connection in read(kind="inet"):
            if connection.raddr and connection.fd >= 0:
                with suppress(OSError):
                    key = os.readlink(f"/proc/{pid}/fd/{connection.fd}")
                    found[key] = f"{connection.raddr.ip}:{connection.raddr.port}"
    return found


def _read_locks() -> dict[int, int]:
    try:
        return lock_owners(Path("/proc/locks").read_text())
    except OSError:
        return {}


def lock_owners(text: str) -> dict[int, int]:
    """Parse /proc/locks: by waiting pid, the pid that holds the file lock.

    A waiting process has a line with `->` after the number of the lock.
    """
    holders: dict[str, int] = {}
    found: dict[int, int] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        words = rest.split()
        waits = bool(words) and words[0] == "->"
        words = words[1:] if waits else words
        if len(words) < 4 or not words[3].lstrip("-").isdigit():
            continue
        pid = int(words[3])
        if not waits:
            holders[number.strip()] = pid
        elif (owner := holders.get(number.strip(), 0)) > 0:
            found[pid] = owner
    return found
