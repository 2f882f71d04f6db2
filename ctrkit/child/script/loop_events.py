"""The events that a watched loop tells a trial or a run; each may ignore any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrkit.child.script.seen_loaders import Seen


class LoopEvents:
    """All times are seconds of `time.monotonic()`."""

    def epoch_begins(self, at_s: float) -> None:
        """The loop asked for an epoch's iterator at that time."""

    def batch_taken(self, asked_s: float, delivered_s: float, rows: int) -> None:
        """The loop has its next batch."""

    def waits(self, now_s: float) -> None:
        """All before is told: the loop now waits for its next batch."""

    def step_over(self, done_s: float, rows: int) -> None:
        """The step is over: the loop asks for another batch, or does something else."""

    def step_interrupted(self) -> None:
        """The current step also validates or saves."""

    def epoch_over(self, asked_s: float, ended_s: float) -> None:
        """The epoch has no more batches."""

    def beside_steps(self, seconds: float) -> None:
        """The epoch continues after something else that took so long."""

    def validation_begins(self, at_s: float) -> None:
        """Another loader is asked for an iterator."""

    def validation_batch(self, number: int, seconds: float) -> None:
        """A validation batch took so long; number 0 is the time until the first one."""

    def validation_batch_taken(self, seen: Seen) -> None:
        """A loader that does not train delivered a batch for validation."""

    def validation_ends(self, began_s: float, at_s: float) -> None:
        """The loop asks the training loader again."""

    def checkpoint_begins(self, at_s: float) -> None:
        """A file is being saved."""

    def checkpoint_ends(self, at_s: float) -> None:
        """The file is saved."""

    def checkpoint_over(self, seconds: float) -> None:
        """All files of a checkpoint are saved."""

    def length_is_wrong(self) -> None:
        """The loader's claimed length is wrong."""

    def serve(self, seen: Seen, now_s: float) -> tuple[Any] | None:
        """A batch to use instead of the loader's, in a tuple; None to let the loader deliver."""
        return None

    def serve_other(self, seen: Seen) -> tuple[Any] | None:
        """The same for a loader that does not train."""
        return None

    def leave_out(self, seconds: float) -> None:
        """Subtract a time that the observer itself took."""

    def cannot_tell(self) -> None:
        """It cannot be told what a step is."""

    def observation_failed(self) -> None:
        """The observer has stopped."""

    def script_ends(self, crashed: bool) -> None:
        """The process ends by itself."""
