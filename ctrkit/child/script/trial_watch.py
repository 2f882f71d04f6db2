"""Runs a trial of a script: its own loop feeds the recorder until that has enough."""

from __future__ import annotations

import sys
from typing import Any

from ctrkit.child.recording.step_stamps import OVER, THROUGHPUT
from ctrkit.child.script.ending import leave
from ctrkit.child.script.hashes import cloned
from ctrkit.child.script.seen_loaders import Seen, honest_length, warmup_steps
from ctrkit.child.script.trial_notes import TrialNotes
from ctrkit.child.script.trial_sizes import loader_facts
from ctrkit.core.progress import Stage

#: The most seconds that a trial continues to reach what follows its window.
_GO_ON_S = 15.0
#: The same if the epoch can be ended at once instead.
_GO_ON_OR_CUT_S = 3.0
#: The same to reach an epoch that does what the first ones do not, for the script as written.
_TO_RARE_S = 15.0


class TrialWatch(TrialNotes):
    """Measures a window of steps, and what follows if that is near; then ends the script."""

    # ---- steps ----

    def epoch_begins(self, at_s: float) -> None:
        recorder, train = self.recorder, self.observer.train
        began_s = self._time(at_s)
        if self.epoch == 1:
            self._first_length = self.batches
        if self.epoch == 2:
            self._note_metrics(at_s)
            self._compare_lengths()
        if self.epoch > 1:
            self._beside.next_epoch_begins()
        if self.epoch == 1:
            if train is not None:
                train.first_pass_s = at_s
            recorder.warmup_steps = self._warmup_steps(train) + bool(self.left_out)
            loader = train.loader() if train is not None else None
            facts = None if loader is None else loader_facts(loader, self.batches)
            self._facts = facts
            recorder.note(startup_s=began_s, sizes=self._sizes(), loader=facts)
        if self.epoch <= 2:
            to_come = None if self.batches is None else self.batches - self.left_out
            recorder.begin_epoch(self.epoch, to_come, began_s, left_out=self.left_out)

    def _compare_lengths(self) -> None:
        """A loader that is made anew for each epoch may have another length each time."""
        first, second = self._first_length, self.batches
        if first is not None and second is not None and first != second:
            self.observer.note(
                f"the loader of the second epoch has {second} batches, that of the first {first}: "
                f"the projection counts {first} in every epoch, and so does not hold for this run"
            )

    def _warmup_steps(self, train: Seen | None) -> int:
        """Warm-up steps: batches made ahead, in whole groups, and batches to hash."""
        loader = train.loader() if train is not None else None
        return 2 if loader is None else warmup_steps(loader)

    def batch_taken(self, asked_s: float, delivered_s: float, rows: int) -> None:
        if self.epoch > 2:
            return
        self.recorder.group = self.observer.pattern.group
        self.recorder.delivered(
            self._time(asked_s), self._time(delivered_s), self._made(asked_s, delivered_s)
        )
        self._hooked.begin()

    def _made(self, asked_s: float, delivered_s: float) -> dict[str, float]:
        """Stamps of a batch that this process made itself."""
        stamps = sys.modules.get("ctrkit.child.training.stamps")
        at_s = stamps.last_collate_s() if stamps is not None else 0.0
        if not asked_s <= at_s <= delivered_s:
            return {}
        return {
            "fetch_start_s": self._time(asked_s), "fetch_end_s": self._time(at_s),
            "collate_end_s": self._time(delivered_s),
        }  # fmt: skip

    def step_over(self, done_s: float, rows: int) -> None:
        self._steps += 1
        if self.epoch == 1:
            self._first_steps = self.step
        if self.epoch <= 2:
            at_s = self._time(done_s)
            if self.recorder.window == THROUGHPUT:
                self._note_stages(done_s)
            self.recorder.step_done(at_s, rows * self.owner.world)
        if self.recorder.window == OVER and (self.epoch > 1 or not self._goes_on()):
            self._end_or_cut()
        if self._end.is_reached(self._steps):
            self.finish()

    def _end_or_cut(self) -> None:
        if self.epoch == 1 and self._may_cut():
            self._cut = True
        elif self.epoch > 1 and self._goes_to_rare():
            self._skips = True
        else:
            if self.epoch == 1 and self.owner.world > 1 and self._is_cut_worthwhile():
                self.observer.note(
                    "several ranks train together, so that the first epoch was not cut short: its "
                    "validation, its checkpoint and the next epoch were not seen, and are not in "
                    "the projection"
                )
                self.recorder.note(notes=list(self.observer.notes))
            self._end.wish(self._steps)

    def _goes_on(self) -> bool:
        """Whether the epoch's end is near enough to measure what follows it."""
        recorder = self.recorder
        if not self.plan.boundary or self.batches is None or self.observer.kind != "full":
            return False
        steps = recorder.fields.get("throughput_steps") or 0
        if not steps:
            return False
        step_s = recorder.fields["throughput_s"] / steps
        most_s = _GO_ON_OR_CUT_S if self._may_cut() else _GO_ON_S
        return bool((self.batches - self.left_out - self.step) * step_s <= most_s)

    def _may_cut(self) -> bool:
        """Whether to tell the script that its first epoch is over, far from its end.

        Then it goes on to validation, checkpoint and second epoch, which could not be measured
        otherwise. Not in the last epoch, because what follows it is no business of a trial.
        """
        return self._is_cut_worthwhile() and self.owner.world == 1

    def _is_cut_worthwhile(self) -> bool:
        several = (self._sizes()["epochs"] or 1) > 1 and self.plan.boundary
        return several and self.observer.kind == "full"

    def _goes_to_rare(self) -> bool:
        """Whether to end this epoch, too, on the way to one that validates or saves.

        Each epoch on the way has one step, and everything that always follows it.
        """
        self._rare.told(self.reader.gates)
        first = self._rare.next_epoch(self.epoch)
        alone = self.owner.world == 1 and self.observer.kind == "full"
        if first is None or not alone or not self._ends_passes or not self.plan.boundary:
            return False
        now_s = self.observer.clock()
        if self._rare_until_s is None:
            each_s = now_s - (self._first_over_s or now_s)
            most_s = _GO_ON_OR_CUT_S if self.observer.spec["put_in"] else _TO_RARE_S
            fits = each_s * (first - self.epoch + 1) <= most_s
            self._rare_until_s = now_s + most_s if fits else now_s
        return now_s < self._rare_until_s

    _skips = _ends_passes = False
    _rare_until_s: float | None = None
    _first_over_s: float | None = None

    def _note_stages(self, done_s: float) -> None:
        """Time stages on the CPU, where nothing runs ahead: each lasts until the next begins."""
        if self.observer.device == "cpu" and not self.observer.optimizer_clock:
            delivered_s = self.recorder.delivered_s + self.launched_s + self._left_out_s
            self.recorder.add_stages(self._hooked.stages(delivered_s, done_s))

    def backward_begins(self, now_s: float, tensors: Any) -> None:
        super().backward_begins(now_s, tensors)
        self._hooked.backward_begins(now_s, tensors)

    def backward_ends(self, now_s: float) -> None:
        super().backward_ends(now_s)
        self._hooked.backward_ends(now_s)

    def step_ends(self, now_s: float) -> None:
        self._hooked.optimizer_ends(now_s)

    def step_interrupted(self) -> None:
        self.recorder.interrupted()

    def length_is_wrong(self) -> None:
        self.recorder.know_batches(None)
        # the current batch is one more than `len()` promised
        seen = self.recorder.step + 1 + self.left_out
        beyond = {"epoch_batches": seen} if self.epoch == 1 else {}
        self.recorder.note(sizes=self._sizes(), **beyond)

    def beside_steps(self, seconds: float) -> None:
        if self.epoch == 1:
            self.recorder.beside_s += seconds
            self._beside.epoch_goes_on(self.step)

    def leave_out(self, seconds: float) -> None:
        self.recorder.left_out_s += seconds

    def observation_failed(self) -> None:
        self._say_error("crashed", "the observer failed in this script: see observer-trouble.txt")
        leave(1)

    # ---- around the epoch ----

    def epoch_ended(self, asked_s: float, ended_s: float) -> None:
        self._ends_passes = True  # its loop continues when an iterator has no more
        super().epoch_ended(asked_s, ended_s)

    def epoch_over(self, asked_s: float, ended_s: float) -> None:
        if self.epoch > 2:
            return
        self._over_s, self._known_s = ended_s, 0.0
        self._first_over_s = self._first_over_s or ended_s
        self.recorder.epoch_ended(self._time(asked_s), self._time(ended_s))
        self.progress.enter(Stage.EPOCH_BOUNDARY)
        if self.epoch == 1:
            self._complete_stamps()
            self._note_how_it_ended()
            self.recorder.note(teardown_s=ended_s - asked_s)
        if self.epoch == 2 or not self.plan.boundary or self.observer.kind != "full":
            self.finish()

    def _note_how_it_ended(self) -> None:
        """Note whether the first epoch ended with its loader, and which batches failed."""
        train = self.observer.train
        if self._facts is not None and train is not None:
            self._facts["left_early"] = not self._ends_passes
            self._facts["failed_batches"] = train.failed

    #: the `LoaderFacts` of the first epoch
    _facts: dict[str, Any] | None = None

    def validation_begins(self, at_s: float) -> None:
        self.progress.enter(Stage.VALIDATION)

    def validation_batch_taken(self, seen: Seen) -> None:
        if self._validated <= 1:
            self._rare.told(self.reader.gates)
            self._rare.begins("validation", sys._getframe(1))
        if self._rare.counts("validation", self.epoch):
            self._beside.validated(is_first=self._validated == 1)

    def _end_validation_batch(self, seen: Seen, now_s: float) -> None:
        """What the device has yet to do of a batch belongs to it: a script may read no value."""
        if self._validating_since is not None and self._validated:
            self.synchronize()
            now_s = self.observer.clock()
        super()._end_validation_batch(seen, now_s)

    def validation_batch(self, number: int, seconds: float) -> None:
        recorder = self.recorder
        self._known_s += seconds
        if number == 0:
            recorder.fields.setdefault("validation_restart_s", seconds)
        elif len(recorder.validation_batch_s) < self.plan.validation_batches:
            recorder.validation_batch_s.append(seconds)
        self.progress.step(number)

    def validation_ends(self, began_s: float, at_s: float) -> None:
        self.recorder.save()
        self.progress.enter(Stage.STEP)

    def checkpoint_begins(self, at_s: float) -> None:
        self._stage_before = self.progress.stage
        self.progress.enter(Stage.CHECKPOINT)
        self._rare.told(self.reader.gates)
        self._rare.begins("checkpoint", sys._getframe(1))

    def checkpoint_ends(self, at_s: float) -> None:
        self.progress.enter(self._stage_before)

    def checkpoint_over(self, seconds: float) -> None:
        self._known_s += seconds
        if self._rare.counts("checkpoint", self.epoch):
            self._beside.saved()
        if len(self.recorder.checkpoint_s) < self.plan.checkpoints:
            self.recorder.checkpoint_s.append(seconds)

    _stage_before = Stage.STEP

    def _note_metrics(self, begins_s: float) -> None:
        """Note what came between the first two epochs other than validation and checkpoint."""
        if self._over_s is not None:
            between_s = begins_s - self._over_s - self._known_s
            self.recorder.metrics_s.append(max(0.0, between_s))
        self._over_s = None

    _over_s: float | None = None
    _known_s = 0.0

    # ---- the step alone ----

    def serve(self, seen: Seen, now_s: float) -> tuple[Any] | None:
        if self._cut and self.epoch == 1:
            self._cut_epoch()
            raise StopIteration
        if self._skips:
            self._skips, self.in_epoch = False, False
            raise StopIteration
        if self.observer.kind != "compute" or not seen.has_kept_enough:
            return None
        if self.batches is not None and self.step >= self.batches:
            return None  # its own iterator reports the end of the epoch, or the trial has ended
        batch = self._pinned(seen, cloned(seen.kept[self._served % len(seen.kept)]))
        self._served += 1
        seen.in_pass += 1
        after_s = self.observer.clock()
        self._left_out_s += after_s - now_s
        self.observer.pattern.batches += 1
        self.observer.newest = seen
        self.delivered(after_s, after_s, seen.rows_of(batch))
        return (batch,)

    def _pinned(self, seen: Seen, batch: Any) -> Any:
        """The batch as its loader hands it out: copies from other memory would be slow."""
        loader = seen.loader()
        if self.observer.device != "cuda" or not getattr(loader, "pin_memory", False):
            return batch
        return self.observer.torch.utils.data._utils.pin_memory.pin_memory(batch)

    def _cut_epoch(self) -> None:
        """Tell the script that there are no more batches, since its window is measured."""
        self.in_epoch, self._ends_passes = False, True
        self._over_s, self._known_s = self.observer.clock(), 0.0
        self._first_over_s = self._over_s
        self.progress.enter(Stage.EPOCH_BOUNDARY)
        self._complete_stamps()
        self.observer.note(
            f"ctrkit ended the first epoch after {self.step} batches, to measure what follows it"
        )
        self.recorder.save()

    def serve_other(self, seen: Seen) -> tuple[Any] | None:
        enough = len(self.recorder.validation_batch_s) >= self.plan.validation_batches
        cut = (self._cut or self.epoch > 1) and seen is not self.observer.train
        if cut and enough and self._validating_since is not None:
            self._end_validation_batch(seen, self.observer.clock())
            if self._rare.counts("validation", self.epoch):
                claimed = honest_length(seen.loader()) if seen.length is None else seen.length
                left = None if claimed is None else max(0, claimed - seen.in_pass)
                self._beside.validation_ended_early(left)
            raise StopIteration
        return None

    # ---- the end ----

    def begin_clock(self, now_s: float) -> None:
        if self.observer.kind in ("compute", "loader"):
            self._say_error("refused", "the script uses no DataLoader: there is nothing to vary")
            leave(1)
        super().begin_clock(now_s)

    def keeps_batches(self, now_s: float) -> None:
        """The measurement only covers the first pass; all later epochs differ."""
        self.observer.problem = (
            "after its first pass over its loader the script trains on batches that it keeps (a "
            "list, itertools.cycle): there is no loader to vary; ctrkit train -- watches such a run"
        )
        self.cannot_tell()

    def cannot_tell(self) -> None:
        self._say_error("setup-failed", self.observer.problem)
        self.observer.write_seen(self.owner.folder)
        leave(1)

    def script_ends(self, crashed: bool) -> None:
        """The script may end before the window does; then this is all there is to measure."""
        if crashed and not self._cut and self.epoch < 3:
            return
        self._end_others(self.observer.clock())
        if self.recorder.window == THROUGHPUT and self.in_epoch:
            ended_s = self._open_until or self.observer.clock()
            self._end_epoch(ended_s, ended_s)
        if crashed:
            self.observer.note("the script failed once its first epoch had been ended early")
        self._write(complete=bool(self.recorder.fields.get("throughput_steps")))
        if self._cut:
            leave()

    def finish(self) -> None:
        """Write the complete measurement, and end the process."""
        self.progress.enter(Stage.SHUTDOWN)
        self._end_checkpoint()
        self._complete_stamps()
        self._write(complete=True)
        self.progress.enter(Stage.DONE)
        leave()
