"""Finds in the source where a lock comes from that a worker waits for; runs no code."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from ctrkit.supervise.explain.scene import Process
from ctrkit.supervise.explain.stacks import Frame, is_users

_MAKERS = ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore")
_MOST_BYTES = 2_000_000
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class LockOrigin(StrEnum):
    """Where a lock was made, as the source shows it."""

    BEFORE_FORK = "existed before the worker was started"
    OWN = "the waiting thread made it, or holds it itself"
    UNKNOWN = ""


def lock_origins_of(processes: Iterable[Process]) -> dict[int, LockOrigin]:
    """By pid, the origin of the lock of each process that is at a line which takes a lock."""
    found: dict[int, LockOrigin] = {}
    for process in processes:
        own = [frame for frame in process.stack if is_users(frame)]
        if own and (origin := _origin(own)) is not LockOrigin.UNKNOWN:
            found[process.pid] = origin
    return found


def _origin(frames: Sequence[Frame]) -> LockOrigin:
    try:
        path = Path(frames[0].file)
        if path.stat().st_size > _MOST_BYTES:
            return LockOrigin.UNKNOWN
        module = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return LockOrigin.UNKNOWN
    return origin_in(module, [frame for frame in frames if frame.file == frames[0].file])


def origin_in(module: ast.Module, frames: Sequence[Frame]) -> LockOrigin:
    """The origin of the lock that the innermost of these frames waits for.

    Args:
        module: syntax tree of the module.
        frames: calls in it, innermost first.
    """
    around = functions_around(module, frames[0])
    if not around:
        return LockOrigin.UNKNOWN
    waits = list(taken(around[-1], frames[0].line))
    origins = {_of_expression(module, around, lock, frames) for lock in waits}
    return origins.pop() if len(origins) == 1 else LockOrigin.UNKNOWN


def _of_expression(
    module: ast.Module, around: Sequence[_Function], lock: ast.expr, frames: Sequence[Frame]
) -> LockOrigin:
    makers = _makers(module, around, lock)
    reentrant = "RLock" in makers
    if not reentrant and any(
        is_held(module, frame, lock, waits=frame is frames[0]) for frame in frames
    ):
        return LockOrigin.OWN
    root = _root(lock)
    if isinstance(lock, ast.Name):
        return _of_name(module, around, lock.id, frames)
    if root is None:
        return LockOrigin.UNKNOWN
    arguments = around[-1].args.args
    if arguments and root.id == arguments[0].arg:
        return _of_attribute(module, around[0], root.id, lock)
    is_global = not any(_binds(function, root.id) for function in around)
    known = is_global and _binds_in(module.body, root.id)
    return LockOrigin.BEFORE_FORK if known else LockOrigin.UNKNOWN


def _of_name(
    module: ast.Module, around: Sequence[_Function], name: str, frames: Sequence[Frame]
) -> LockOrigin:
    """The origin of a name of the function itself, of an outer function, or of the module."""
    for function in reversed(around):
        if not _binds(function, name):
            continue
        if name in {argument.arg for argument in ast.walk(function.args)
                    if isinstance(argument, ast.arg)}:  # fmt: skip
            return LockOrigin.UNKNOWN
        runs = any(frame.function == function.name for frame in frames)
        if function is not around[-1] and not runs:
            # that call has returned, so the lock was made before the worker existed
            return LockOrigin.BEFORE_FORK
        made = [_maker(value) for value in values_of(function, name)]
        return LockOrigin.OWN if made and all(made) else LockOrigin.UNKNOWN
    return LockOrigin.BEFORE_FORK if _binds_in(module.body, name) else LockOrigin.UNKNOWN


def _of_attribute(module: ast.Module, method: _Function, owner: str, lock: ast.expr) -> LockOrigin:
    """The origin of an attribute; if only `__init__` sets it, it was made with the data set."""
    text = ast.unparse(lock)
    for one in ast.walk(module):
        if not isinstance(one, ast.ClassDef) or method not in one.body:
            continue
        setting = {m.name for m in one.body if isinstance(m, _Function) and _sets(m, text)}
        in_body = text.removeprefix(f"{owner}.")
        if setting == {"__init__"} or (not setting and _binds_in(one.body, in_body)):
            return LockOrigin.BEFORE_FORK
    return LockOrigin.UNKNOWN


def functions_around(module: ast.Module, frame: Frame) -> list[_Function]:
    """The functions that contain the line, outermost first; empty if the innermost differs."""
    found = [
        one
        for one in ast.walk(module)
        if isinstance(one, _Function) and one.lineno <= frame.line <= (one.end_lineno or 0)
    ]
    found.sort(key=lambda one: one.lineno)
    return found if found and found[-1].name == frame.function else []


def taken(function: _Function, line: int) -> Iterator[ast.expr]:
    """The locks that the statement on this line takes."""
    for one in ast.walk(function):
        if isinstance(one, ast.With | ast.AsyncWith):
            for item in one.items:
                if _covers(item.context_expr, line) and not isinstance(item.context_expr, ast.Call):
                    yield item.context_expr
        elif _is_call(one, "acquire") and _covers(one, line):
            yield one.func.value  # type: ignore[attr-defined]


def is_held(module: ast.Module, frame: Frame, lock: ast.expr, *, waits: bool) -> bool:
    """Whether this call already holds the lock at its line, or waits for it."""
    around = functions_around(module, frame)
    if not around:
        return False
    text, held = ast.unparse(lock), 0
    for one in ast.walk(around[-1]):
        if isinstance(one, ast.With) and one.body[0].lineno <= frame.line <= (one.end_lineno or 0):
            held += sum(
                ast.unparse(item.context_expr) == text
                for item in one.items
                if not (waits and _covers(item.context_expr, frame.line))  # `with lock: pass`
            )
        for name, change in (("acquire", 1), ("release", -1)):
            if _is_call(one, name) and one.end_lineno < frame.line:  # type: ignore[attr-defined]
                held += change * (ast.unparse(one.func.value) == text)  # type: ignore[attr-defined]
    return held > 0


def _makers(module: ast.Module, around: Sequence[_Function], lock: ast.expr) -> set[str]:
    text = ast.unparse(lock)
    inside: list[ast.AST] = [module, *around]
    return {maker for one in inside for value in values_of(one, text) if (maker := _maker(value))}


def _maker(value: ast.expr | None) -> str:
    """`Lock` for `threading.Lock()`; empty if it is no such call."""
    if not isinstance(value, ast.Call):
        return ""
    name = ast.unparse(value.func).rpartition(".")[2]
    return name if name in _MAKERS else ""


def values_of(inside: ast.AST, text: str) -> Iterator[ast.expr | None]:
    """The values assigned to this name or attribute."""
    for one in ast.walk(inside):
        targets: list[ast.expr] = []
        if isinstance(one, ast.Assign):
            targets = one.targets
        elif isinstance(one, ast.AnnAssign | ast.NamedExpr):
            targets = [one.target]
        if any(ast.unparse(target) == text for target in targets):
            yield one.value  # type: ignore[attr-defined]


def _sets(method: _Function, text: str) -> bool:
    return any(True for _ in values_of(method, text))


def _binds(function: _Function, name: str) -> bool:
    """Whether the function has a variable or argument of this name."""
    nodes = list(ast.walk(function))
    if any(isinstance(one, ast.Global | ast.Nonlocal) and name in one.names for one in nodes):
        return False
    return any(
        (isinstance(one, ast.Name) and one.id == name and isinstance(one.ctx, ast.Store))
        or (isinstance(one, ast.arg) and one.arg == name)
        for one in nodes
    )


def _binds_in(body: Sequence[ast.stmt], name: str) -> bool:
    """Whether these statements bind the name, not counting functions inside them."""
    for one in body:
        if isinstance(one, _Function | ast.ClassDef):
            continue
        for inner in ast.walk(one):
            if (
                isinstance(inner, ast.Name)
                and inner.id == name
                and isinstance(inner.ctx, ast.Store)
            ):
                return True
            if isinstance(inner, ast.alias) and (inner.asname or inner.name.split(".")[0]) == name:
                return True
    return False


def _root(lock: ast.expr) -> ast.Name | None:
    """`self` for `self.store.lock`; None if the expression is more than dotted names."""
    while isinstance(lock, ast.Attribute):
        lock = lock.value
    return lock if isinstance(lock, ast.Name) else None


def _is_call(one: ast.AST, method: str) -> bool:
    return (
        isinstance(one, ast.Call)
        and isinstance(one.func, ast.Attribute)
        and one.func.attr == method
    )


def _covers(one: ast.AST, line: int) -> bool:
    return one.lineno <= line <= one.end_lineno  # type: ignore[attr-defined, no-any-return]
