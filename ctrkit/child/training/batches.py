"""How many rows a batch of any make has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def batch_rows(batch: Any) -> int:
    """First dimension of the first tensor or array found in nested dicts, lists and tuples.

    Where there is none: the length of the batch itself; 1 for what has no length, or is a text.
    """
    found = _first_dimension(batch)
    if found is not None:
        return found
    if isinstance(batch, (str, bytes)):
        return 1
    try:
        return len(batch)
    except TypeError:  # a scalar tensor claims to have a length
        return 1


def _first_dimension(value: Any) -> int | None:
    shape = getattr(value, "shape", None)
    if shape is not None:
        return int(shape[0]) if len(shape) else None
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return None
    return next((n for n in map(_first_dimension, value) if n is not None), None)
