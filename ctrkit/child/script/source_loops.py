"""Reads the loops around a running line from its source, and how often each one runs.

It parses the source of a running frame, and looks up the ends of loops in the frame. Otherwise a
count stays unknown.
"""

from __future__ import annotations

import ast
import linecache
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from ctrkit.child.script.running_frames import RunningFrame, called_name, number_of, value_of

#: Names which show that a loop may end before its count.
PATIENCE = ("patience", "early_stop", "earlystop", "stopping_step")
_THROUGH = ("tqdm", "trange", "enumerate", "track", "progress", "iter", "list", "reversed", "wrap")
_LOOPS = (ast.For, ast.AsyncFor, ast.While)


class Loop(NamedTuple):
    """A loop, and the frames of the calls inside it, innermost first."""

    node: Any
    frame: RunningFrame
    inside: tuple = ()  # type: ignore[type-arg]


def enclosing_loops(frame: RunningFrame) -> list[Loop]:
    """The loops in the frame's function around the running line, innermost first."""
    tree = _tree_of(frame.file)
    if tree is None:
        return []
    scope = _function_at(tree, frame)
    found: list[Loop] = []
    for node in _own_nodes(scope):
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)) and _in_body(node, frame.line):
            found.append(Loop(node, frame))
    return sorted(found, key=lambda loop: loop.node.lineno, reverse=True)


def _in_body(node: Any, line: int) -> bool:
    first = node.body[0].lineno
    last = max(getattr(part, "end_lineno", part.lineno) or 0 for part in node.body)
    return bool(first <= line <= last)


_trees: dict[str, ast.AST | None] = {}


def _tree_of(file: str) -> ast.AST | None:
    if file not in _trees:
        try:
            lines = [] if _has_no_loop_of_a_run(file) else linecache.getlines(file)
            _trees[file] = ast.parse("".join(lines)) if lines else None
        except (SyntaxError, ValueError, RecursionError, OSError):
            _trees[file] = None
    return _trees[file]


def _has_no_loop_of_a_run(file: str) -> bool:
    """Whether it is a file of torch: slow to parse, and on the stack between loop and backward."""
    return file.startswith("<frozen") or "/site-packages/torch/" in file


def _function_at(tree: ast.AST, frame: RunningFrame) -> ast.AST:
    """The innermost function with the frame's name around its line, or the module."""
    best: ast.AST = tree
    for node in ast.walk(tree):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if not is_function or getattr(node, "name", "") != frame.function:
            continue
        first = getattr(node, "lineno", 0)
        if first <= frame.line <= (getattr(node, "end_lineno", None) or first):
            best = node
    return best


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of functions inside it."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            waiting += list(ast.iter_child_nodes(node))


# ---- how often a loop goes round ----


def round_count(loop: Loop) -> int | None:
    """How often the loop runs; None if its source does not tell."""
    if isinstance(loop.node, ast.While):
        return _while_count(loop)
    return _iterable_count(loop.node.iter, loop.frame)


def _iterable_count(node: ast.AST, frame: RunningFrame) -> int | None:
    """The number of items of an iterable, if a range or a sized value tells."""
    if isinstance(node, ast.Call):
        name = called_name(node)
        arguments = list(node.args)
        if name == "range" or name == "trange":
            values = [number_of(part, frame) for part in arguments]
            known_values = [value for value in values if value is not None]
            if values and len(known_values) == len(values):
                return len(range(*known_values[:3]))
            return None
        if arguments and any(part in name.lower() for part in _THROUGH):
            return _iterable_count(arguments[0], frame)
        return None
    if isinstance(node, (ast.List, ast.Tuple)):
        return None if any(isinstance(one, ast.Starred) for one in node.elts) else len(node.elts)
    known, value = value_of(node, frame)
    if not known:
        return None
    total = getattr(value, "total", None)  # a progress bar
    if isinstance(total, int) and type(value).__name__.lower().startswith("tqdm"):
        return total
    return len(value) if isinstance(value, (range, list, tuple)) else None


def _while_count(loop: Loop) -> int | None:
    found = _end_of_while(loop)
    return found[0] if found is not None else None


def _end_of_while(loop: Loop) -> tuple[int, Any] | None:
    """The end of `while step < limit`, or of `while True` with `if step >= limit: break`."""
    tests = [loop.node.test]
    for node in _own_nodes(loop.node):
        if isinstance(node, ast.If) and any(isinstance(part, ast.Break) for part in node.body):
            tests.append(node.test)
    counters = _counters(loop.node)
    for frame in loop.inside:
        counters |= _counters_of_call(frame)
    for test in tests:
        for compare in (part for part in ast.walk(test) if isinstance(part, ast.Compare)):
            limit = _limit(compare, counters, loop.frame)
            if limit is not None:
                return limit, compare
    return None


def moved_by(loop: Loop) -> str | None:
    """What moves the counter of a `while` inside the loop over batches: `batch` or `step`.

    None if it moves once per round of the `while` itself: then it counts epochs.
    """
    found = _end_of_while(loop) if isinstance(loop.node, ast.While) else None
    if found is None:
        return None
    read = {ast.dump(part) for part in (found[1].left, found[1].comparators[0])}
    for inner in _own_nodes(loop.node):
        if not isinstance(inner, (ast.For, ast.AsyncFor, ast.While)) or not read & _counters(inner):
            continue
        for node in _own_nodes(inner):
            if isinstance(node, ast.If) and read & _counters(node) and _makes_a_step(node):
                return "step"  # counted next to the optimizer's step
        return "batch"
    return None


def _counters_of_call(frame: RunningFrame) -> set:  # type: ignore[type-arg]
    """What a running function counts that its caller may read, too: `self.epoch`."""
    tree = _tree_of(frame.file)
    if tree is None or frame.function == "<module>":
        return set()
    scope = _function_at(tree, frame)
    return {text for text in _counters(scope) if text.startswith("Attribute(")}


def moved_in_calls(loop: Loop, batches: Loop) -> str | None:
    """`batch` if a call inside a `while` counts once per batch; None: once per round."""
    found = _end_of_while(loop) if isinstance(loop.node, ast.While) else None
    if found is None:
        return None
    read = {ast.dump(part) for part in (found[1].left, found[1].comparators[0])}
    if read & _counters(loop.node):
        return None
    for frame in loop.inside:
        if not read & _counters_of_call(frame):
            continue
        if any(one is frame for one in batches.inside):
            return "batch"  # the loop over the batches calls it
        tree = _tree_of(frame.file)
        scope = _function_at(tree, frame) if tree is not None else None
        inner = [] if scope is None else [n for n in _own_nodes(scope) if isinstance(n, _LOOPS)]
        return "batch" if any(read & _counters(node) for node in inner) else None
    return None


def _makes_a_step(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) and called_name(part) == "step"
               for part in ast.walk(node))  # fmt: skip


def _counters(node: ast.AST) -> set:  # type: ignore[type-arg]
    """What the loop's body counts: `step`, `self.step`."""
    return {
        ast.dump(_as_read(part.target))
        for part in ast.walk(node)
        if isinstance(part, ast.AugAssign) and isinstance(part.op, ast.Add)
    } | {
        ast.dump(_as_read(part.targets[0]))
        for part in ast.walk(node)
        if isinstance(part, ast.Assign) and isinstance(part.value, ast.BinOp)
        and ast.dump(_as_read(part.targets[0])) == ast.dump(part.value.left)
    }  # fmt: skip


def _as_read(node: Any) -> ast.AST:
    """An assigned name in the form in which it is read."""
    if isinstance(node, ast.Name):
        return ast.Name(id=node.id, ctx=ast.Load())
    if isinstance(node, ast.Attribute):
        return ast.Attribute(value=node.value, attr=node.attr, ctx=ast.Load())
    return node  # type: ignore[no-any-return]


def _limit(compare: ast.Compare, counters: set, frame: RunningFrame) -> int | None:  # type: ignore[type-arg]
    if len(compare.ops) != 1:
        return None
    left, right = compare.left, compare.comparators[0]
    if ast.dump(left) in counters:
        return number_of(right, frame)
    if ast.dump(right) in counters:
        return number_of(left, frame)
    return None


def may_stop(loop: Loop) -> bool:
    """Whether something in the loop's body may end it before its count."""
    for node in ast.walk(loop.node):
        text = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
        if isinstance(text, str) and any(part in text.lower() for part in PATIENCE):
            return True
    return isinstance(loop.node, ast.For) and _breaks(loop.node)


def _breaks(loop: ast.AST) -> bool:
    """Whether the loop's body has a `break` or `return` that ends this loop."""
    waiting = [part for part in ast.iter_child_nodes(loop) if isinstance(part, ast.stmt)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Break, ast.Return)):
            return True
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)):
            waiting += [part for part in ast.walk(node) if isinstance(part, ast.Return)]
        elif not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            waiting += [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.stmt)]
            if hasattr(node, "handlers"):
                waiting += [part for one in node.handlers for part in one.body]
    return False


def place_of(loop: Loop) -> str:
    """File, line and text of the code that sets the loop's end."""
    lines = linecache.getlines(loop.frame.file)
    node = loop.node
    test = _end_of_while(loop) if isinstance(node, ast.While) else None
    number = test[1].lineno if test is not None else node.lineno
    line = lines[number - 1].strip().rstrip(":") if lines else ""
    return f"{os.path.basename(loop.frame.file)}:{number}: {line[:120]}"
