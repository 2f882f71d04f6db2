"""Converts plain values of JSON and TOML to dataclasses, and back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value

T = TypeVar("T")

#: How msgspec says that a value has a wrong type.
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$([^`]*)`)?")
_KINDS = {
    "float": "a number", "int": "a whole number", "str": "a text", "bool": "true or false",
    "object": "a table", "array": "a list", "null": "nothing",
}  # fmt: skip


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
        raise UsageError(f"{where}: {_in_words(str(error), values)}") from None


def _in_words(said: str, values: Mapping[str, Any]) -> str:
    """A converter's message with the value that is wrong: `lr: must be a number, not 'abc'`."""
    match = _WRONG_TYPE.fullmatch(said)
    if match is None:
        return said
    wanted = " or ".join(_KINDS.get(kind, kind) for kind in match[1].split(" | "))
    place = (match[3] or "").lstrip(".")
    value: Any = values
    for key in place.split(".") if place else ():
        value = value.get(key) if isinstance(value, Mapping) else None
    got = _KINDS.get(match[2], match[2]) if value is None else format_value(value)
    return f"{place}: must be {wanted}, not {got}" if place else f"must be {wanted}, not {got}"


def encode(value: object) -> Any:
    """Plain JSON values (dict, list, str, int, float, None) of a dataclass."""
    # msgspec alone would leave out defaults of dataclasses that it made itself
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return msgspec.to_builtins(value)
