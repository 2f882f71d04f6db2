"""Writes and reads JSON files of the observer: whole or not at all, standard library alone."""

from __future__ import annotations

import json
import os
from typing import Any


def write_json(path: str, value: Any, *, durable: bool = True) -> None:
    """Write to a temporary file, flush it, and rename it: readers see the old file or the new one.

    If not `durable`, it is not flushed: that can take long, and only matters if the machine
    crashes.
    """
    aside = f"{path}.{os.getpid()}"
    with open(aside, "w", encoding="utf-8") as file:
        json.dump(finite(value), file, ensure_ascii=False, allow_nan=False)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(aside, path)


def read_json(path: str) -> Any | None:
    """The JSON value in a file; None if there is none or it is unreadable."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def append_line(path: str, value: Any) -> None:
    """Append a JSON value as a line, in one write."""
    line = json.dumps(finite(value), ensure_ascii=False, allow_nan=False) + "\n"
    with open(path, "ab", buffering=0) as file:
        file.write(line.encode())


def finite(value: Any) -> Any:
    """The value with NaN and infinities, which JSON lacks, replaced by None."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def is_first(path: str) -> bool:
    """Whether this process is the first to create the file, which holds its process id."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(str(os.getpid()))
    return True
