"""Finds what a script does only in some epochs, from the `if`s of its loop over epochs.

`if (epoch + 1) % 5 == 0: evaluate(...)` is true in every fifth round. If the loop counts by a
range, its rounds are known; then the test is evaluated for each round, with the values in the
running frame. No code of the script runs for that.
"""

from __future__ import annotations

import ast
import linecache
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ctrkit.child.script.running_frames import RunningFrame, called_name, number_of, value_of
from ctrkit.child.script.source_loops import Loop

_MOST_ROUNDS = 100_000
#: Functions that only print something, and cost almost nothing.
_SAYS = (
    "print", "write", "log", "info", "debug", "warning", "append", "format", "item", "round",
    "set_description", "set_postfix", "add_scalar", "len", "str", "float", "time", "flush",
)  # fmt: skip
_THROUGH = ("tqdm", "track", "progress")


class Gate(NamedTuple):
    """Lines that run only in some rounds of the loop over epochs.

    They run in `times` of `of` rounds; the first of these is `first_round`, from 1. `kind`: for a
    framework's setting on all validations, which has no lines.
    """

    file: str
    first: int
    last: int
    times: int
    of: int
    first_round: int
    place: str
    kind: str = ""

    @property
    def share(self) -> float:
        """The share of the rounds."""
        return self.times / self.of

    def is_running(self, frame: Any) -> bool:
        """Whether this frame, or one outside it, is in these lines."""
        while frame is not None:
            inside = self.first <= frame.f_lineno <= self.last
            if inside and frame.f_code.co_filename == self.file:
                return True
            frame = frame.f_back
        return False


def gates_of(loops: Sequence[Loop]) -> list[Gate]:
    """The gates of the innermost of these loops that counts by a range."""
    for loop in loops:
        values = _rounds(loop.node.iter, loop.frame) if isinstance(loop.node, ast.For) else None
        if values and isinstance(loop.node.target, ast.Name):
            return list(_gates(loop, values))
    return []


def lightning_gate(frames: Sequence[RunningFrame], epochs: int | None) -> list[Gate]:
    """The gate of Lightning's `check_val_every_n_epoch`."""
    for frame in frames:
        stored = getattr(frame.names.get("self"), "__dict__", {})
        trainer = stored.get("trainer") or stored.get("_trainer")
        every = getattr(trainer, "__dict__", {}).get("check_val_every_n_epoch")
        if isinstance(every, int) and every > 1 and epochs and epochs >= every:
            place = f"Trainer(check_val_every_n_epoch={every})"
            return [Gate("", 0, 0, epochs // every, epochs, every, place, "validation")]
    return []


def _rounds(node: ast.AST, frame: RunningFrame) -> range | None:
    """The values of a loop's variable, if a range gives them."""
    if not isinstance(node, ast.Call) or not node.args:
        known, value = value_of(node, frame)
        return value if known and isinstance(value, range) else None
    name = called_name(node)
    if name in ("range", "trange"):
        numbers = [number_of(part, frame) for part in node.args[:3]]
        known_numbers = [one for one in numbers if one is not None]
        if len(known_numbers) < len(numbers) or (len(numbers) == 3 and not known_numbers[2]):
            return None
        found = range(*known_numbers)
        return found if len(found) <= _MOST_ROUNDS else None
    if any(part in name.lower() for part in _THROUGH):
        return _rounds(node.args[0], frame)
    return None


def _gates(loop: Loop, values: range) -> Iterator[Gate]:
    name, body = loop.node.target.id, loop.node.body
    end = int(body[-1].end_lineno or body[-1].lineno)
    for node in _ifs(body):
        holds = [_truth(node.test, name, value, loop.frame) for value in values]
        rounds = [bool(one) for one in holds]
        first, last = node.body[0].lineno, int(node.body[-1].end_lineno or 0)
        inside: Sequence[ast.stmt] = node.body
        if isinstance(node.body[-1], ast.Continue):  # the lines after it run in the other rounds
            first, last = int(node.end_lineno or node.lineno) + 1, end
            rounds = [not one for one in rounds]
            inside = [part for part in body if part.lineno >= first]
        if None in holds or not 0 < sum(rounds) < len(rounds) or not _does_something(inside):
            continue
        place = _place(loop.frame.file, node.lineno)
        yield Gate(
            loop.frame.file, first, last, sum(rounds), len(rounds), 1 + rounds.index(True), place
        )


def _ifs(body: Sequence[ast.stmt]) -> Iterator[ast.If]:
    """The `if`s in a loop's own body; those inside inner loops belong to steps."""
    for node in body:
        if isinstance(node, ast.If):
            yield node
            yield from _ifs(node.body)
            yield from _ifs(node.orelse)
        elif isinstance(node, (ast.With, ast.Try)):
            yield from _ifs(node.body)


def _does_something(body: Sequence[ast.AST]) -> bool:
    calls = [part for node in body for part in ast.walk(node) if isinstance(part, ast.Call)]
    return any(called_name(call) not in _SAYS for call in calls)


def _place(file: str, line: int) -> str:
    return f"{os.path.basename(file)}:{line}: {linecache.getline(file, line).strip()[:100]}"


# ---- whether a test holds in a round ----


def _truth(node: ast.AST, name: str, value: int, frame: RunningFrame) -> bool | None:
    """Whether the test is true for this value of the loop's variable; None if unknown."""
    if isinstance(node, ast.BoolOp):
        parts = [_truth(part, name, value, frame) for part in node.values]
        decides = isinstance(node.op, ast.Or)
        if decides in parts:
            return decides
        return None if None in parts else not decides
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        inner = _truth(node.operand, name, value, frame)
        return None if inner is None else not inner
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left = _number(node.left, name, value, frame)
        right = _number(node.comparators[0], name, value, frame)
        return None if left is None or right is None else _compared(node.ops[0], left, right)
    number = _number(node, name, value, frame)
    if number is not None:
        return bool(number)
    known, stored = value_of(node, frame)
    simple = stored is None or isinstance(stored, (bool, int, float, str))
    return bool(stored) if known and simple else None


def _compared(operator: ast.cmpop, left: int, right: int) -> bool | None:
    answers = {
        ast.Eq: left == right, ast.NotEq: left != right, ast.Lt: left < right,
        ast.LtE: left <= right, ast.Gt: left > right, ast.GtE: left >= right,
    }  # fmt: skip
    return answers.get(type(operator))


def _number(node: ast.AST, name: str, value: int, frame: RunningFrame) -> int | None:
    if isinstance(node, ast.Name) and node.id == name:
        return value
    if isinstance(node, ast.BinOp):
        left = _number(node.left, name, value, frame)
        right = _number(node.right, name, value, frame)
        if left is None or right is None:
            return None
        if isinstance(node.op, (ast.Mod, ast.FloorDiv)):
            if not right:
                return None
            return left % right if isinstance(node.op, ast.Mod) else left // right
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        return left * right if isinstance(node.op, ast.Mult) else None
    return number_of(node, frame)
