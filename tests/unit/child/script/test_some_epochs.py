from textwrap import dedent

import pytest

from ctrkit.child.script.rare_events import RareEvents
from ctrkit.child.script.run_length import loops_over_epochs
from ctrkit.child.script.running_frames import RunningFrame
from ctrkit.child.script.some_epochs import gates_of


class Loader:
    dataset = object()


LOADER = Loader()


def gates(tmp_path, body, *, loop="for epoch in range(12):", **names):
    text = f"{loop}\n    for batch in loader:\n        backward()\n" + "".join(
        f"    {line}\n" for line in dedent(body).strip().splitlines()
    )
    path = tmp_path / "train.py"
    path.write_text(text)
    frame = RunningFrame(str(path), 3, "<module>", {"loader": LOADER, **names}, {})
    return gates_of(loops_over_epochs([frame], LOADER, 10))


@pytest.mark.parametrize(
    ("body", "count", "first"),
    [
        ("if (epoch + 1) % 4 == 0:\n    evaluate()", 3, 4),
        ("if epoch % every == 0:\n    evaluate()", 3, 1),
        ("if not epoch % 5:\n    evaluate()", 3, 1),
        ("if epoch > 0 and epoch % 5 == 0:\n    evaluate()", 2, 6),
        ("if epoch % 5 == 4 or epoch == last:\n    evaluate()", 3, 5),
        ("if epoch >= 10:\n    evaluate()", 2, 11),
        ("if epoch % 3:\n    continue\nevaluate()", 4, 1),
        ("with open():\n    if rank == 0 and epoch % 6 == 5:\n        save()", 2, 6),
    ],
)
def test_a_test_is_worked_out_for_each_round(tmp_path, body, count, first):
    (found,) = gates(tmp_path, body, every=4, last=11, rank=0)
    assert (found.times, found.of, found.first_round) == (count, 12, first)
    assert found.place.startswith("train.py:")


@pytest.mark.parametrize(
    "body",
    [
        "if epoch % 5 == 0:\n    print(epoch, len(loader))",  # says something, no more
        "if loss < best:\n    save()",  # nobody knows when
        "if epoch % unknown == 0:\n    save()",
        "if epoch % 0 == 0:\n    save()",
        "if epoch < 100:\n    evaluate()",  # always
        "for x in y:\n    if epoch % 5 == 0:\n        evaluate()",
    ],
)
def test_what_is_no_gate(tmp_path, body):
    assert gates(tmp_path, body, loss=object()) == []


@pytest.mark.parametrize(
    ("loop", "names", "count"),
    [
        ("for epoch in tqdm(range(1, epochs + 1)):", {"epochs": 20}, 5),
        ("for epoch in trange(8, desc='x'):", {}, 2),
        ("for epoch in rounds:", {"rounds": range(8)}, 2),
        ("for epoch in range(start, 20):", {"start": 10}, 2),  # goes on with an earlier run
    ],
)
def test_loops_that_count(tmp_path, loop, names, count):
    (found,) = gates(tmp_path, "if epoch % 4 == 0:\n    evaluate()", loop=loop, **names)
    assert found.times == count


@pytest.mark.parametrize("loop", ["for epoch in range(unknown):", "while epoch < 12:"])
def test_loops_of_unknown_rounds(tmp_path, loop):
    assert gates(tmp_path, "if epoch % 4 == 0:\n    evaluate()", loop=loop, epoch=0) == []


class Frame:
    """A frame in a line of a file, called from another."""

    def __init__(self, file, line, back=None):
        self.f_code = type("Code", (), {"co_filename": file})
        self.f_lineno, self.f_back = line, back


def test_an_event_belongs_to_the_gate_whose_lines_run(tmp_path):
    (gate,) = gates(tmp_path, "if (epoch + 1) % 4 == 0:\n    evaluate()")
    rare = RareEvents()
    rare.told([gate])
    inside = Frame("/lib/evaluate.py", 3, Frame(gate.file, gate.first))
    assert rare.next_epoch(2) == 4
    assert not rare.counts("validation", 4)
    rare.begins("validation", inside)
    assert rare.counts("validation", 4)
    assert not rare.counts("validation", 3)
    assert rare.next_epoch(5) is None
    assert rare.shares() == {"validation_share": 0.25}
    assert "validation comes in 3 of 12 epochs" in rare.notes(5)[0]


def test_what_also_comes_in_every_epoch_is_no_share(tmp_path):
    (gate,) = gates(tmp_path, "if (epoch + 1) % 4 == 0:\n    evaluate()")
    rare = RareEvents()
    rare.told([gate])
    rare.begins("validation", Frame(gate.file, gate.last + 1))
    rare.begins("validation", Frame(gate.file, gate.first))
    assert rare.shares() == {}
    assert not rare.counts("validation", 4)
    (note,) = rare.notes(5)
    assert "once more in 3 of 12 epochs" in note
