"""Inspects a script as written: which loader trains, what a step is, how long the run is."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ctrkit.child.script import describe
from ctrkit.child.script.ending import CommonEnd, leave
from ctrkit.child.script.presence import others_that_train
from ctrkit.child.script.put_in import unpicklable
from ctrkit.child.script.seen_loaders import HASHED_BATCHES
from ctrkit.child.script.trouble import note_trouble
from ctrkit.child.script.watch import LoopWatch
from ctrkit.core.progress import ProgressWriter, Stage

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer
    from ctrkit.child.script.presence import Owner

#: Optimizer steps to see if there is no loader.
_CLOCK_STEPS = 6
#: After so many steps, the inspection of even an irregular loop ends.
_MOST_STEPS = 200
#: Seconds for which a process started by another one waits for its siblings.
_SIBLINGS_S = 8.0


class InspectWatch(LoopWatch):
    """Ends the script as soon as everything is known that an inspection can tell."""

    def __init__(self, observer: Observer, owner: Owner) -> None:
        super().__init__(observer, owner)
        self.progress = ProgressWriter(os.path.join(owner.folder, "progress.bin"))
        self._steps = 0
        rank = owner.rank or 0
        self._end = CommonEnd(observer.folder, observer.presence.launch, rank, owner.world)

    def epoch_begins(self, at_s: float) -> None:
        self.progress.enter(Stage.FIRST_BATCH, epoch=self.epoch, steps=self.batches or 0)

    def step_over(self, done_s: float, rows: int) -> None:
        self._steps += 1
        self.progress.enter(Stage.STEP)
        self.progress.step(self.step, rows=rows)
        if self._has_seen_enough():
            self._end.wish(self._steps)
        if self._end.is_reached(self._steps):
            self._finish()

    def _has_seen_enough(self) -> bool:
        if self.observer.optimizer_clock:
            return self._steps >= _CLOCK_STEPS
        known = self.reader.looked and self.observer.pattern.is_known
        return (known and self._steps >= HASHED_BATCHES) or self._steps >= _MOST_STEPS

    def validation_begins(self, at_s: float) -> None:
        self.progress.enter(Stage.VALIDATION)

    def validation_batch(self, number: int, seconds: float) -> None:
        self.progress.step(number)

    def checkpoint_begins(self, at_s: float) -> None:
        self.progress.enter(Stage.CHECKPOINT)

    def epoch_over(self, asked_s: float, ended_s: float) -> None:
        self.progress.enter(Stage.EPOCH_BOUNDARY)

    def cannot_tell(self) -> None:
        self._finish()

    def observation_failed(self) -> None:
        self.observer.problem = self.observer.problem or "the observer failed in this script"
        self._finish()

    def script_ends(self, crashed: bool) -> None:
        """The script may end before everything is known; then what was seen is reported."""
        self._look_into_loaders()
        self.observer.write_seen(self.owner.folder)

    def _finish(self) -> None:
        self.progress.enter(Stage.SHUTDOWN)
        self._look_into_loaders()
        self._wait_for_siblings()
        self.devices = describe.usable_devices(self.observer, ask_cuda=True)
        self.observer.write_seen(self.owner.folder)
        self.progress.enter(Stage.DONE)
        leave()

    def _wait_for_siblings(self) -> None:
        """Wait for other processes that may train with their own loaders; they begin about now."""
        observer = self.observer
        until_s = observer.clock() + _SIBLINGS_S
        while self.owner.may_have_siblings and observer.clock() < until_s:
            if others_that_train(observer.folder, observer.presence.launch):
                return
            time.sleep(0.05)

    def _look_into_loaders(self) -> None:
        """Find parts of the training loader that cannot be sent to spawned workers."""
        train = self.observer.train
        loader = train.loader() if train is not None else None
        if train is None or loader is None:
            return
        try:
            train.facts["unpicklable"] = unpicklable(loader)
        except Exception as error:
            note_trouble("the loader could not be pickled for a look", error)
