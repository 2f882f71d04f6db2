"""How long a run is, read from the loops around a line and the names in its frame."""

from __future__ import annotations

import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.utils.data import DataLoader

from ctrkit.child.script.length import Length, as_said
from ctrkit.child.script.run_length import run_length
from ctrkit.child.script.running_frames import RunningFrame

LOADER = DataLoader(range(80), batch_size=8)


def length(tmp_path: Path, text: str, **names: Any) -> Any:
    """What is read where the line with `# here` runs."""
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(text))
    line = next(i for i, one in enumerate(path.read_text().splitlines(), 1) if "# here" in one)
    return run_length(
        [RunningFrame(str(path), line, "<module>", {"loader": LOADER, **names}, {})], LOADER, 10
    )


@pytest.mark.parametrize(
    ("text", "names", "epochs"),
    [  # a line of the inner loop runs
        ("for e in range(a, n):\n  for x in loader:\n    x  # here", {"a": 1, "n": 4}, 3),
        ("for e in range(2):\n  for s in range(3):\n    for x in loader:\n      x  # here", {}, 6),
        ("while e < n:\n  for x in loader:\n    x  # here\n  e += 1", {"n": 7, "e": 2}, 7),
        ("for x in loader:\n    x  # here", {}, 1),
    ],
)  # fmt: skip
def test_loops_around_the_batches_are_epochs(
    tmp_path: Path, text: str, names: dict[str, Any], epochs: int
) -> None:
    found = length(tmp_path, text, **names)
    assert (found.epochs, found.steps) == (epochs, None)


def test_a_while_whose_counter_moves_with_the_optimizer_counts_its_steps(tmp_path: Path) -> None:
    text = """
        while step < most:
            for i, x in enumerate(loader):
                x  # here
                if i % 4 == 3:
                    optimizer.step()
                    step += 1
        """
    found = length(tmp_path, text, most=300, step=3)
    assert (found.epochs, found.steps, found.by_optimizer) == (None, 300, True)


def test_a_while_whose_counter_moves_with_each_batch_counts_batches(tmp_path: Path) -> None:
    text = """
        while True:
            for x in loader:
                x  # here
                step += 1
                if step >= most:
                    break
        """
    found = length(tmp_path, text, most=300, step=3)
    assert (found.epochs, found.steps, found.by_optimizer) == (None, 300, False)


def length_in_calls(tmp_path: Path, text: str, **attributes: Any) -> Any:
    """The same where each function of the text has called the one before it, all of one object."""
    path = tmp_path / f"loops{len(list(tmp_path.iterdir()))}.py"
    path.write_text(textwrap.dedent(text))
    owner = SimpleNamespace(loader=LOADER, **attributes)
    frames = []
    for i, line in enumerate(path.read_text().splitlines(), 1):
        if "# here" in line:
            name = f"call_{len(frames)}"
            frames.append(RunningFrame(str(path), i, name, {"self": owner}, {}))
    return run_length(frames, LOADER, 10)


ITERATION = """
    def call_0(self, x):
        x.backward()  # here
        self._iter += 1
    """
ITERATION_AND_EPOCH = (
    ITERATION
    + """
    def call_1(self):
        for x in self.loader:
            self.call_0(x)  # here
        self._epoch += 1
    """
)


def test_a_while_whose_counter_moves_in_what_it_calls(tmp_path: Path) -> None:
    text = """
    def call_2(self):
        while self._epoch < self._max and not self.stop:
            self.call_1()  # here
    """
    values = {"_epoch": 0, "_max": 3, "_iter": 0, "stop": False}
    found = length_in_calls(tmp_path, ITERATION_AND_EPOCH + text, **values)
    assert (found.epochs, found.steps) == (3, None)
    by_iterations = ITERATION_AND_EPOCH + text.replace("_epoch", "_iter")
    found = length_in_calls(tmp_path, by_iterations, **values | {"_max": 300})
    assert (found.epochs, found.steps) == (None, 300)
    text = """
    def call_1(self):
        while self._iter < self._max:
            x = next(self.iterator)
            self.call_0(x)  # here
    """
    found = length_in_calls(tmp_path, ITERATION + text, **values | {"_max": 120})
    assert (found.epochs, found.steps) == (None, 120)


@pytest.mark.parametrize(
    "text",
    [
        "while more():\n  x = next(batches)\n  x  # here",  # not one epoch
        "for f in split(x):\n  for e in range(9):\n    for x in loader:\n      x  # here",
    ],
)
def test_a_loop_of_unknown_length_is_not_left_out(tmp_path: Path, text: str) -> None:
    found = length(tmp_path, text, batches=iter(LOADER))
    assert (found.epochs, found.steps) == (None, None)


def test_steps_without_a_loader_are_unknown_where_one_of_the_loops_is(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text("while t < most():\n  for e in range(10):\n    for x in buffer():\n      x\n")
    frame = RunningFrame(str(path), 4, "<module>", {"t": 0, "epochs": 10}, {})
    assert run_length([frame]) == Length()
    path = tmp_path / "other.py"
    path.write_text("for e in range(10):\n  for x in range(4):\n      x\n")
    assert run_length([RunningFrame(str(path), 3, "<module>", {}, {})]).steps == 40


def test_what_cannot_be_read_stays_unknown(tmp_path: Path) -> None:
    found = length(tmp_path, "while not done():\n    for x in loader:\n        x  # here")
    assert (found.epochs, found.steps) == (None, None)


def test_what_the_user_says_wins_and_the_script_stands_beside_it() -> None:
    read = Length(epochs=5, told_by="train.py:23: for epoch in range(5)")
    said = as_said(7, read)
    assert said.epochs == 7
    assert said.told_by == "--epochs; the script says 5 epochs: train.py:23: for epoch in range(5)"
    assert as_said(5, read).told_by == as_said(5, None).told_by == "--epochs"


def test_torchs_own_files_are_not_parsed(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages" / "torch"
    folder.mkdir(parents=True)
    (folder / "loops.py").write_text("for epoch in range(9):\n    step()\n")
    frame = RunningFrame(str(folder / "loops.py"), 2, "<module>", {}, {})
    assert run_length([frame]) == Length()
    beside = tmp_path / "site-packages" / "lightning"
    beside.mkdir()
    (beside / "loops.py").write_text("for epoch in range(9):\n    step()\n")
    assert run_length([frame._replace(file=str(beside / "loops.py"))]).steps == 9
