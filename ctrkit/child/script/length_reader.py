"""Reads the run's epochs once from the source, from inside the loop that trains.

It finds their number, and what the loop over epochs does only in some of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ctrkit.child.script.length import Length, as_said
from ctrkit.child.script.progress_bars import bars_shown, compared_with_bars
from ctrkit.child.script.put_in import has_main_guard
from ctrkit.child.script.run_length import loops_over_epochs, run_length
from ctrkit.child.script.running_frames import frames_from
from ctrkit.child.script.some_epochs import Gate, gates_of, lightning_gate
from ctrkit.child.script.trouble import note_trouble

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer

#: After so many backward passes, the surrounding loops are examined.
_LOOK_AT = 3
_LOOK_AT_LATEST = 64


class LengthReader:
    """The run's length as far as known; the source is read at one of the first steps."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        said = observer.epochs_said
        self.length: Length | None = None if said is None else as_said(said, None)
        self.main_guard: bool | None = None
        #: what the loop over epochs does only in some of them
        self.gates: list[Gate] = []
        #: whether the loops were read for the last time
        self.looked = self._glanced = False

    def in_backward(self) -> None:
        """A backward pass begins; if enough is known about the loop, read its frames."""
        pattern = self.observer.pattern
        if pattern.backwards < _LOOK_AT:
            return
        if pattern.is_known or pattern.backwards >= _LOOK_AT_LATEST:
            self._look_around()
        elif not self._glanced:
            self._glance_around()

    def at_step(self) -> None:
        """The same, if optimizer steps count as steps."""
        if self.observer.pattern.steps >= _LOOK_AT:
            self._look_around()

    def _glance_around(self) -> None:
        """Take a first look, since an epoch may end before it is known what a step is.

        Until then only epochs can be told: a loop that counts may count parts of a step.
        """
        self._glanced = True
        self._look_around()
        self.looked = False
        if self.length is not None and not self.length.epochs:
            self.length = None

    def _look_around(self) -> None:
        """Read the run's length from the source, once, from inside the loop."""
        self.looked = True
        train, pattern = self.observer.train, self.observer.pattern
        try:
            self.main_guard = has_main_guard()
            per_step = round(pattern.backwards / pattern.steps) if pattern.steps else 1
            frames = frames_from(sys._getframe(1))
            loader = train.loader() if train is not None else None
            claimed = train.length if train is not None else None
            self.length = run_length(frames, loader, claimed, per_step)
            self._compare_with_bars()
            if self.observer.is_trial and train is not None:
                outside = loops_over_epochs(frames, loader, claimed)
                self.gates = lightning_gate(frames, self.length.epochs) or gates_of(outside)
        except Exception as error:
            note_trouble("the loops could not be read", error)
        if self.length is not None and self.length.in_stages and self.observer.is_trial:
            self.observer.note(
                f"the {self.length.epochs} epochs are those of several loops "
                f"({self.length.told_by}), and a trial sees the first of them: where later stages "
                "take another loader or model, their epochs take another time than projected"
            )
        if self.observer.epochs_said:
            self.length = as_said(self.observer.epochs_said, self.length)

    def _compare_with_bars(self) -> None:
        """Compare with the script's progress bars, a second witness for its length."""
        train = self.observer.train
        if self.length is None or train is None:
            return
        self.length, note = compared_with_bars(
            self.length, bars_shown(), train.length, self.observer.pattern.group
        )
        if note and not self.observer.epochs_said:
            self.observer.note(note)
