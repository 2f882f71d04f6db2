"""Finds the process that holds a `multiprocessing` lock another one waits for, from the source.

All processes share such a lock: a fork does not copy it, and no thread is to blame for it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctrkit.supervise.explain.lock_origins import functions_around, is_held, taken, values_of
from ctrkit.supervise.explain.scene import Process
from ctrkit.supervise.explain.stacks import Frame, is_users

_MOST_BYTES = 2_000_000
_MODULES = ("multiprocessing", "torch.multiprocessing")


def lock_holders_of(processes: Sequence[Process]) -> dict[int, int | None]:
    """By the pid of each process that waits for a `multiprocessing` lock: the pid of the holder.

    None if the holder is unknown.
    """
    found: dict[int, int | None] = {}
    for process in processes:
        own = [frame for frame in process.stack if is_users(frame)]
        module = _module(own[0].file) if own else None
        if module is None:
            continue
        locks = list(_waited_for(module, own[0]))
        is_of_processes = any(
            frame.is_in("multiprocessing/synchronize.py", "__enter__", "acquire")
            for frame in process.stack[:2]
        ) or any(_is_of_processes(module, lock) for lock in locks)
        if locks and is_of_processes:
            found[process.pid] = _holder(process, processes, module, own[0].file, locks)
    return found


def _module(file: str) -> ast.Module | None:
    try:
        path = Path(file)
        return None if path.stat().st_size > _MOST_BYTES else ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None


def _waited_for(module: ast.Module, frame: Frame) -> Iterator[ast.expr]:
    around = functions_around(module, frame)
    if around:
        yield from taken(around[-1], frame.line)


def _holder(
    waiting: Process,
    processes: Sequence[Process],
    module: ast.Module,
    file: str,
    locks: Sequence[ast.expr],
) -> int | None:
    """The only other process inside the same lock of the same file; None if there is not one."""
    holders = [
        other.pid
        for other in processes
        if other.pid != waiting.pid
        and any(
            is_held(module, frame, lock, waits=number == 0)
            for lock in locks
            for number, frame in enumerate(f for f in other.stack if is_users(f))
            if frame.file == file
        )
    ]
    return holders[0] if len(holders) == 1 else None


def _is_of_processes(module: ast.Module, lock: ast.expr) -> bool:
    """Whether the value assigned to this name comes from `multiprocessing`."""
    made_by = dict(_imported(module))
    for value in values_of(module, ast.unparse(lock)):
        if isinstance(value, ast.Call):
            maker = ast.unparse(value.func)
            first, _, rest = maker.partition(".")
            whole = f"{made_by.get(first, first)}.{rest}"
            if whole.startswith(tuple(f"{name}." for name in _MODULES)):
                return True
    return False


def _imported(module: ast.Module) -> Iterator[tuple[str, str]]:
    """What the module's names mean: `mp` is `torch.multiprocessing`."""
    for one in ast.walk(module):
        if isinstance(one, ast.Import):
            for alias in one.names:
                first = alias.name.partition(".")[0]
                yield alias.asname or first, alias.name if alias.asname else first
        elif isinstance(one, ast.ImportFrom) and one.module:
            for alias in one.names:
                yield alias.asname or alias.name, f"{one.module}.{alias.name}"
