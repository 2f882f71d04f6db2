"""Converts plain values of JSON and TOML to dataclasses, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ctrkit.core.errors import UsageError

T = TypeVar("T")


def decode(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass of type `kind` from a mapping read from JSON or TOML.

    Args:
        kind: a dataclass; nested dataclasses are decoded too.
        values: the mapping; keys that `kind` does not have are an error, missing ones default.
        where: what the values were read from, for the message.

    Raises:
        UsageError: an unknown key or a value of a wrong type.
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
    # msgspec alone leaves out defaults of dataclasses that msgspec itself made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return msgspec.to_builtins(value)
