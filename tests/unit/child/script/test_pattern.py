"""What the order of deliveries, backward passes and optimizer steps says about a loop."""

from __future__ import annotations

import pytest

from ctrkit.child.script.pattern import Pattern


def fed(events: str) -> Pattern:
    """`d`: a batch is delivered, `b`: a backward pass, `s`: an optimizer step."""
    pattern = Pattern()
    for event in events:
        if event == "d":
            pattern.batches += 1
        else:
            {"b": pattern.backward, "s": pattern.stepped}[event]()
    return pattern


@pytest.mark.parametrize(
    ("events", "group", "ahead", "steps_per_batch"),
    [
        ("dbs" * 5, 1, 0, 1.0),
        ("dbbsbs" * 5, 1, 0, 2.0),  # a GAN
        ("dbdbdbdbs" * 5, 4, 0, 0.25),  # accumulation
        ("dd" + "bdbsd" * 6 + "b", 2, 1, None),  # one batch ahead
        ("ddd" + "bbsdd" * 6, 2, 2, None),  # a group ahead
        ("dbs" * 4 + "db" + "dbs" * 4, 1, 0, None),  # a scaler skips a step
        ("dbbbbbbs" * 4, 1, 0, 1.0),  # L-BFGS
    ],
)
def test_the_group_is_read_from_the_order(
    events: str, group: int, ahead: int, steps_per_batch: float | None
) -> None:
    pattern = fed(events)
    assert pattern.is_known
    assert (pattern.group, pattern.ahead) == (group, ahead)
    if steps_per_batch is not None:
        assert pattern.steps_per_batch == steps_per_batch


def test_it_is_not_known_too_soon() -> None:
    assert not fed("dbs" * 3).is_known
    assert not fed("db" * 3).is_known
    assert fed("db" * 4).is_known
    assert fed("db" * 4).steps_per_batch is None


def test_a_warmup_of_the_accumulation_is_forgotten() -> None:
    assert fed("dbs" * 4 + "dbdbdbdbs" * 6).group == 4
