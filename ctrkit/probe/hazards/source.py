"""Reads the source of a workload's file for what would go wrong in workers, without running it.

It only sees what is written: a name that is bound elsewhere is unknown. It follows imports within
the user's own folder. What an examination of the living loader shows takes precedence.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ctrkit.core.imported_files import files_of

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_STARTERS = ("Pool", "ProcessPoolExecutor", "start_processes")
_CONSUMERS = ("iter", "list", "tuple", "enumerate", "zip", "tqdm")
_THREAD_SETTERS = {"set_num_threads": (1,), "setNumThreads": (0, 1)}
_PARTS = ("dataset", "collate_fn", "worker_init_fn")


@dataclass(frozen=True)
class SourceNote:
    """A problem in a line of a file.

    Attributes:
        part: the DataLoader's argument, if it is about one.
        file: name of another file that the workload's file imports.
    """

    kind: Literal["unguarded", "threads", "unpicklable"]
    line: int
    text: str
    part: str = ""
    file: str = ""

    @property
    def where(self) -> str:
        """`line 3`, or `rows.py, line 3`."""
        return f"{self.file}, line {self.line}" if self.file else f"line {self.line}"


def look_at_files(path: Path, name: str) -> tuple[SourceNote, ...]:
    """Notes on the workload's file, then on the files of its folder that it imports.

    Args:
        path: the workload's file.
        name: the function in it that makes the loader.
    """
    notes: list[SourceNote] = []
    for file in files_of(path):
        if file.path == path:
            notes += look_at_source(file.text, name)
            continue
        seen = look_at_source(file.text)
        # an import inside a function does not run when a worker starts
        wanted = (note for note in seen if file.runs or note.kind != "unguarded")
        notes += (replace(note, file=file.path.name) for note in wanted)
    return tuple(notes)


def look_at_source(text: str, name: str = "") -> tuple[SourceNote, ...]:
    """Notes on the source of a file, by line.

    Args:
        text: Python source; any other text has no notes.
        name: the function that makes the loader, which runs only in the main process.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return ()
    notes = [*_unguarded(tree), *_raised_threads(tree, name), *_unpicklable(tree)]
    return tuple(sorted(notes, key=lambda note: note.line))


def _unguarded(tree: ast.Module) -> Iterator[SourceNote]:
    """Top-level lines that would start processes in each worker that imports the file."""
    look = _ProcessLook(tree)
    for statement in tree.body:
        if isinstance(statement, _SCOPES) or _is_guard(statement):
            continue
        for node in _running(statement):
            what = look.starts(node)
            if what:
                yield SourceNote("unguarded", getattr(node, "lineno", statement.lineno), what)
                break


def _is_guard(node: ast.AST) -> bool:
    """Whether the node is `if __name__ == ...`."""
    return isinstance(node, ast.If) and any(
        isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
    )


class _ProcessLook:
    """Finds nodes of a file that start processes, directly or through a function of the file."""

    def __init__(self, tree: ast.Module) -> None:
        functions = [node for node in tree.body if isinstance(node, _FUNCTIONS)]
        self.makers = {f.name for f in functions if any(map(_returns_loader, ast.walk(f)))}
        self.loaders = self._bound(tree, lambda call: self._makes_loader(call))
        self.processes = self._bound(tree, lambda call: _callee(call) == "Process")
        self.starters: set[str] = set()
        grown = True
        while grown:
            found = {f.name for f in functions if any(map(self.starts, _body(f)))}
            grown = not found <= self.starters
            self.starters |= found

    def starts(self, node: ast.AST) -> str:
        """What the node starts, in words; empty if nothing."""
        if isinstance(node, (ast.For, ast.comprehension)) and self._is_loader(node.iter):
            return "iterates a DataLoader with workers"
        if not isinstance(node, ast.Call):
            return ""
        name = _callee(node)
        if name in _CONSUMERS and any(map(self._is_loader, node.args)):
            return "iterates a DataLoader with workers"
        if name in _STARTERS or (name == "spawn" and isinstance(node.func, ast.Attribute)):
            return f"calls {name}"
        if name == "start" and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            made = isinstance(owner, ast.Call) and _callee(owner) == "Process"
            if made or (isinstance(owner, ast.Name) and owner.id in self.processes):
                return "starts a process"
        if isinstance(node.func, ast.Name) and name in self.starters:
            return f"calls {name}(), which starts processes"
        return ""

    def _bound(self, tree: ast.Module, wanted: object) -> set[str]:
        return {
            target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and wanted(node.value)  # type: ignore[operator]
            for target in node.targets
            if isinstance(target, ast.Name)
        }

    def _makes_loader(self, call: ast.Call) -> bool:
        """Whether it is a DataLoader with workers, or calls a function that makes one."""
        if any(k.arg in ("workers", "num_workers") and _is_zero(k.value) for k in call.keywords):
            return False
        return _has_workers(call) or (
            isinstance(call.func, ast.Name) and _callee(call) in self.makers
        )

    def _is_loader(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self.loaders
        if not isinstance(node, ast.Call):
            return False
        wraps = _callee(node) in _CONSUMERS and any(map(self._is_loader, node.args))
        return wraps or self._makes_loader(node)


def _returns_loader(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Return)
        and isinstance(node.value, ast.Call)
        and _has_workers(node.value)
    )


def _has_workers(call: ast.Call) -> bool:
    """Whether it is `DataLoader(...)` with workers, or with an unknown number of them."""
    if _callee(call) != "DataLoader":
        return False
    workers = next((k.value for k in call.keywords if k.arg == "num_workers"), None)
    return workers is not None and not _is_zero(workers)


def _is_zero(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and not node.value


def _raised_threads(tree: ast.Module, name: str) -> Iterator[SourceNote]:
    """Calls that raise the number of threads, in functions that a worker may run."""
    seen = set()
    for function in ast.walk(tree):
        if not isinstance(function, _FUNCTIONS) or function.name == name:
            continue
        for node in _body(function):
            if not isinstance(node, ast.Call) or node.lineno in seen:
                continue
            called = _callee(node)
            harmless = _THREAD_SETTERS.get(called)
            if harmless is None or not node.args:
                continue
            if not (isinstance(node.args[0], ast.Constant) and node.args[0].value in harmless):
                seen.add(node.lineno)
                yield SourceNote("threads", node.lineno, f"{function.name} calls {called}")


def _unpicklable(tree: ast.Module) -> Iterator[SourceNote]:
    """Lambdas, local functions and local classes that a DataLoader would send to its workers."""
    seen = set()
    # inner functions come later in the walk, and a call belongs to the innermost one
    for scope in reversed([n for n in ast.walk(tree) if isinstance(n, (*_FUNCTIONS, ast.Module))]):
        local = set() if isinstance(scope, ast.Module) else _local_definitions(scope)
        for call in _body(scope):
            if not isinstance(call, ast.Call) or _callee(call) != "DataLoader" or call in seen:
                continue
            seen.add(call)
            for part, value in _handed_over(call):
                what = _what_is_local(value, local)
                if what:
                    yield SourceNote("unpicklable", value.lineno, what, part)


def _handed_over(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    if call.args and not isinstance(call.args[0], ast.Starred):
        yield "dataset", call.args[0]
    for keyword in call.keywords:
        if keyword.arg in _PARTS:
            yield keyword.arg, keyword.value


def _local_definitions(function: ast.AST) -> set[str]:
    names = set()
    for node in _body(function):
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _what_is_local(value: ast.expr, local: set[str]) -> str:
    if isinstance(value, ast.Lambda):
        return "a lambda"
    named = value.func if isinstance(value, ast.Call) else value
    if isinstance(named, ast.Name) and named.id in local:
        return f"{named.id}, which is defined inside a function"
    return ""


def _callee(call: ast.Call) -> str:
    """The called name: `DataLoader` for `torch.utils.data.DataLoader(...)`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The node and everything that runs with it, without the bodies of definitions in it."""
    yield node
    if isinstance(node, _SCOPES):
        return
    for child in ast.iter_child_nodes(node):
        if not _is_guard(child):
            yield from _running(child)


def _body(scope: ast.AST) -> Iterator[ast.AST]:
    """Everything that runs when the function is called, or the module imported."""
    for statement in getattr(scope, "body", []):
        yield from _running(statement)
