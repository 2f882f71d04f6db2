"""How long a script's run is: read from the loops around the training step, and from frameworks.

The source of each running frame is parsed; of the loops that enclose the line that runs, the ends
are looked up: names and attributes in the frame, constants, nothing that would run the script's
own code. What cannot be told so stays unknown.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ctrkit.child.script.seen_loaders import is_script_file
from ctrkit.child.script.unseen import FILE_NAME

#: Attributes and variables by which a loop without a readable end is named the number of epochs.
EPOCH_NAMES = (
    "epochs", "num_epochs", "n_epochs", "max_epochs", "total_epochs", "num_train_epochs",
    "max_epoch", "nb_epochs", "nepochs", "n_epoch", "num_epoch",
)  # fmt: skip
_OWN_FOLDER = os.path.dirname(__file__) + os.sep
#: References to a frame's dictionary of names: the frame's, ours, and the argument that asks.
_OURS = 3
_PATIENCE = ("patience", "early_stop", "earlystop", "stopping_step")
_THROUGH = ("tqdm", "trange", "enumerate", "track", "progress", "iter", "list", "reversed", "wrap")


class RunningFrame(NamedTuple):
    """A running function: its file, the line that runs, and its names."""

    file: str
    line: int
    function: str
    names: dict[str, Any]
    globals: dict[str, Any]


class Length(NamedTuple):
    """The length of a run: `epochs`, or `steps` of a loop that counts batches or optimizer steps.

    `told_by` says what tells it, in words; `at_most`: early stopping may end it sooner;
    `by_optimizer`: each of the steps is one of the optimizer, of which a batch may be a part.
    """

    epochs: int | None = None
    steps: int | None = None
    told_by: str = ""
    at_most: bool = False
    by_optimizer: bool = False


def as_said(epochs: int, read: Length | None) -> Length:
    """So many epochs as the user said; what the script itself says stands beside it."""
    told_by = "--epochs"
    if read is not None and (read.epochs or read.steps) and read.epochs != epochs:
        own = f"{read.epochs} epochs" if read.epochs else f"{read.steps} steps"
        told_by += f"; the script says {own}: {read.told_by}"
    return Length(epochs=epochs, told_by=told_by)


class _ForLoop(NamedTuple):
    """A loop, and the frames of what it calls, innermost first."""

    node: Any
    frame: RunningFrame
    inside: tuple = ()  # type: ignore[type-arg]


def frames_from(frame: Any) -> list[RunningFrame]:
    """The running frames from this one outwards."""
    found = []
    while frame is not None:
        code = frame.f_code
        own = code.co_filename.startswith((_OWN_FOLDER, FILE_NAME))
        if not own and not _is_torchs(frame):  # an optimizer's step loops over its hooks
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

    Before Python 3.13 a frame keeps what it was asked for, and with it every batch and every graph
    that its names stood for, until it returns.
    """
    names = frame.f_locals
    copy = dict(names)
    kept = sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED
    if kept and sys.getrefcount(names) <= _OURS:  # the script itself has not called locals()
        names.clear()
    return copy


def run_length(
    frames: Sequence[RunningFrame],
    loader: Any = None,
    length: int | None = None,
    backwards: int = 1,
) -> Length:
    """How long the run is whose training step is under way in these frames, innermost first.

    Args:
        frames: running at a backward pass.
        loader: whose batches are trained on.
        length: batches of its epoch, where that is known.
        backwards: backward passes for each optimizer step.
    """
    told = _framework_length(frames)
    if told is not None:
        return told
    loops = [
        loop._replace(inside=tuple(frames[:i]))
        for i, frame in enumerate(frames)
        for loop in _enclosing_loops(frame)
    ]
    return _length_of_loops(loops, loader, length, backwards) or _named_length(frames) or Length()


# ---- loops ----


def _length_of_loops(
    loops: Sequence[_ForLoop], loader: Any, length: int | None, backwards: int
) -> Length | None:
    """Of the loops from the innermost outwards: those outside of the batches' one are epochs."""
    inner = next((i for i, loop in enumerate(loops) if _iterates(loop, loader)), None)
    counts = [_count(loop) for loop in loops]
    if inner is None and loader is not None:
        # what goes over batches in a way that cannot be seen through, or counts them
        unclear = (i for i, count in enumerate(counts) if count is None or count == length)
        inner = next(unclear, None)
    if inner is not None:
        alone = Length(epochs=1, told_by="no loop around the one over the batches")
        outside = _length_outside(loops[inner + 1 :], loops[inner])
        goes_on = isinstance(loops[inner].node, ast.While) and counts[inner] is None
        return outside or (None if inner + 1 < len(loops) or goes_on else alone)
    return _length_in_steps(loops, counts, backwards)


def _length_in_steps(
    loops: Sequence[_ForLoop], counts: Sequence[int | None], backwards: int
) -> Length | None:
    """Of loops that all count: together they make the steps, but for that of an accumulation."""
    steps, at_most = 1, False
    places: list[str] = []
    for i, (loop, count) in enumerate(zip(loops, counts)):
        accumulates = i == 0 and count == backwards and backwards > 1 and len(loops) > 1
        if accumulates:
            continue
        if count is None:  # the others alone would make too few
            return Length()
        steps *= count
        places.append(_place(loop))
        at_most = at_most or _may_stop(loop)
    if not places:
        return None
    return Length(steps=steps, told_by="; ".join(reversed(places)), at_most=at_most)


def _length_outside(loops: Sequence[_ForLoop], batches: _ForLoop) -> Length | None:
    """Loops around that over the batches count epochs, but where their counter moves inside it.

    One of the script's own around these that goes round nobody knows how often leaves all unknown.
    """
    epochs, at_most = 1, False
    places: list[str] = []
    for loop in loops:
        count = _count(loop)
        if count is None:
            if isinstance(loop.node, ast.While) and not places:
                return _named_length([loop.frame])
            if places and is_script_file(loop.frame.file):
                return Length()
            continue
        moved = _moved_by(loop) or _moved_in_calls(loop, batches)
        if moved is not None:
            return Length(
                steps=count, told_by=_place(loop), at_most=_may_stop(loop),
                by_optimizer=moved == "step",
            )  # fmt: skip
        epochs *= count
        places.append(_place(loop))
        at_most = at_most or _may_stop(loop)
    if not places:
        return None
    return Length(epochs=epochs, told_by="; ".join(places), at_most=at_most)


def _enclosing_loops(frame: RunningFrame) -> list[_ForLoop]:
    """The loops of the frame's function around the line that runs, innermost first."""
    tree = _tree_of(frame.file)
    if tree is None:
        return []
    scope = _function_at(tree, frame)
    found: list[_ForLoop] = []
    for node in _own_nodes(scope):
        if isinstance(node, (ast.For, ast.AsyncFor, ast.While)) and _in_body(node, frame.line):
            found.append(_ForLoop(node, frame))
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
    """Torch's own files, which are long to parse, stand between a loop and its backward pass."""
    return file.startswith("<frozen") or "/site-packages/torch/" in file


def _function_at(tree: ast.AST, frame: RunningFrame) -> ast.AST:
    """The innermost function of the frame's name around its line, or the module."""
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


def _iterates(loop: _ForLoop, loader: Any) -> bool:
    """Whether the loop goes over the loader, or over something that holds it."""
    if loader is None or isinstance(loop.node, ast.While):
        return False
    for node in ast.walk(loop.node.iter):
        if isinstance(node, (ast.Name, ast.Attribute)):
            known, value = _value(node, loop.frame)
            if known and _holds(value, loader, 3):
                return True
    return False


def _holds(value: Any, loader: Any, depth: int) -> bool:
    data = getattr(loader, "dataset", None)
    if value is loader or (data is not None and (value is data or _dataset_of(value) is data)):
        return True
    if depth == 0:
        return False
    inner = getattr(value, "__dict__", None)
    if not isinstance(inner, dict):
        return False
    return any(
        _holds(part, loader, depth - 1)
        for name, part in list(inner.items())[:50]
        if "load" in name or name in ("iterable", "_iterable", "data", "dl", "inner", "wrapped")
    )


def _dataset_of(value: Any) -> Any:
    stored = getattr(value, "__dict__", None)
    return stored.get("dataset") if isinstance(stored, dict) else None


# ---- how often a loop goes round ----


def _count(loop: _ForLoop) -> int | None:
    if isinstance(loop.node, ast.While):
        return _while_count(loop)
    return _iterable_count(loop.node.iter, loop.frame)


def _iterable_count(node: ast.AST, frame: RunningFrame) -> int | None:
    """How many items an iterable has, where a range or a sized value tells."""
    if isinstance(node, ast.Call):
        name = _called_name(node)
        arguments = list(node.args)
        if name == "range" or name == "trange":
            values = [_number(part, frame) for part in arguments]
            known_values = [value for value in values if value is not None]
            if values and len(known_values) == len(values):
                return len(range(*known_values[:3]))
            return None
        if arguments and any(part in name.lower() for part in _THROUGH):
            return _iterable_count(arguments[0], frame)
        return None
    if isinstance(node, (ast.List, ast.Tuple)):
        return None if any(isinstance(one, ast.Starred) for one in node.elts) else len(node.elts)
    known, value = _value(node, frame)
    if not known:
        return None
    total = getattr(value, "total", None)  # a progress bar
    if isinstance(total, int) and type(value).__name__.lower().startswith("tqdm"):
        return total
    return len(value) if isinstance(value, (range, list, tuple)) else None


def _called_name(node: ast.Call) -> str:
    called = node.func
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""


def _while_count(loop: _ForLoop) -> int | None:
    found = _end_of_while(loop)
    return found[0] if found is not None else None


def _end_of_while(loop: _ForLoop) -> tuple[int, Any] | None:
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


def _moved_by(loop: _ForLoop) -> str | None:
    """What moves the counter of a `while` inside the loop over the batches: `batch` or `step`.

    None where it moves once a round of the `while` itself: then it counts epochs.
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
                return "step"  # counted beside the optimizer's own
        return "batch"
    return None


def _counters_of_call(frame: RunningFrame) -> set:  # type: ignore[type-arg]
    """What a running function counts up, of what its caller may read too: `self.epoch`."""
    tree = _tree_of(frame.file)
    if tree is None or frame.function == "<module>":
        return set()
    scope = _function_at(tree, frame)
    return {text for text in _counters(scope) if text.startswith("Attribute(")}


def _moved_in_calls(loop: _ForLoop, batches: _ForLoop) -> str | None:
    """`batch` where what a `while` calls counts up once a batch; None: once a round."""
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
            return "batch"  # called by the loop over the batches
        tree = _tree_of(frame.file)
        scope = _function_at(tree, frame) if tree is not None else None
        inner = [] if scope is None else [n for n in _own_nodes(scope) if isinstance(n, _LOOPS)]
        return "batch" if any(read & _counters(node) for node in inner) else None
    return None


_LOOPS = (ast.For, ast.AsyncFor, ast.While)


def _makes_a_step(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Call) and _called_name(part) == "step"
               for part in ast.walk(node))  # fmt: skip


def _counters(node: ast.AST) -> set:  # type: ignore[type-arg]
    """What the loop's body counts up: `step`, `self.step`."""
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
    """A name that is assigned to, as it looks where it is read."""
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
        return _number(right, frame)
    if ast.dump(right) in counters:
        return _number(left, frame)
    return None


def _number(node: ast.AST, frame: RunningFrame) -> int | None:
    """A whole number that a name, an attribute, a constant or a sum of such stands for."""
    if isinstance(node, ast.BinOp) and isinstance(
        node.op, (ast.Add, ast.Sub, ast.Mult, ast.FloorDiv)
    ):
        left, right = _number(node.left, frame), _number(node.right, frame)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        return left // right if right else None
    if isinstance(node, ast.Call) and _called_name(node) == "int" and len(node.args) == 1:
        return _number(node.args[0], frame)
    known, value = _value(node, frame)
    if not known or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


_NAMESPACES = ("Namespace", "SimpleNamespace", "DictConfig", "CfgNode", "EasyDict", "Config")


def _value(node: ast.AST, frame: RunningFrame) -> tuple[bool, Any]:
    """What a name, a constant, an attribute or an item stands for; no code of the script is run."""
    if isinstance(node, ast.Constant):
        return True, node.value
    if isinstance(node, ast.Name):
        for names in (frame.names, frame.globals):
            if node.id in names:
                return True, names[node.id]
        return False, None
    if isinstance(node, ast.Attribute):
        known, owner = _value(node.value, frame)
        return _attribute(owner, node.attr) if known else (False, None)
    if isinstance(node, ast.Subscript):
        known, owner = _value(node.value, frame)
        told, name = _value(node.slice, frame)
        if known and told and isinstance(owner, (dict, list, tuple)):
            try:
                return True, owner[name]
            except (KeyError, IndexError, TypeError):
                return False, None
    return False, None


def _attribute(owner: Any, name: str) -> tuple[bool, Any]:
    """An attribute that is stored, not computed: in the object, its class, or its settings."""
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


def _may_stop(loop: _ForLoop) -> bool:
    """Whether something in the loop's body may end it before its count."""
    for node in ast.walk(loop.node):
        text = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
        if isinstance(text, str) and any(part in text.lower() for part in _PATIENCE):
            return True
    return isinstance(loop.node, ast.For) and _breaks(loop.node)


def _breaks(loop: ast.AST) -> bool:
    """Whether a `break` or a `return` of this very loop is in its body."""
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


def _place(loop: _ForLoop) -> str:
    lines = linecache.getlines(loop.frame.file)
    node = loop.node
    test = _end_of_while(loop) if isinstance(node, ast.While) else None
    number = test[1].lineno if test is not None else node.lineno
    line = lines[number - 1].strip().rstrip(":") if lines else ""
    return f"{os.path.basename(loop.frame.file)}:{number}: {line[:120]}"


# ---- names and frameworks ----


def _named_length(frames: Sequence[RunningFrame]) -> Length | None:
    """A variable, or an attribute of `self`, that is called the number of epochs."""
    for frame in frames:
        owners = [("", frame.names)]
        for name in ("self", "args", "opt", "config", "cfg"):
            stored = getattr(frame.names.get(name), "__dict__", None)
            if isinstance(stored, dict):
                owners.append((f"{name}.", stored))
        for prefix, names in owners:
            for name in (*EPOCH_NAMES, *(f"_{one}" for one in EPOCH_NAMES)):
                value = names.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    told_by = f"{prefix}{name} in {os.path.basename(frame.file)}:{frame.line}"
                    return Length(epochs=value, told_by=told_by, at_most=_names_patience(names))
    return None


def _names_patience(names: dict[str, Any]) -> bool:
    return any(part in str(name).lower() for name in names for part in _PATIENCE)


def _framework_length(frames: Sequence[RunningFrame]) -> Length | None:
    for frame in frames:
        owner = frame.names.get("self")
        for read in (_trainer_length, _lightning_length):
            told = read(owner)
            if told is not None:
                return told
    return None


def _trainer_length(owner: Any) -> Length | None:
    """Of a Hugging Face Trainer."""
    state = getattr(owner, "__dict__", {}).get("state")
    if state is None or type(state).__name__ != "TrainerState":
        return None
    steps, epochs = state.max_steps, state.num_train_epochs
    stops = _has_early_stopping(getattr(owner, "callback_handler", None))
    asked = getattr(getattr(owner, "args", None), "max_steps", -1)
    if asked is not None and asked > 0:
        return Length(steps=int(asked), told_by="TrainingArguments.max_steps", at_most=stops)
    if epochs and epochs > 0:
        return Length(
            epochs=int(epochs), steps=int(steps) if steps and steps > 0 else None,
            told_by="Trainer's num_train_epochs", at_most=stops,
        )  # fmt: skip
    return None


def _lightning_length(owner: Any) -> Length | None:
    """Of a Lightning Trainer."""
    stored = getattr(owner, "__dict__", {})
    trainer = stored.get("trainer") or stored.get("_trainer")
    fit_loop = getattr(trainer, "__dict__", {}).get("fit_loop")
    if fit_loop is None or not hasattr(fit_loop, "max_epochs"):
        return None
    stops = _has_early_stopping(trainer)
    epochs, steps = fit_loop.max_epochs, getattr(fit_loop, "max_steps", -1)
    limit = int(steps) if steps is not None and steps > 0 else None
    if epochs is not None and epochs > 0:
        return Length(
            epochs=int(epochs), steps=limit, told_by="Trainer(max_epochs)",
            at_most=stops or limit is not None,
        )  # fmt: skip
    if limit is not None:
        return Length(steps=limit, told_by="Trainer(max_steps)", at_most=stops)
    return Length(told_by="")


def _has_early_stopping(owner: Any) -> bool:
    callbacks = getattr(owner, "callbacks", None) or ()
    return any("EarlyStopping" in type(callback).__name__ for callback in callbacks)
