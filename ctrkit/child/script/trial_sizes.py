"""The sizes of a script's run, and facts about its loader, as far as a trial has seen them."""

from __future__ import annotations

from typing import Any

from ctrkit.child.script.beside import BesideCount
from ctrkit.child.script.length import Length
from ctrkit.child.script.seen_loaders import is_iterable


class BesideTheSteps:
    """Counts validations and checkpoints of a script's epoch, as a trial sees them."""

    def __init__(self) -> None:
        self._validations, self._validated_batches = BesideCount(), BesideCount()
        self._checkpoints = BesideCount()
        self._validates = self._saves = False
        #: batches skipped in a validation that was ended early; None: an unknown number
        self._not_validated: list[int | None] = []

    def validated(self, *, is_first: bool) -> None:
        """A validation batch was taken, the first of its validation or a later one."""
        self._validates = True
        self._validated_batches.add()
        if is_first:
            self._validations.add()

    def validation_ended_early(self, left_out: int | None) -> None:
        """So many batches of a validation were not taken; None if the number is unknown."""
        self._not_validated.append(left_out)

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saves = True
        self._checkpoints.add()

    def epoch_goes_on(self, step: int) -> None:
        """The loop asks for another batch of its epoch, after `step` steps."""
        for counted in (self._validations, self._validated_batches, self._checkpoints):
            counted.epoch_goes_on(step)

    def next_epoch_begins(self) -> None:
        """Events since the last step came between two epochs."""
        for counted in (self._validations, self._validated_batches, self._checkpoints):
            counted.next_epoch_begins()

    def of_an_epoch(self, step: int, *, in_epoch: bool, whole: int | None) -> dict[str, int | None]:
        """The fields of `RunSizes` that count them; None if none was seen or counted.

        A validation that was ended early counts with its loader's claimed length. The arguments are
        those of `BesideCount.of_an_epoch`.
        """

        def count(counted: BesideCount) -> int:
            return counted.of_an_epoch(step, in_epoch=in_epoch, whole=whole)

        left_out = [one for one in self._not_validated if one is not None]
        is_counted = self._validates and len(left_out) == len(self._not_validated)
        batches = count(self._validated_batches) + sum(left_out) if is_counted else None
        return {
            "validation_batches": batches,
            "validations": count(self._validations) if self._validates else None,
            "checkpoints": count(self._checkpoints) if self._saves else None,
        }


def run_sizes(length: Length, batches: int | None, group: int) -> dict[str, Any]:
    """`epochs` and `train_batches` of the run; a length in steps is converted to epochs.

    Args:
        length: the run's length.
        batches: batches of an epoch, if known.
        group: batches per optimizer step.
    """
    if length.epochs:
        return {"epochs": length.epochs}
    if not length.steps:
        return {}
    steps = length.steps * (group if length.by_optimizer else 1)
    if not batches or steps <= batches:
        return {"epochs": 1, "train_batches": steps}
    return {"epochs": -(-steps // batches)}


def loader_facts(loader: Any, claimed: int | None) -> dict[str, Any]:
    """The `LoaderFacts` of the script's training DataLoader.

    Its length is exact if it follows from the indices of one of torch's own samplers.
    """
    batches = getattr(loader, "batch_sampler", None)
    sampler = getattr(batches, "sampler", getattr(loader, "sampler", None))
    iterable = is_iterable(loader)
    own = [type(one).__module__ for one in (batches, sampler) if one is not None]
    return {
        "claimed_batches": claimed,
        "dataset": type(loader.dataset).__name__,
        "iterable": iterable,
        "batch_size": getattr(loader, "batch_size", None),
        "drop_last": bool(loader.drop_last),
        "workers": int(loader.num_workers),
        "length_is_exact": not iterable and all(name.startswith("torch.utils.") for name in own),
    }
