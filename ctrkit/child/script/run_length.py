"""Finds how long a script's run is, from the loops around the training step and frameworks.

It asks a framework's trainer first (`named_lengths.py`), then the loops (`source_loops.py`), then
variables named like the number of epochs. Otherwise the length stays unknown.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any

from ctrkit.child.script.length import Length
from ctrkit.child.script.named_lengths import framework_length, named_length
from ctrkit.child.script.running_frames import RunningFrame, value_of
from ctrkit.child.script.seen_loaders import is_script_file
from ctrkit.child.script.source_loops import (
    Loop,
    enclosing_loops,
    may_stop,
    moved_by,
    moved_in_calls,
    place_of,
    round_count,
)  # fmt: skip


def run_length(
    frames: Sequence[RunningFrame],
    loader: Any = None,
    length: int | None = None,
    backwards: int = 1,
) -> Length:
    """The length of the run whose training step is running in these frames, innermost first.

    Args:
        frames: the frames at a backward pass.
        loader: the loader that is trained on.
        length: batches of its epoch, if known.
        backwards: backward passes per optimizer step.
    """
    told = framework_length(frames)
    if told is not None:
        return told
    loops = _loops_around(frames)
    return _length_of_loops(loops, loader, length, backwards) or named_length(frames) or Length()


def loops_over_epochs(
    frames: Sequence[RunningFrame], loader: Any = None, length: int | None = None
) -> list[Loop]:
    """The loops around the loop over batches, innermost first; arguments as above."""
    loops = _loops_around(frames)
    inner = _place_of_batches(loops, [round_count(loop) for loop in loops], loader, length)
    return [] if inner is None else loops[inner + 1 :]


def _loops_around(frames: Sequence[RunningFrame]) -> list[Loop]:
    return [
        loop._replace(inside=tuple(frames[:i]))
        for i, frame in enumerate(frames)
        for loop in enclosing_loops(frame)
    ]


def _place_of_batches(
    loops: Sequence[Loop], counts: Sequence[int | None], loader: Any, length: int | None
) -> int | None:
    """Index of the loop over the batches, counted from the innermost."""
    inner = next((i for i, loop in enumerate(loops) if _iterates(loop, loader)), None)
    if inner is None and loader is not None:
        # a loop that iterates over batches in an unreadable way, or counts them
        unclear = (i for i, count in enumerate(counts) if count is None or count == length)
        inner = next(unclear, None)
    return inner


def _length_of_loops(
    loops: Sequence[Loop], loader: Any, length: int | None, backwards: int
) -> Length | None:
    """The length from loops, innermost first: those outside the loop over batches are epochs."""
    counts = [round_count(loop) for loop in loops]
    inner = _place_of_batches(loops, counts, loader, length)
    if inner is not None:
        alone = Length(epochs=1, told_by="no loop around the one over the batches")
        outside = _length_outside(loops[inner + 1 :], loops[inner])
        goes_on = isinstance(loops[inner].node, ast.While) and counts[inner] is None
        return outside or (None if inner + 1 < len(loops) or goes_on else alone)
    return _length_in_steps(loops, counts, backwards)


def _length_in_steps(
    loops: Sequence[Loop], counts: Sequence[int | None], backwards: int
) -> Length | None:
    """The length from loops that all count: their product are the steps, without accumulation."""
    steps, at_most = 1, False
    places: list[str] = []
    for i, (loop, count) in enumerate(zip(loops, counts)):
        accumulates = i == 0 and count == backwards and backwards > 1 and len(loops) > 1
        if accumulates:
            continue
        if count is None:  # the others alone would give too few
            return Length()
        steps *= count
        places.append(place_of(loop))
        at_most = at_most or may_stop(loop)
    if not places:
        return None
    return Length(steps=steps, told_by="; ".join(reversed(places)), at_most=at_most)


def _length_outside(loops: Sequence[Loop], batches: Loop) -> Length | None:
    """The length from loops outside the batches': they count epochs unless a counter moves inside.

    If one of the script's own loops around them has an unknown count, everything is unknown.
    """
    epochs, at_most = 1, False
    places: list[str] = []
    for loop in loops:
        count = round_count(loop)
        if count is None:
            if isinstance(loop.node, ast.While) and not places:
                return named_length([loop.frame])
            if places and is_script_file(loop.frame.file):
                return Length()
            continue
        moved = moved_by(loop) or moved_in_calls(loop, batches)
        if moved is not None:
            return Length(
                steps=count, told_by=place_of(loop), at_most=may_stop(loop),
                by_optimizer=moved == "step",
            )  # fmt: skip
        epochs *= count
        places.append(place_of(loop))
        at_most = at_most or may_stop(loop)
    if not places:
        return None
    return Length(
        epochs=epochs, told_by="; ".join(places), at_most=at_most, in_stages=len(places) > 1
    )


def _iterates(loop: Loop, loader: Any) -> bool:
    """Whether the loop iterates over the loader, or over something that holds it."""
    if loader is None or isinstance(loop.node, ast.While):
        return False
    for node in ast.walk(loop.node.iter):
        if isinstance(node, (ast.Name, ast.Attribute)):
            known, value = value_of(node, loop.frame)
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
