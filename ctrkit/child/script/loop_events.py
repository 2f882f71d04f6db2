"""What a watched loop tells to a trial or a run; each may leave any of it unheard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrkit.child.script.seen_loaders import Seen


class LoopEvents:
    """All times are seconds of `time.monotonic()`."""

    def epoch_begins(self, at_s: float) -> None:
        """An epoch's iterator was asked for at that moment."""

    def batch_taken(self, asked_s: float, delivered_s: float, rows: int) -> None:
        """The loop has its next batch."""

    def step_over(self, done_s: float, rows: int) -> None:
        """It asks for another one, or turns to something else."""

    def step_interrupted(self) -> None:
        """The step under way also validates or saves."""

    def epoch_over(self, asked_s: float, ended_s: float) -> None:
        """There is no more batch in this epoch."""

    def beside_steps(self, seconds: float) -> None:
        """The epoch goes on after something else, which took so long."""

    def validation_begins(self, at_s: float) -> None:
        """Another loader is asked for an iterator."""

    def validation_batch(self, number: int, seconds: float) -> None:
        """A batch of validation took so long; number 0 is the time to the first."""

    def validation_batch_taken(self, seen: Seen) -> None:
        """A batch of a loader that does not train was delivered to a validation."""

    def validation_ends(self, began_s: float, at_s: float) -> None:
        """The training loader is asked again."""

    def checkpoint_begins(self, at_s: float) -> None:
        """A file is being saved."""

    def checkpoint_ends(self, at_s: float) -> None:
        """It is saved."""

    def checkpoint_over(self, seconds: float) -> None:
        """All files of a checkpoint are saved."""

    def length_is_wrong(self) -> None:
        """The loader has said another length than it has."""

    def serve(self, seen: Seen, now_s: float) -> tuple[Any] | None:
        """A batch in place of the loader's, in a tuple; None to let the loader deliver."""
        return None

    def serve_other(self, seen: Seen) -> tuple[Any] | None:
        """The same for a loader that is not trained on."""
        return None

    def leave_out(self, seconds: float) -> None:
        """The observer itself took so long."""

    def cannot_tell(self) -> None:
        """Nothing tells what a step is."""

    def observation_failed(self) -> None:
        """The observer has stopped."""

    def script_ends(self, crashed: bool) -> None:
        """The process ends by itself."""
