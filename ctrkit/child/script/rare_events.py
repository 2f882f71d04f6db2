"""Handles validations and checkpoints of only some epochs, and how far a trial goes to see one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctrkit.child.script.some_epochs import Gate


class RareEvents:
    """Matches kinds of events with the script's gates, as a trial sees them happen."""

    def __init__(self) -> None:
        self._gates: list[Gate] = []
        self._of: dict[str, Gate] = {}
        self._in_every: set[str] = set()
        self._seen: list[Gate] = []

    def told(self, gates: Sequence[Gate]) -> None:
        """Set what runs only in some epochs, from the source."""
        self._gates = list(gates)

    def begins(self, kind: str, frame: Any) -> None:
        """A validation or checkpoint begins within this frame."""
        gates = [gate for gate in self._gates if gate.kind == kind or gate.is_running(frame)]
        if not gates:
            self._in_every.add(kind)
            return
        rarest = min(gates, key=lambda gate: gate.times)
        self._of.setdefault(kind, rarest)
        self._seen += [gate for gate in gates if gate not in self._seen]

    def counts(self, kind: str, epoch: int) -> bool:
        """Whether to count an event of this epoch: each event is counted once."""
        gate = self._of.get(kind)
        own = gate is not None and kind not in self._in_every and gate.first_round == epoch
        return epoch == 1 or own

    def next_epoch(self, epoch: int) -> int | None:
        """The next epoch from this one on that does something no earlier one has done.

        Never the last one: a trial has no business with what follows it.
        """
        to_come = [
            gate.first_round
            for gate in self._gates
            if gate not in self._seen and epoch <= gate.first_round < gate.of
        ]
        return min(to_come, default=None)

    def shares(self) -> dict[str, float]:
        """The fields of `RunSizes` with the share of epochs in which they occur."""
        return {
            f"{kind}_share": gate.share
            for kind, gate in self._of.items()
            if kind not in self._in_every
        }

    def notes(self, epoch: int) -> list[str]:
        """Notes on the gates when the trial has reached this epoch."""
        found = [
            f"{kind} comes in {gate.times} of {gate.of} epochs ({gate.place}), and is projected so"
            for kind, gate in self._of.items()
            if kind not in self._in_every
        ]
        unseen = [gate for gate in self._gates if gate not in self._seen]
        found += [
            f"what {gate.place} does in {gate.times} of {gate.of} epochs, the first of them epoch "
            f"{gate.first_round}, was not seen, and is not in the projection"
            for gate in unseen
            if gate.first_round >= epoch or gate.first_round == gate.of
        ]
        return found + [
            f"{gate.place} does it once more in {gate.times} of {gate.of} epochs: that {kind} is "
            "not in the projection"
            for kind, gate in self._of.items()
            if kind in self._in_every
        ]
