"""The files that a child writes into its folder: their names, and how they are written."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from ctrkit.core.child_records import Inspection, Measurement
from ctrkit.core.config import encode
from ctrkit.core.files import (
    write_atomically,
)
from ctrkit.core.script_records import ScriptSeen


def save_measurement(path: Path, measurement: Measurement | Inspection) -> None:
    """Write the child's result atomically (compact JSON, since stamps can be long)."""
    value = encode(measurement)
    try:
        text = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a path whose bytes this process does not take for UTF-8
        words = json.dumps(value, ensure_ascii=False)
        text = words.encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()
    write_atomically(path, text)


def load_measurement(path: Path) -> Measurement | None:
    """The child's result so far; None if it wrote none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Measurement)
    except (OSError, msgspec.DecodeError):
        return None


def load_seen(path: Path) -> ScriptSeen | None:
    """What the observer of a script wrote; None if it wrote nothing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ScriptSeen)
    except OSError:
        return None
    except msgspec.DecodeError as error:
        return ScriptSeen(pid=0, problem=f"what was observed cannot be read: {error}")


def load_inspection(path: Path) -> Inspection | None:
    """The child's inspection; None if it wrote none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Inspection)
    except (OSError, msgspec.DecodeError):
        return None
