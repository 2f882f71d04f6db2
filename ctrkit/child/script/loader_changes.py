"""Changes a loader for a trial or a run: its settings, its seed, and where an epoch begins.

It does so when the loader is asked for an iterator, before torch decides on workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrkit.child.elsewhere import Elsewhere, elsewhere_of
from ctrkit.child.script.ending import end_refused
from ctrkit.child.script.put_in import Refused, put_in
from ctrkit.child.script.seen_loaders import Seen, warmup_steps

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer


class LoaderChanges:
    """The loader changes of this process."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        #: the axes to change
        self.axes: list[str] = list(observer.spec.get("put_in") or ())
        #: numbers of the changed loaders
        self.numbers: set[int] = set()
        self._elsewhere: Elsewhere | None = None
        #: a loader that temporarily has our generator, and its own one
        self._spared: tuple[Any, Any] | None = None

    def begin(self, seen: Seen, loader: Any) -> None:
        """The loader is about to make an iterator."""
        self._put_in(seen, loader)
        self._begin_elsewhere(seen, loader)
        self._spare_the_seed(seen, loader)

    def end(self, loader: Any) -> None:
        """The loader has made an iterator, or failed."""
        if self._spared is not None and self._spared[0] is loader:
            loader.generator, self._spared = self._spared[1], None
        if self._elsewhere is not None and self._elsewhere.loader is loader:
            self._elsewhere.restore()
            self._elsewhere = None

    def _spare_the_seed(self, seen: Seen, loader: Any) -> None:
        """Without the script's persistent workers, a new iterator draws a seed for its workers.

        The script as written would draw none, and a seeded shuffle depends on earlier draws. So the
        seed comes from a generator of our own.
        """
        if seen.number not in self.numbers or not seen.reuses_its_iterator:
            return
        if loader.persistent_workers:
            return
        own = self.observer.torch.Generator()
        own.manual_seed(self.observer.torch.initial_seed() % 2**62 + seen.asked)
        self._spared = loader, loader.generator
        loader.generator = own

    def _begin_elsewhere(self, seen: Seen, loader: Any) -> None:
        """If the trial asks for it, skip to a later place in the training loader's first epoch."""
        windows = self.observer.spec.get("windows") or {}
        share = float(windows.get("epoch_share") or 0.0)
        # which loader trains is unknown before the first launch
        if self.observer.kind != "full" or not share or seen.number != self.observer.train_number:
            return
        if seen.first_pass_s is not None or self._elsewhere is not None:
            return
        after, steps = warmup_steps(loader), int(windows.get("min_steps") or 1)
        self._elsewhere = elsewhere_of(loader, share, after=after, steps=steps)
        if self._elsewhere is not None:
            self._elsewhere.took = self._hold_clock
            self._elsewhere.install()
            seen.as_written, seen.left_out = after, self._elsewhere.left_out

    def _hold_clock(self, seconds: float) -> None:
        """Stop the clock for the time that skipping took, since a real run does not spend it."""
        clock = self.observer.clock
        self.observer.clock = lambda: clock() - seconds

    def _put_in(self, seen: Seen, loader: Any) -> None:
        if not self.axes or loader is None:
            return
        if self.observer.train_number is None:
            if seen is not self.observer.train and not _may_train(self.observer.torch, loader):
                return
        elif seen.number != self.observer.train_number:
            return
        if getattr(loader, "_iterator", None) is not None and seen.number in self.numbers:
            return  # its persistent workers have the settings already
        try:
            put_in(loader, self.observer.spec["cell"], self.axes)
            self.numbers.add(seen.number)
        except Refused as refusal:
            self.refused(seen, str(refusal))

    def refused(self, seen: Seen, reason: str) -> None:
        """A loader cannot take its new settings: that ends a trial, while a real run continues."""
        reason = f"loader {seen.number}: {reason}"
        if not self.observer.is_trial:
            self.observer.note(f"left as written, since {reason}")
            return
        end_refused(self.observer, reason)

    def draw_the_seed(self, seen: Seen, loader: Any) -> None:
        """Draw a seed when persistent workers begin another epoch with their old iterator.

        A new iterator would have drawn a seed for its workers. If the script as written would make
        a new one, the seed is drawn all the same, so that the order of a seeded shuffle stays.
        """
        if seen.facts["persistent"] or seen.number not in self.numbers:
            return
        torch = self.observer.torch
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)


def _may_train(torch: Any, loader: Any) -> bool:
    """Whether a loader looks like a training loader, before any backward pass shows it."""
    if torch is None or not torch.is_grad_enabled():
        return False
    sampler = type(getattr(loader, "sampler", None)).__name__
    inner = type(getattr(getattr(loader, "batch_sampler", None), "sampler", None)).__name__
    return any("Sequential" not in name and name != "NoneType" for name in (sampler, inner))
