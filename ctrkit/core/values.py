"""Converts plain values of JSON and TOML to dataclasses, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ctrkit.core.errors import UsageError

T = TypeVar("T")


def decode(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Convert a mapping from JSON or TOML to a dataclass of type `kind`.

    Args:
        kind: a dataclass; nested dataclasses are converted, too.
        values: the mapping; unknown keys are an error, missing ones take their defaults.
        where: the source of the values, for the message.

    Raises:
        UsageError: an unknown key, or a value of a wrong type.
    """
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(f"{where}: unknown key '{key}'; known are {', '.join(known)}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from None


def encode(value: object) -> Any:
    """Plain JSON values (dict, list, str, int, float, None) of a dataclass."""
    # msgspec alone would leave out defaults of dataclasses that it made itself
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return msgspec.to_builtins(value)
