"""How long a run is, read at a training step that really runs."""

from __future__ import annotations

import argparse
import linecache
import sys
import textwrap
from types import SimpleNamespace
from typing import Any

import pytest

from ctrkit.child.script.length import Length
from ctrkit.child.script.run_length import run_length
from ctrkit.child.script.running_frames import frames_from


class Loader:
    """As much of a loader as the loops are asked for."""

    def __init__(self, batches: int = 4) -> None:
        self.dataset, self.batches = object(), batches

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Any:
        return iter(range(self.batches))


class Found(Exception):
    """Ends the script at its first step."""


def look(source: str, backwards: int = 1, loader: Any = None, **names: Any) -> Length:
    """What is told at `step()` of a script; `loader` is its training loader."""
    text = textwrap.dedent(source)
    file = f"/nowhere/train_{abs(hash(text))}.py"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    loader = loader or Loader()
    found: list[Length] = []

    def step() -> None:
        inside = [one for one in frames_from(sys._getframe(1)) if one.file == file]
        found.append(run_length(inside, names.get("train_on", loader), 4, backwards))
        raise Found

    scope = {"step": step, "loader": loader, "__name__": "__main__", **names}
    with pytest.raises(Found):
        exec(compile(text, file, "exec"), scope)
    return found[0]


@pytest.mark.parametrize(
    ("source", "epochs"),
    [
        ("for epoch in range(7):\n for b in loader:\n  step()", 7),
        ("n = 7\nfor epoch in range(1, n + 1):\n for i, b in enumerate(loader):\n  step()", 7),
        ("e = 0\nwhile e < 7:\n for b in loader:\n  step()\n e += 1", 7),
        ("e = 0\nwhile True:\n for b in loader:\n  step()\n e = e + 1\n if e >= 7: break", 7),
        ("for e in list(range(7)):\n for b in loader:\n  step()", 7),
        ("for run in range(2):\n for e in range(3):\n  for b in loader:\n   step()", 6),
        ("for b in loader:\n step()", 1),
        ("for e in range(7):\n it = iter(loader)\n for i in range(len(loader)):\n  step()", 7),
        ("for e in range(7):\n it = iter(loader)\n for i in range(4):\n  step()", 7),
        ("for e in range(7):\n it = iter(loader)\n while True:\n  next(it)\n  step()", 7),
        ("for e in [1, 2, 3]:\n for b in zip(loader, loader):\n  step()", 3),
        ("EPOCHS = {'n': 7}\nfor e in range(EPOCHS['n']):\n for b in loader:\n  step()", 7),
        ("def fit(epochs):\n for b in loader:\n  step()\nfor e in range(7):\n fit(99)", 7),
        ("for e in range(start(), 7):\n for b in loader:\n  step()", None),
    ],
)
def test_loops_around_the_batches_are_epochs(source: str, epochs: int | None) -> None:
    found = look(source, start=lambda: 0)
    assert (found.epochs, found.steps) == (epochs, None)


def test_names_are_looked_up_where_they_are_kept() -> None:
    args = argparse.Namespace(epochs=5, start_epoch=1)
    source = "for e in range(args.start_epoch, args.epochs):\n for b in loader:\n  step()"
    found = look(source, args=args)
    assert found.epochs == 4
    assert found.told_by.endswith(":1: for e in range(args.start_epoch, args.epochs)")
    assert look(source, args=SimpleNamespace(epochs=5, start_epoch=2)).epochs == 3


def test_no_code_of_the_script_is_run() -> None:
    asked = []

    class Settings:
        @property
        def epochs(self) -> int:
            asked.append("by the script")
            return 7

    source = "for e in range(s.epochs):\n for b in loader:\n  step()"
    assert look(source, s=Settings()) == Length()
    assert asked == ["by the script"]


@pytest.mark.parametrize(
    "source",
    [
        "for e in range(7):\n for b in loader:\n  step()\n if e > 3: break",
        "patience = 2\nfor e in range(7):\n for b in loader:\n  step()\n if patience: pass",
        "def f():\n for e in range(7):\n  for b in loader:\n   step()\n  if e: return\nf()",
    ],
)
def test_what_may_stop_sooner_is_at_most(source: str) -> None:
    found = look(source)
    assert (found.epochs, found.at_most) == (7, True)


def test_a_break_of_the_batches_ends_no_epoch_early() -> None:
    found = look("for e in range(7):\n for b in loader:\n  step()\n  break")
    assert (found.epochs, found.at_most) == (7, False)


@pytest.mark.parametrize(
    ("source", "backwards", "steps"),
    [
        ("for i in range(500):\n step()", 1, 500),
        ("i = 0\nwhile True:\n for m in range(8):\n  step()\n i += 1\n if i > 90: break", 8, 90),
        ("for e in range(3):\n for i in range(10):\n  step()", 1, 30),
    ],
)
def test_loops_over_steps_count_steps(source: str, backwards: int, steps: int) -> None:
    found = look(source, backwards, train_on=None)
    assert (found.epochs, found.steps) == (None, steps)


def test_a_loop_without_an_end_is_told_by_a_name() -> None:
    source = """
        class Trainer:
            def __init__(self):
                self.epochs = 9
            def fit(self):
                done = False
                while not done:
                    for b in loader:
                        step()
        Trainer().fit()
    """
    found = look(source)
    assert found.epochs == 9
    assert found.told_by.startswith("self.epochs in ")
    assert look("done = False\nwhile not done:\n for b in loader:\n  step()").epochs is None


def test_a_frameworks_own_state_comes_first() -> None:
    class TrainerState:
        max_steps, num_train_epochs = 30, 3

    class Trainer:
        def __init__(self, max_steps: int = -1) -> None:
            self.state, self.args = TrainerState(), SimpleNamespace(max_steps=max_steps)

    source = "def fit(self):\n for e in range(99):\n  for b in loader:\n   step()\nfit(trainer)"
    assert look(source, trainer=Trainer())[:2] == (3, 30)
    assert look(source, trainer=Trainer(12))[:2] == (None, 12)


def test_looking_keeps_nothing_alive() -> None:
    import weakref

    def loop() -> bool:
        batch = Loader()
        kept = weakref.ref(batch)
        frames_from(sys._getframe())
        del batch
        return kept() is None

    assert loop()
