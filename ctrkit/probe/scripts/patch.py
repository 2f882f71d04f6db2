"""A unified diff that puts the recommended loader settings into a script."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

#: DataLoader's positional parameters: a value given by position is replaced in place.
_POSITIONS = (
    "dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "num_workers", "collate_fn",
    "pin_memory",
)  # fmt: skip


class PatchError(Exception):
    """The change cannot be made; the message gives the reason as a clause."""


def loader_settings(cell_workers: int, axes: Mapping[str, Any]) -> dict[str, Any]:
    """DataLoader arguments for these axes; those that need workers are None without them.

    Args:
        cell_workers: number of workers.
        axes: the values of `start_method`, `prefetch`, `persistent` and `pin` to write down.
    """
    names = {
        "start_method": "multiprocessing_context",
        "prefetch": "prefetch_factor",
        "persistent": "persistent_workers",
    }
    settings: dict[str, Any] = {"num_workers": cell_workers}
    for axis, name in names.items():
        if axis in axes:
            settings[name] = axes[axis] if cell_workers else None
    if "pin" in axes:
        settings["pin_memory"] = axes["pin"]
    return settings


def patched(text: str, line: int, settings: Mapping[str, Any]) -> str:
    """The script's text with the settings in the DataLoader call at this line.

    Args:
        text: the script's text.
        line: a line of the call, from 1.
        settings: the result of `loader_settings`; None removes an argument.

    Raises:
        PatchError: libcst is missing, there is no such call, or it takes its arguments elsewhere.
    """
    try:
        import libcst
        from libcst.metadata import MetadataWrapper
    except ImportError:
        raise PatchError("libcst is not installed: pip install 'ctrkit[patch]'") from None
    try:
        wrapper = MetadataWrapper(libcst.parse_module(text))
    except libcst.ParserSyntaxError as error:
        raise PatchError(f"its text cannot be parsed: {error.message}") from None
    call = _call_at(wrapper, line)
    changed = _with_settings(call, settings)
    return str(wrapper.module.deep_replace(call, changed).code)


def unified_diff(before: str, after: str, name: str) -> str:
    """A diff for `patch -p1` and `git apply`; `name` is the file's path."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
                   for line in lines)  # fmt: skip


def _call_at(wrapper: Any, line: int) -> Any:
    """The innermost call around the line with a callee named like a DataLoader."""
    import libcst
    from libcst.metadata import PositionProvider

    positions = wrapper.resolve(PositionProvider)
    around = [
        (node, where)
        for node, where in positions.items()
        if isinstance(node, libcst.Call) and where.start.line <= line <= where.end.line
    ]
    named = [(node, where) for node, where in around if "loader" in _callee(node).lower()]
    if not named:
        raise PatchError(f"line {line} does not call a DataLoader")
    named.sort(key=lambda pair: pair[1].end.line - pair[1].start.line)
    smallest = [n for n, w in named if _span(w) == _span(named[0][1])]
    if len(smallest) > 1:
        raise PatchError(f"line {line} calls more than one loader")
    return smallest[0]


def _span(where: Any) -> tuple[int, int]:
    return where.start.line, where.end.line


def _callee(call: Any) -> str:
    """`DataLoader` of `torch.utils.data.DataLoader(...)`."""
    import libcst

    func = call.func
    if isinstance(func, libcst.Attribute):
        return str(func.attr.value)
    return str(func.value) if isinstance(func, libcst.Name) else ""


def _with_settings(call: Any, settings: Mapping[str, Any]) -> Any:
    """The call with the settings replaced, and new ones appended."""
    import libcst

    if any(argument.star == "**" for argument in call.args):
        raise PatchError("the call takes its arguments from a dictionary (**kwargs)")
    if any(argument.star == "*" for argument in call.args):
        raise PatchError("the call takes its arguments from a list (*args)")
    arguments, found = [], set()
    for place, argument in enumerate(call.args):
        name = argument.keyword.value if argument.keyword else _position_name(place)
        if name not in settings:
            arguments.append(argument)
            continue
        found.add(name)
        if settings[name] is not None:
            value = libcst.parse_expression(_literal(settings[name]))
            arguments.append(argument.with_changes(value=value))
        elif argument.keyword is None:  # a positional argument cannot be removed
            arguments.append(argument.with_changes(value=libcst.Name("None")))
    missing = [name for name in settings if name not in found and settings[name] is not None]
    return call.with_changes(args=_appended(arguments, missing, settings))


def _position_name(place: int) -> str:
    return _POSITIONS[place] if place < len(_POSITIONS) else ""


def _appended(arguments: list[Any], names: list[str], settings: Mapping[str, Any]) -> list[Any]:
    """The arguments with new ones appended, with the same separators."""
    import libcst

    default = libcst.Comma(whitespace_after=libcst.SimpleWhitespace(" "))
    between = arguments[0].comma if len(arguments) > 1 else default
    if not arguments or not isinstance(between, libcst.Comma):
        between = default
    added = [
        libcst.Arg(
            keyword=libcst.Name(name),
            value=libcst.parse_expression(_literal(settings[name])),
            equal=libcst.AssignEqual(
                whitespace_before=libcst.SimpleWhitespace(""),
                whitespace_after=libcst.SimpleWhitespace(""),
            ),
        )
        for name in names
    ]
    if not added or not arguments:
        return [*arguments, *(a.with_changes(comma=default) for a in added[:-1]), *added[-1:]]
    last = arguments[-1]
    end = last.comma  # the new last argument gets the old one's trailing comma, or none
    return [
        *arguments[:-1],
        last.with_changes(comma=between),
        *(argument.with_changes(comma=between) for argument in added[:-1]),
        added[-1].with_changes(comma=end),
    ]


def _literal(value: Any) -> str:
    """The value as Python text, with double quotes as most formatters prefer."""
    return f'"{value}"' if isinstance(value, str) else repr(value)
