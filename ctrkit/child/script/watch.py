"""Follows the loop that trains: steps, ends of epochs, validation and checkpoints in between.

An epoch ends in one of three ways: its iterator has no more batches, the loader is asked for
another iterator, or, with an endless loader, the count is reached. Validation lasts from the moment
when another loader is asked for an iterator until the training loader is asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrkit.child.script.length_reader import LengthReader
from ctrkit.child.script.loop_events import LoopEvents
from ctrkit.child.script.seen_loaders import Seen, is_iterable
from ctrkit.core.progress import RankWriter, WorkerStage

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer
    from ctrkit.child.script.presence import Owner

KEPT_NOTE = (
    "after its first pass the loop trains on batches that it keeps (a list, itertools.cycle): "
    "its loader is no part of later epochs"
)
#: After so many steps with exactly one batch of another loader, that loader belongs to the step.
_COMPANION = 2


class LoopWatch(LoopEvents):
    """Turns events of the training loop into steps and epochs, for its subclasses.

    All times are seconds of `time.monotonic()`.
    """

    def __init__(self, observer: Observer, owner: Owner) -> None:
        self.observer, self.owner = observer, owner
        self.reader = LengthReader(observer)
        self.epoch_batches: int | None = None
        self.devices: list[str] = []
        self.epoch = self.step = 0
        self.batches: int | None = None
        #: batches of the current epoch that its loader skips
        self.left_out = 0
        self.in_epoch = False
        self._open: int | None = None  # rows of the current step
        self._open_until: float | None = None  # when something else began after it
        self._validating_since: float | None = None
        self._other_asked_s: float | None = None
        self._validated = 0
        self._other_open: Seen | None = None  # the loader whose validation batch is in progress
        self._held: list[tuple[int, float]] = []
        self._saved: tuple[float, float] | None = None  # begin and end of the current checkpoint
        self.ranks: RankWriter | None = None
        #: an end of a backward pass that nobody listens to is not told
        self.hears_backward_end = False
        if owner.world > 1 and owner.rank is not None:
            self.ranks = RankWriter(observer.folder, owner.rank)
            self.ranks.enter(WorkerStage.FETCHING)
            self.hears_backward_end = True

    # ---- the training loader ----

    def pass_asked(self, now_s: float, was_training: bool) -> None:
        """The training loader is asked for an iterator, which may or may not be trained on."""
        self._end_others(now_s)
        if was_training and self.in_epoch:
            # events after the last step came between two epochs
            ended_s = self._open_until or now_s
            self._end_epoch(ended_s, ended_s)

    def begin_pass(self, seen: Seen) -> None:
        """Its latest iterator is trained on."""
        self._drop_others()
        self.step, self.batches, self.left_out = 0, seen.length, seen.left_out
        self.epoch += 1
        self.in_epoch, self._open, self._open_until = True, None, None
        self.epoch_begins(seen.iterator_asked_s)

    def asked(self, now_s: float) -> None:
        """The loop asks for its next batch."""
        rows, self._open = self._open, None
        if rows is not None:
            self.step += 1
            self.step_over(now_s, rows)
        at_steps = (
            self._validating_since is None
            and self._open_until is None
            and self._saved is None
            and self._other_open is None
        )
        if not at_steps:  # something else was under way
            self._end_others(now_s)
            self._go_on(now_s)
        loaders = self.observer.loaders.all
        if len(loaders) > 1:
            self._find_companions(loaders)
        self.waits(now_s)

    def _find_companions(self, loaders: list[Seen]) -> None:
        """Loaders of which each step takes just one batch belong to the step."""
        for other in loaders:
            other.companion = other.companion + 1 if other.since_train == 1 else 0
            other.since_train = 0
            if other.companion == _COMPANION:
                self.observer.note(
                    f"loader {other.number} also gives each step a batch; ctrkit leaves it "
                    f"as written"
                )

    def delivered(self, asked_s: float, delivered_s: float, rows: int) -> None:
        """The loop has its next batch."""
        if self._open is not None:  # it was asked for before it was known which loader trains
            self._end_step(asked_s)
        at = self.step + self.left_out
        if not self.in_epoch or (self.batches is not None and at >= self.batches):
            self._go_round(asked_s)
        self._open, self._open_until = rows, None
        self.batch_taken(asked_s, delivered_s, rows)

    def _go_round(self, asked_s: float) -> None:
        """One iterator gave more batches than the epoch has: it is endless, or `len` is wrong."""
        train = self.observer.train
        loader = train.loader() if train is not None else None
        if self.in_epoch and loader is not None and not _may_begin_again(loader, self.batches):
            self.observer.note(f"the loader has more batches than its len() of {self.batches} says")
            self.batches = train.length = None  # type: ignore[union-attr]
            self.length_is_wrong()
            return
        if self.in_epoch:
            self._end_epoch(asked_s, asked_s)
        self.step = self.left_out = 0
        self.epoch += 1
        self.in_epoch = True
        self.epoch_begins(asked_s)

    def _go_on(self, now_s: float) -> None:
        """The epoch continues; time for something else does not count for its steps."""
        if self.in_epoch and self._open_until is not None:
            began_s, self._open_until = self._open_until, None
            self.beside_steps(now_s - began_s)

    def epoch_ended(self, asked_s: float, ended_s: float) -> None:
        """The loop asked for a batch, and there was none."""
        self._end_epoch(asked_s, ended_s)

    def _end_step(self, done_s: float) -> None:
        if self._open is None:
            return
        rows, self._open = self._open, None
        self.step += 1
        self.step_over(done_s, rows)

    def _end_epoch(self, asked_s: float, ended_s: float) -> None:
        self._end_step(asked_s)
        if not self.in_epoch:
            return
        self.in_epoch = False
        if self.epoch_batches is None:
            self.epoch_batches = self.step + self.left_out
        self.epoch_over(asked_s, ended_s)

    # ---- everything else that the loop does ----

    def other_iterator_asked(self, seen: Seen, now_s: float) -> None:
        """A loader that does not train is asked for an iterator: validation begins."""
        if seen.companion >= _COMPANION:
            return
        if self._validating_since is None:
            self._turn_to_something_else(now_s)
            self._validating_since = now_s
            self._validated = 0
            self._held.clear()
            self._end_checkpoint()
            self.validation_begins(now_s)
        self._other_asked_s = now_s

    def _turn_to_something_else(self, now_s: float) -> None:
        """End the current step if it was the epoch's last; else it is not measured."""
        if not self.in_epoch or self._open is None:
            return
        if self.batches is not None and self.step + self.left_out + 1 == self.batches:
            self._end_epoch(now_s, now_s)
            return
        self._open_until = self._open_until or now_s
        self.step_interrupted()

    def other_asked(self, seen: Seen, now_s: float) -> None:
        """A loader that does not train is asked for a batch."""
        seen.since_train += 1
        if seen.companion >= _COMPANION and self._validating_since is None:
            return
        if self._validating_since is None and seen.since_train >= 2:
            self._turn_to_something_else(now_s)
            self._validating_since, self._validated = now_s, 0
            self._held.clear()
            self.validation_begins(now_s)
            if seen is not self.observer.train:
                self.validation_batch_taken(seen)  # the previous one, which looked like a step's
        self._end_validation_batch(seen, now_s)

    def other_delivered(self, seen: Seen, now_s: float) -> None:
        """That loader has delivered."""
        if self._validating_since is None:
            return
        if self._validated == 0:
            self._tell(seen, 0, now_s - self._validating_since)
            self._other_asked_s = now_s  # the first batch's own time begins when it has arrived
        self._validated += 1
        self._other_open = seen
        if seen is not self.observer.train:
            self.validation_batch_taken(seen)

    def other_ended(self, asked_s: float) -> None:
        """That loader has no more: the request ended its last batch."""

    def _end_validation_batch(self, seen: Seen, now_s: float) -> None:
        if self._validating_since is None:
            return
        if self._validated and self._other_asked_s is not None:
            self._tell(seen, self._validated, now_s - self._other_asked_s)
        self._other_asked_s, self._other_open = now_s, None

    def _end_last_validation_batch(self, now_s: float) -> None:
        """End the last validation batch: not every loop asks for one more than there are."""
        if self._other_open is not None:
            self._end_validation_batch(self._other_open, now_s)

    def _tell(self, seen: Seen, number: int, seconds: float) -> None:
        """Report a batch; those of the training loader may turn out to be the first of an epoch."""
        if seen is self.observer.train:
            self._held.append((number, seconds))
        else:
            self.validation_batch(number, seconds)

    def _end_others(self, now_s: float) -> None:
        """The training loader is asked, so validation and checkpoint are over."""
        self._end_last_validation_batch(now_s)
        self._end_checkpoint()
        if self._validating_since is not None:
            began_s, self._validating_since = self._validating_since, None
            for number, seconds in self._held:
                self.validation_batch(number, seconds)
            self._held.clear()
            self.validation_ends(began_s, now_s)

    def _drop_others(self) -> None:
        """Drop a supposed validation: those were the first batches of an epoch."""
        self._end_checkpoint()
        self._held.clear()
        self._validating_since = self._other_open = None

    def save_begins(self, now_s: float) -> None:
        """A file is being saved."""
        self._end_last_validation_batch(now_s)
        self._turn_to_something_else(now_s)
        self._saved = (self._saved[0] if self._saved else now_s, now_s)
        self.checkpoint_begins(now_s)

    def save_ends(self, now_s: float) -> None:
        """A file is saved. Further files without a step between them are the same checkpoint."""
        if self._saved is not None:
            self._saved = (self._saved[0], now_s)
        self.checkpoint_ends(now_s)

    def _end_checkpoint(self) -> None:
        if self._saved is not None:
            (began_s, ended_s), self._saved = self._saved, None
            self.checkpoint_over(ended_s - began_s)

    # ---- inside a step ----

    def backward_begins(self, now_s: float, tensors: Any) -> None:
        """A backward pass begins on a batch of the training loader.

        In it, ranks wait for each other.
        """
        if self.ranks is not None:
            self.ranks.enter(WorkerStage.IDLE)
        if not self.reader.looked:
            self.reader.in_backward()

    def backward_ends(self, now_s: float) -> None:
        """It is over."""
        if self.ranks is not None:
            self.ranks.enter(WorkerStage.FETCHING)

    def step_begins(self, now_s: float) -> None:
        """An optimizer step begins."""

    def step_ends(self, now_s: float) -> None:
        """It is over."""

    def begin_clock(self, now_s: float) -> None:
        """Without a loader, the steps of one optimizer count as the steps."""
        self.epoch, self.in_epoch = 1, True
        self.epoch_begins(now_s)
        self.batch_taken(now_s, now_s, 0)
        self._open = 0

    def keeps_batches(self, now_s: float) -> None:
        """The loop has kept its loader's batches: from here on, its optimizer's steps count.

        An epoch has as many steps as the pass over the loader, if that was complete.
        """
        self._end_others(now_s)
        taken = self.step + (self._open is not None) if self.in_epoch else self.epoch_batches
        whole = not self.in_epoch or taken == self.batches
        if self.in_epoch:
            self._end_epoch(now_s, now_s)
        steps = (taken or 0) // self.observer.pattern.group
        self._kept_steps = steps if whole and steps > 1 else None
        self.observer.note(KEPT_NOTE)
        self._begin_kept_epoch(now_s)

    def takes_batches_again(self, now_s: float) -> None:
        """The loop asks its loader again: it made a few steps between epochs, or kept a phase."""
        self._end_epoch(now_s, now_s)

    def _begin_kept_epoch(self, now_s: float) -> None:
        self.step, self.left_out, self.batches = 0, 0, self._kept_steps
        self.epoch += 1
        self.in_epoch, self._open, self._open_until = True, 0, None
        self.epoch_begins(now_s)
        self.batch_taken(now_s, now_s, 0)

    _kept_steps: int | None = None

    def clock_ticked(self, now_s: float) -> None:
        """That optimizer has made a step."""
        if not self.reader.looked:
            self.reader.at_step()
        self._end_step(now_s)
        self._end_others(now_s)
        self._go_on(now_s)
        if self._kept_steps is not None and self.step >= self._kept_steps:
            self._end_epoch(now_s, now_s)
            self._begin_kept_epoch(now_s)
            return
        self._open, self._open_until = 0, None
        self.batch_taken(now_s, now_s, 0)


def _may_begin_again(loader: Any, claimed: int | None) -> bool:
    """Whether batches beyond `len()` may belong to a new epoch, with a sampler that repeats.

    An iterable data set does not repeat by itself. If the sampler has more batches than the
    loader's `len()` says, they are still to come.
    """
    if is_iterable(loader):
        return False
    try:
        batches = loader.batch_sampler if loader.batch_sampler is not None else loader.sampler
        asked_for = len(batches)
    except Exception:
        return True
    return claimed is None or asked_for <= claimed
