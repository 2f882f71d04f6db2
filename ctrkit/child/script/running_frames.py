"""Reads the running frames of a script, and what names, attributes and sums mean in them.

It runs no code of the script: it only looks up stored values.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
from typing import Any, NamedTuple

from ctrkit.child.script.unseen import FILE_NAME

_OWN_FOLDER = os.path.dirname(__file__) + os.sep
#: References to a frame's dictionary of names: the frame's, ours, and the call's argument.
_OURS = 3
_NAMESPACES = ("Namespace", "SimpleNamespace", "DictConfig", "CfgNode", "EasyDict", "Config")


class RunningFrame(NamedTuple):
    """A running function: its file, the line that runs, and its names."""

    file: str
    line: int
    function: str
    names: dict[str, Any]
    globals: dict[str, Any]


def frames_from(frame: Any) -> list[RunningFrame]:
    """The running frames from this one outwards."""
    found = []
    while frame is not None:
        code = frame.f_code
        own = code.co_filename.startswith((_OWN_FOLDER, FILE_NAME))
        # the step of an optimizer contains a loop over its hooks
        if not own and not _is_torchs(frame):
            names = _names_of(frame)
            found.append(
                RunningFrame(code.co_filename, frame.f_lineno, code.co_name, names, frame.f_globals)
            )
        frame = frame.f_back
    return found


def _is_torchs(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] == "torch"


def _names_of(frame: Any) -> dict[str, Any]:
    """A copy of a frame's names that leaves nothing behind.

    Before Python 3.13, a frame keeps the dictionary that it was asked for, and with it every batch
    and graph named in it, until it returns.
    """
    names = frame.f_locals
    copy = dict(names)
    kept = sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED
    if kept and sys.getrefcount(names) <= _OURS:  # the script itself has not called locals()
        names.clear()
    return copy


def number_of(node: ast.AST, frame: RunningFrame) -> int | None:
    """The integer that a name, attribute, constant or a sum of them means; None if unknown."""
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)
    ):
        left, right = number_of(node.left, frame), number_of(node.right, frame)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        return left // right if right else None
    if isinstance(node, ast.Call) and called_name(node) == "int" and len(node.args) == 1:
        return number_of(node.args[0], frame)
    known, value = value_of(node, frame)
    if not known or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


def called_name(node: ast.Call) -> str:
    """The last part of the called name: `step` for `optimizer.step()`."""
    called = node.func
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""


def value_of(node: ast.AST, frame: RunningFrame) -> tuple[bool, Any]:
    """The value of a name, constant, attribute or item, without running the script's code."""
    if isinstance(node, ast.Constant):
        return True, node.value
    if isinstance(node, ast.Name):
        for names in (frame.names, frame.globals):
            if node.id in names:
                return True, names[node.id]
        return False, None
    if isinstance(node, ast.Attribute):
        known, owner = value_of(node.value, frame)
        return _attribute(owner, node.attr) if known else (False, None)
    if isinstance(node, ast.Subscript):
        known, owner = value_of(node.value, frame)
        told, name = value_of(node.slice, frame)
        if known and told and isinstance(owner, (dict, list, tuple)):
            try:
                return True, owner[name]
            except (KeyError, IndexError, TypeError):
                return False, None
    return False, None


def _attribute(owner: Any, name: str) -> tuple[bool, Any]:
    """A stored attribute (not a computed one) of the object, its class, or its settings."""
    stored = getattr(owner, "__dict__", None)
    if isinstance(stored, dict) and name in stored:
        return True, stored[name]
    if isinstance(owner, dict) and name in owner:
        return True, owner[name]
    if type(owner).__name__ in _NAMESPACES:
        value = getattr(owner, name, None)
        return value is not None, value
    for kind in type(owner).__mro__ if not isinstance(owner, type) else owner.__mro__:
        value = vars(kind).get(name)
        if isinstance(value, (int, float, str, list, tuple, range)):
            return True, value
        slot = type(value).__name__ == "member_descriptor"
        if slot and hasattr(owner, name):
            return True, getattr(owner, name)
    return False, None
