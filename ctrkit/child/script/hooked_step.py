"""Times the parts of a step that hooks see: backward pass, optimizer step, and loss."""

from __future__ import annotations

from typing import Any

#: The number of losses to keep, from the first backward passes.
_LOSSES = 200


def _is_a_number(tensors: Any) -> bool:
    """Whether it is a scalar; the outputs of a model would take memory."""
    return hasattr(tensors, "detach") and tensors.numel() == 1


class HookedStep:
    """Events since the latest batch, and the losses of all steps."""

    def __init__(self) -> None:
        self._losses: list[Any] = []
        self.begin()

    def begin(self) -> None:
        """The loop has another batch."""
        self._backward_s: list[tuple[float, float]] = []
        self._optimizer_end_s, self._optimizer_steps = 0.0, 0

    def backward_begins(self, now_s: float, tensors: Any) -> None:
        """A backward pass begins."""
        self._backward_s.append((now_s, now_s))
        if len(self._losses) < _LOSSES and _is_a_number(tensors):
            # a copy: a compiled step may write its next loss to the same place
            self._losses.append(tensors.detach().clone())

    def backward_ends(self, now_s: float) -> None:
        """The backward pass ends."""
        if self._backward_s:
            self._backward_s[-1] = (self._backward_s[-1][0], now_s)

    def optimizer_ends(self, now_s: float) -> None:
        """An optimizer step ends."""
        self._optimizer_end_s = now_s
        self._optimizer_steps += 1

    def losses(self) -> list[float]:
        """The first scalar losses; reading them waits for the device."""
        return [float(loss) for loss in self._losses]

    def stages(self, delivered_s: float, done_s: float) -> dict[str, list[float]]:
        """Stages of a plain step with one backward pass and at most one optimizer step.

        Else empty.
        """
        if len(self._backward_s) != 1 or self._optimizer_steps > 1:
            return {}
        began_s, ended_s = self._backward_s[0]
        stages = {"forward": [began_s - delivered_s], "backward": [ended_s - began_s]}
        if self._optimizer_steps:
            stages["optimizer"] = [self._optimizer_end_s - ended_s]
        return stages
