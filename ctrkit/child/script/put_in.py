"""Changes a loader's configuration when it is asked for an iterator.

If a loader cannot take a setting, that is refused with the reason before anything changes.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ctrkit.child.script.seen_loaders import is_iterable, shares_out


class Refused(Exception):
    """Why a loader cannot take a setting: one sentence."""


def put_in(loader: Any, cell: Mapping[str, Any], axes: Iterable[str]) -> None:
    """Set these axes of the cell on the loader; the others stay as in the script.

    Raises:
        Refused: the loader cannot take them; nothing was changed.
    """
    axes = set(axes)
    if not hasattr(loader, "batch_sampler"):
        raise Refused(
            f"{type(loader).__qualname__} is not a torch DataLoader, so ctrkit leaves it as it is"
        )
    if getattr(loader, "_iterator", None) is not None and not axes <= {"pin"}:
        raise Refused("its iterator was made before and is kept (persistent workers)")
    wanted = _wanted(loader, cell, axes)
    refuse_unfit(loader, wanted["workers"], wanted["start_method"])
    _set(loader, wanted)


def _wanted(loader: Any, cell: Mapping[str, Any], axes: set) -> dict[str, Any]:  # type: ignore[type-arg]
    workers = int(cell["workers"]) if "workers" in axes else int(loader.num_workers)
    context = loader.multiprocessing_context
    prefetch = loader.prefetch_factor
    persistent = bool(loader.persistent_workers)
    if "start_method" in axes:
        context = cell.get("start_method")
    if "prefetch" in axes:
        prefetch = cell.get("prefetch")
    if "persistent" in axes:
        persistent = bool(cell.get("persistent"))
    if not workers:
        context, prefetch, persistent = None, None, False
    return {
        "workers": workers,
        "start_method": context,
        "prefetch": (prefetch or 2) if workers else None,
        "persistent": persistent,
        "pin": bool(cell.get("pin")) if "pin" in axes else bool(loader.pin_memory),
        "timeout": loader.timeout if workers else 0,
    }


def _set(loader: Any, wanted: Mapping[str, Any]) -> None:
    """Set the values in an order that torch's setters accept."""
    loader.multiprocessing_context = None  # its setter refuses a context without workers
    loader.num_workers = wanted["workers"]
    if wanted["start_method"] is not None:
        loader.multiprocessing_context = wanted["start_method"]
    loader.prefetch_factor = wanted["prefetch"]
    loader.__dict__["persistent_workers"] = wanted["persistent"]  # its setter refuses any change
    loader.pin_memory = wanted["pin"]
    loader.timeout = wanted["timeout"]


def refuse_unfit(loader: Any, workers: int, method: Any) -> None:
    """Check that this many workers, started in this way, can read the loader.

    Raises:
        Refused: they cannot.
    """
    if not workers:
        return
    as_written = int(loader.num_workers)
    repeats = is_iterable(loader) and workers != as_written and workers > 1
    if repeats and not shares_out(loader.dataset):
        raise Refused(
            f"{type(loader.dataset).__qualname__} is iterated and does not ask get_worker_info "
            f"which part of it a worker has: each of {workers} workers would yield all of its rows"
        )
    name = start_method_name(method)
    if name == "fork":
        return
    problem = unpicklable(loader)
    if problem:
        raise Refused(f"workers by {name} would have to receive what cannot be pickled: {problem}")
    if has_main_guard() is False:
        raise Refused(
            f"the script starts its work outside of `if __name__ == '__main__':`, so each worker "
            f"that is started by {name} would run it again"
        )


def start_method_name(method: Any) -> str:
    """The name of the start method of a DataLoader with this context."""
    if isinstance(method, str):
        return method
    import multiprocessing

    return str((method or multiprocessing).get_start_method())


def unpicklable(loader: Any) -> str:
    """What part of the loader cannot be sent to a worker, and why; empty if all can."""
    from ctrkit.child.workloads.pickling import pickling_problem

    for name in ("dataset", "collate_fn", "worker_init_fn"):
        problem = pickling_problem(name, getattr(loader, name, None))
        if problem:
            return problem
    return _unknown_to_workers(loader)


def _unknown_to_workers(loader: Any) -> str:
    """What pickles here but is unknown to a worker, which imports the script without its guard."""
    main = sys.modules.get("__main__")
    lines = linecache.getlines(getattr(main, "__file__", None) or "")
    if not lines:
        return ""
    try:
        known = _names_without_guard(ast.parse("".join(lines)))
    except (SyntaxError, ValueError):
        return ""
    for name, part in _named_parts(loader):
        if getattr(part, "__module__", "") == "__main__" and part.__qualname__ not in known:
            return f"{name} ({part.__qualname__} is defined under `if __name__ == '__main__':`)"
    return ""


def _named_parts(loader: Any) -> Iterator[tuple[str, Any]]:
    """Classes and functions by whose names the loader's parts are pickled."""
    for name in ("dataset", "collate_fn", "worker_init_fn"):
        value = getattr(loader, name, None)
        stored = getattr(value, "__dict__", None)
        held = stored if isinstance(stored, dict) and name == "dataset" else {}
        parts = {name: value, **{f"{name}.{key}": item for key, item in held.items()}}
        for place, part in parts.items():
            named = part if hasattr(part, "__qualname__") else type(part)
            if "." not in named.__qualname__:
                yield place, named


def _names_without_guard(tree: ast.Module) -> set[str]:
    """Names that a module binds at its top level, outside its main guard."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.If) and _asks_for_name(node.test):
            continue
        for part in ast.walk(node):
            if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(part.name)
            elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            elif isinstance(part, ast.alias):
                names.add((part.asname or part.name).split(".")[0])
    return names


def _asks_for_name(test: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(test))


def has_main_guard() -> bool | None:
    """Whether the running script works under `if __name__ == "__main__"`; None if unknown.

    Call it from within the script's work.
    """
    frame: Any = sys._getframe(1)
    found = None
    while frame is not None:
        is_top = frame.f_code.co_name == "<module>"
        if is_top and frame.f_globals.get("__name__") in ("__main__", "__mp_main__"):
            found = frame
        frame = frame.f_back
    if found is None:
        return None
    return _is_guarded(found.f_code.co_filename, found.f_lineno)


def _is_guarded(file: str, line: int) -> bool | None:
    lines: list[str] = linecache.getlines(file)
    if not lines:
        return None
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return None
    for node in tree.body:
        if isinstance(node, ast.If) and node.lineno <= line <= (node.end_lineno or line):
            return _asks_for_name(node.test)
    return False
