"""What a trial of a script says about the run's sizes."""

from __future__ import annotations

from ctrkit.child.script.length import Length
from ctrkit.child.script.trial_sizes import BesideTheSteps, run_sizes


def test_what_was_not_seen_is_unknown() -> None:
    seen = BesideTheSteps().of_an_epoch(5, in_epoch=True, whole=10)
    assert seen == {"validation_batches": None, "validations": None, "checkpoints": None}


def test_a_validation_that_was_ended_early_has_the_batches_that_its_loader_claims() -> None:
    beside = BesideTheSteps()
    for number in range(3):
        beside.validated(is_first=number == 0)
    beside.validation_ended_early(7)
    beside.saved()
    seen = beside.of_an_epoch(5, in_epoch=False, whole=5)
    assert seen == {"validation_batches": 10, "validations": 1, "checkpoints": 1}
    beside.validation_ended_early(None)
    assert beside.of_an_epoch(5, in_epoch=False, whole=5)["validation_batches"] is None


def test_a_run_told_in_steps_is_as_many_epochs_as_they_fill() -> None:
    assert run_sizes(Length(steps=25), 10, group=1) == {"epochs": 3}
    assert run_sizes(Length(steps=5, by_optimizer=True), 10, group=4) == {"epochs": 2}
    assert run_sizes(Length(steps=5), None, group=4) == {"epochs": 1, "train_batches": 5}
    assert run_sizes(Length(), 10, group=1) == {}
