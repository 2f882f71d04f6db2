"""Where a process runs: host, boot, and the container in which its process id is valid."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path

from ctrkit.core.environment import fingerprint

_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Sight(Enum):
    """What can be known here about a process that was started there; HERE if no place is named."""

    #: it was started here: its process id tells whether it runs
    HERE = "here"
    #: it was started on this host before the last boot: it is gone
    BEFORE_BOOT = "before the boot"
    #: it was started on another host or in another container: nothing can be known
    ELSEWHERE = "elsewhere"


@cache
def this_place() -> dict[str, str]:
    """`host`, `boot` and `processes` (the namespace of process ids), as fingerprints: no names."""
    machine = next((text for path in _MACHINE_IDS if (text := _text(path))), "")
    return {
        "host": fingerprint([platform.node(), machine]),
        "boot": fingerprint(_text(_BOOT_ID) or _boot_session()),
        "processes": fingerprint(_process_namespace()),
    }


def sight_of(place: Mapping[str, str]) -> Sight:
    """What can be known here about a process that was started there; HERE if no place is named."""
    here = this_place()
    if not place or dict(place) == here:
        return Sight.HERE
    if any(place.get(name) != here[name] for name in ("host", "processes")):
        return Sight.ELSEWHERE
    return Sight.BEFORE_BOOT


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _process_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # other systems have a single namespace
        return ""


def _boot_session() -> str:
    """The id of this boot on macOS; empty elsewhere."""
    if sys.platform != "darwin":
        return ""
    text, size = ctypes.create_string_buffer(64), ctypes.c_size_t(64)
    ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", text, ctypes.byref(size), None, 0)
    return text.value.decode(errors="replace")
