"""The observer: follows what a script does with torch, and finds the loop that trains.

The training loader is the one whose latest batch precedes a backward pass. Until a backward pass is
seen, the deliveries of each loader are only remembered. Then the events go to the launch's
`driver`: an inspection, a trial or a watched run.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import Any

from ctrkit.child.script import describe, json_files
from ctrkit.child.script.ending import ScriptFailedError, tell_before_sudden_end
from ctrkit.child.script.first_batches import FirstBatches
from ctrkit.child.script.guarded import guarded
from ctrkit.child.script.loader_changes import LoaderChanges
from ctrkit.child.script.pattern import Pattern
from ctrkit.child.script.presence import Presence, claim_owner
from ctrkit.child.script.seen_loaders import MOST_PENDING, Loaders, Seen, honest_length
from ctrkit.child.script.trouble import note_trouble
from ctrkit.child.script.unseen import unseen
from ctrkit.core.lifeline import child_folder
from ctrkit.core.progress import Stage

#: After so many optimizer steps without any loader's batch, they count as the steps.
STEPS_WITHOUT_LOADER = 5
#: The same if a loader has delivered batches: the loop keeps them, and trains on them again.
STEPS_ON_ONE_BATCH = 50
#: After so many backward passes without loader and optimizer, a step cannot be told.
BACKWARDS_ALONE = 50


class Observer:
    """What one process of a script does; `patches` calls its methods."""

    def __init__(self, folder: str, spec: dict[str, Any]) -> None:
        self.folder, self.spec = folder, spec
        self.kind: str = spec["kind"]
        self.is_trial = self.kind != "train"
        self.serves = self.kind in ("compute", "loader", "full")
        #: epochs of the run, if the user gave them
        self.epochs_said: int | None = spec["workload"]["script"].get("epochs")
        self.train_number: int | None = spec["workload"]["script"].get("train_loader")
        self.clock = time.monotonic
        self.active = True
        self.presence = Presence(folder, str(int(1000 * spec.get("spawned_at_s", 0))))
        self.began_unix_s = time.time()
        self.torch: Any = None
        self.forget()

    def forget(self) -> None:
        """Reset the state, at the start and in a forked process."""
        self.lock = threading.RLock()  # another thread may have held the old lock at the fork
        self.loaders = Loaders()
        self.pattern = Pattern()
        self.train: Seen | None = None
        self.newest: Seen | None = None
        #: whether the training loader's latest iterator was trained on
        self.confirmed = False
        self.driver: Any = None
        self.taking: set[int] = set()
        self.in_backward = self.saving = False
        self.optimizer_clock = 0
        self.backwards = self.optimizer_steps = self.mismatched = 0
        self.steps_without_batch = self.most_on_a_batch = 0
        #: batches that the loop took and has not trained on yet: now, and at the end of the pass
        self.untrained = self.untrained_at_end = 0
        #: whether the loop took batches again after steps without any: those came between epochs
        self.takes_again = False
        self.device = "cpu"
        self.place: Any = None
        self.changes = LoaderChanges(self)
        self.marks = FirstBatches(self)
        self.notes: list[str] = []
        self.problem = ""
        self.loss: Any = None
        self._asking: list[Any] = []
        self._asking_seen: Seen | None = None
        self._first_optimizer = 0

    def _most_without_batch(self) -> int:
        train = self.train
        if not self.confirmed or train is None:
            least = 20 * STEPS_ON_ONE_BATCH if self.takes_again else STEPS_WITHOUT_LOADER
            return least + self.untrained_at_end
        all_taken = train.length is not None and train.in_pass >= train.length
        # a trial cannot recover from a wrong guess; a real run can, at the next batch
        least = STEPS_ON_ONE_BATCH if all_taken or not self.is_trial else 20 * STEPS_ON_ONE_BATCH
        return max(least, 4 * self.most_on_a_batch)

    @property
    def serves_batches(self) -> bool:
        """Whether the observer delivers batches instead of the loader."""
        return self.kind in ("compute", "loader")

    def give_up(self, what: str, error: BaseException) -> None:
        """Stop observing a script that the observer does not understand."""
        self.active = False
        note_trouble(what, error)
        self.note(f"the observer stopped: {what}: {type(error).__name__}: {error}")
        if self.driver is not None:
            try:
                self.driver.observation_failed()
            except Exception as second:
                note_trouble("the end of the observation failed", second)

    def note(self, sentence: str) -> None:
        """Add a note, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def torch_imported(self, torch: Any) -> None:
        """Torch was imported: also watch workers from now on."""
        self.torch = torch
        self.presence.enter(Stage.DATA)
        if self.is_trial and self.kind != "inspect":
            os.environ.setdefault("CTRKIT_STAMPS", "1")
        from ctrkit.child.training.stamps import see_collates
        from ctrkit.child.training.workers import watch_workers
        from ctrkit.core.lifeline import share_sockets_folder

        share_sockets_folder()
        watch_workers()
        if self.is_trial:
            see_collates()

    # ---- loaders ----

    @guarded
    def loader_made(self, loader: Any, site: Any) -> None:
        """A loader was made at this place in the script."""
        self.loaders.made(loader, site)

    def is_asking(self, loader: Any) -> bool:
        """Whether this loader is already being asked for an iterator."""
        return any(one is loader for one in self._asking)

    @guarded
    def iterator_asked(self, loader: Any) -> Seen | None:
        """A loader is asked for an iterator, which is the moment to change its settings."""
        worker = sys.modules.get("torch.utils.data._utils.worker")
        if worker is not None and worker.get_worker_info() is not None:
            return None  # a loader inside a DataLoader's worker
        self._asking.append(loader)
        now_s = self.clock()
        seen = self.loaders.of(loader)
        self._asking_seen = seen
        if self.driver is None:
            self.presence.enter(Stage.FIRST_BATCH)
        elif seen is self.train:
            if self.optimizer_clock:
                self.optimizer_clock, self.takes_again = 0, True
                self.driver.takes_batches_again(now_s)
            self.driver.pass_asked(now_s, self.confirmed)
            self.confirmed = False
        else:
            self.driver.other_iterator_asked(seen, now_s)
        seen.begin_pass(now_s)
        if loader is not None:
            self.changes.begin(seen, loader)
        return seen

    def iterator_made(self, loader: Any) -> None:
        """The loader was asked for an iterator, successfully or not."""
        self.changes.end(loader)
        if self._asking_seen is not None and getattr(loader, "persistent_workers", False):
            # it may be gone before its first batch: its iterator does not keep it
            self._asking_seen.length = honest_length(loader)
        self._asking = [one for one in self._asking if one is not loader]
        self._asking_seen = None

    @guarded
    def iterator_reset(self, loader: Any) -> None:
        """A loader with persistent workers begins another epoch."""
        self.changes.draw_the_seed(self.loaders.of(loader), loader)

    def index_drawn(self, seen: Seen | None, index: Any) -> None:
        """The sampler has drawn the rows of a batch."""
        seen = seen or self._asking_seen
        if seen is not None:
            self.marks.rows_named(seen, index)

    @unseen
    def take(self, seen: Seen, iterator: Any, original: Any, thread: int) -> Any:
        """The script asks a loader for its next batch, in this thread."""
        self.taking.add(thread)
        try:
            try:
                with self.lock:
                    if seen is self.train and self.confirmed:
                        self.driver.asked(self.clock())
                    elif self.driver is not None:
                        self.driver.other_asked(seen, self.clock())
            except Exception as error:
                self.give_up("the wait for a batch was not understood", error)
            if self.serves and (self.driver is not None or self.kind == "loader"):
                served = self._served(seen, iterator, original)
                if served is not None:
                    return served[0]
            asked_s = self.clock()
            try:
                batch = original(iterator)
            except StopIteration:
                self._ended(seen, asked_s)
                raise
            except Exception:
                seen.failed += 1  # the script may catch it, and ask for the next
                raise
            self._delivered(seen, asked_s, self.clock(), batch)
            return batch
        finally:
            self.taking.discard(thread)

    def _served(self, seen: Seen, iterator: Any, original: Any) -> Any:
        """A batch from the driver instead of the loader's, in a tuple; None for the loader's."""
        try:
            if self.kind == "loader" and seen.number == (self.train_number or 0):
                from ctrkit.child.script.drain import drain

                drain(self, seen, iterator, original)
            with self.lock:
                if seen is self.train and self.confirmed:
                    return self.driver.serve(seen, self.clock())
                return self.driver.serve_other(seen) if self.driver is not None else None
        except StopIteration:
            self.confirmed = self.confirmed and seen is not self.train
            raise
        except ScriptFailedError as failed:
            raise failed.error from None
        except Exception as error:
            self.give_up("serving a batch failed", error)
            return None

    def _delivered(self, seen: Seen, asked_s: float, delivered_s: float, batch: Any) -> None:
        if not self.active:
            return
        try:
            with self.lock:
                seen.delivered += 1
                seen.in_pass += 1
                if self.steps_without_batch > self.most_on_a_batch:
                    self.most_on_a_batch = self.steps_without_batch
                self.newest, self.steps_without_batch = seen, 0
                if seen is self.train:
                    self.optimizer_clock = 0  # the loop asks for batches after all
                if not seen.settled:
                    self._settle(seen, batch)
                rows = seen.rows_of(batch)
                if self.kind == "compute" and self.marks.wanted(seen):
                    seen.keep(batch)
                if seen is self.train and self.confirmed:
                    self.pattern.batches += 1
                    self.untrained += 1
                    self.driver.delivered(asked_s, delivered_s, rows)
                else:
                    self._other_delivered(seen, asked_s, delivered_s, rows)
                if self.is_trial:
                    self.marks.delivered(seen, batch)
        except Exception as error:
            self.give_up("a batch was not understood", error)

    def _other_delivered(self, seen: Seen, asked_s: float, delivered_s: float, rows: int) -> None:
        """A batch of a loader that is not known to train, or not in this pass."""
        if len(seen.pending) < MOST_PENDING:
            seen.pending.append((asked_s, delivered_s, rows))
        if self.driver is not None:
            self.driver.other_delivered(seen, delivered_s)

    def _settle(self, seen: Seen, batch: Any) -> None:
        """Read a loader's length and batch size, which its first batch makes possible."""
        seen.settled = True
        loader = seen.loader()
        if loader is not None:
            seen.length = honest_length(loader)
        if seen.facts["batch_size"] is None:
            seen.facts["batch_size"] = seen.rows_of(batch) or None

    @guarded
    def _ended(self, seen: Seen, asked_s: float) -> None:
        if seen is self.train and self.confirmed:
            self.confirmed = False
            # a thread that takes batches for the loop ends before the loop has trained on them
            self.untrained_at_end = min(self.untrained, seen.in_pass)
            self.driver.epoch_ended(asked_s, self.clock())
        elif self.driver is not None:
            self.driver.other_ended(asked_s)

    # ---- backward passes and optimizer steps ----

    def backward_begins(self, tensors: Any) -> None:
        """A backward pass begins; nested ones are not reported."""
        try:
            with self.lock:
                self.in_backward = True
                self.backwards += 1
                if self.backwards == 1:
                    self._computes_on(describe.place_of(tensors))
                if not self.confirmed or self.newest is not self.train or self.optimizer_clock:
                    self._find_training_loader()
                train = self.train
                if self.optimizer_clock or train is not None:
                    self.pattern.backward()
                if train is not None and not self.optimizer_clock:
                    train.backwards += 1
                    if self.untrained:
                        self.untrained -= 1
                    self.driver.backward_begins(self.clock(), tensors)
        except Exception as error:
            self.give_up("a backward pass was not understood", error)

    def _computes_on(self, place: Any) -> None:
        """The script's steps run on this `torch.device`, which need not be the current one."""
        self.place, self.device = place, str(getattr(place, "type", "cpu"))

    def _find_training_loader(self) -> None:
        """A backward pass runs, and the newest batch is not one that is known to be trained on."""
        if self.optimizer_clock:
            return
        if self.newest is not None and self.newest is not self.train:
            self._backward_on_another(self.newest)
        elif self.train is not None and not self.confirmed and self.train.pending:
            self._train_on(self.train)
        alone = self.train is None and self.newest is None and not self.optimizer_steps
        if alone and self.backwards >= BACKWARDS_ALONE:
            self._claim_without_clock()

    def _backward_on_another(self, seen: Seen) -> None:
        """Backward runs on the batch of a loader that is not known to train."""
        seen.backwards += 1
        expected = self.train_number is None or seen.number == self.train_number
        if self.train is None and expected:
            self._train_on(seen)
        elif self.train is None:
            self.mismatched += 1
            if self.mismatched >= 20 and self.is_trial:
                self.problem = (
                    f"backward runs on batches of loader {seen.number}, not on those of loader "
                    f"{self.train_number}"
                )
                self._train_on(seen)
        elif expected and seen.backwards >= 3 and self.train.loader() is None:
            self.note(f"loader {seen.number} took the place of loader {self.train.number}")
            self._train_on(seen)
        elif seen.backwards == 20 and not seen.companion:
            self.note(
                f"the script also trains on loader {seen.number}: ctrkit counts the epochs of "
                f"loader {self.train.number} only, and takes the others for validation"
            )

    def _train_on(self, seen: Seen) -> None:
        """This loop trains: report what was remembered about it and all that follows."""
        if self.driver is None:
            self._claim()
        self.train, self.confirmed = seen, True
        self.driver.begin_pass(seen)
        for i, (asked_s, delivered_s, rows) in enumerate(seen.pending):
            if i:
                self.driver.asked(asked_s)
            self.pattern.batches += 1
            self.untrained += 1
            self.driver.delivered(asked_s, delivered_s, rows)
        seen.pending.clear()

    def _claim(self) -> None:
        owner = claim_owner(self.folder, self.presence.launch)
        self.presence.leave()
        from ctrkit.child.script.drivers import make_driver

        self.driver = make_driver(self, owner)
        atexit.register(self._script_ends, os.getpid())
        tell_before_sudden_end(lambda status: self._script_ends(os.getpid(), status))

    @guarded
    def _script_ends(self, pid: int, status: int = 0) -> None:
        if pid == os.getpid() and self.active and self.driver is not None and not self._has_ended:
            self._has_ended = True
            crashed = status != 0 or getattr(sys, "last_value", None) is not None
            self.driver.script_ends(crashed=crashed)

    _has_ended = False

    def backward_ends(self) -> None:
        """The backward pass has ended, successfully or not."""
        self.in_backward = False
        if self.driver is None or not self.driver.hears_backward_end:
            return
        try:
            with self.lock:
                self.driver.backward_ends(self.clock())
        except Exception as error:
            self.give_up("the end of a backward pass was not understood", error)

    def step_begins(self, optimizer: Any, arguments: Any, named: Any) -> None:
        """An optimizer is about to make its step."""
        if self.driver is None or not self.active:
            return
        try:
            with self.lock:
                self.driver.step_begins(self.clock())
        except Exception as error:
            self.give_up("an optimizer's step was not understood", error)

    def step_ends(self, optimizer: Any, arguments: Any, named: Any) -> None:
        """An optimizer has made its step."""
        if not self.active:
            return
        try:
            with self.lock:
                self.optimizer_steps += 1
                if not self.backwards and self.optimizer_steps == 1:  # of torch.autograd.grad
                    self._computes_on(describe.place_of_optimizer(optimizer))
                number = id(optimizer)
                self._first_optimizer = self._first_optimizer or number
                if self.train is None and not self.optimizer_clock:
                    self._step_without_training_loader()
                if self.optimizer_clock:
                    if number == self.optimizer_clock:
                        self.pattern.stepped()
                        self.driver.clock_ticked(self.clock())
                elif self.train is not None:
                    self.pattern.stepped()
                    self.train.steps += 1
                    self.driver.step_ends(self.clock())
                    if number == self._first_optimizer:
                        self.steps_without_batch += 1
                        if self.steps_without_batch > STEPS_WITHOUT_LOADER:
                            self._step_without_batch()
        except Exception as error:
            self.give_up("the end of an optimizer's step was not understood", error)

    def _step_without_batch(self) -> None:
        """A step without a batch: of a list of a loader's batches, or itertools.cycle.

        Later epochs then never ask for batches. After a pass is over, a few steps show it; before
        that, a batch may have many steps.
        """
        if self.steps_without_batch > self._most_without_batch() and not self.serves_batches:
            self.optimizer_clock = self._first_optimizer
            self.driver.keeps_batches(self.clock())

    def _step_without_training_loader(self) -> None:
        seen = self.newest
        if seen is not None and seen.in_pass and self.backwards == 0:
            if self.train_number in (None, seen.number):
                self._train_on(seen)  # gradients from torch.autograd.grad or torch.func
            return
        if self.newest is None and self.optimizer_steps >= STEPS_WITHOUT_LOADER:
            self._claim()
            self.optimizer_clock = self._first_optimizer
            self.driver.begin_clock(self.clock())

    def _claim_without_clock(self) -> None:
        self._claim()
        self.problem = (
            "ctrkit saw neither a torch DataLoader nor a torch optimizer, so it cannot tell what "
            "a step is"
        )
        self.driver.cannot_tell()

    # ---- checkpoints ----

    @guarded
    def save_begins(self) -> None:
        """A checkpoint is about to be written."""
        self.saving = True
        if self.driver is not None:
            self.driver.save_begins(self.clock())

    @guarded
    def save_ends(self) -> None:
        """The checkpoint is written, or writing failed."""
        self.saving = False
        if self.driver is not None:
            self.driver.save_ends(self.clock())

    def was_there(self, path: str) -> bool:
        """Whether a file existed before this process began, and so is not the trial's own."""
        try:
            return os.stat(path).st_mtime < self.began_unix_s - 1
        except OSError:
            return False

    # ---- what is written ----

    def write_seen(self, folder: str | None = None) -> None:
        """Write `script.json`."""
        path = os.path.join(folder or self.folder, "script.json")
        # do not delay a real run for a file that is written again and again
        json_files.write_json(path, describe.script_seen(self), durable=self.is_trial)


_observers: dict[int, Observer | None] = {}


def the_observer() -> Observer | None:
    """The observer of this process; None if there is nothing to observe for."""
    if not _observers:
        folder = child_folder() or ""
        spec = json_files.read_json(os.path.join(folder, "spec.json"))
        known = isinstance(spec, dict) and isinstance(spec.get("workload", {}).get("script"), dict)
        _observers[0] = Observer(folder, spec) if known else None  # type: ignore[arg-type]
        if known and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forked)
    return _observers[0]


def _forked() -> None:
    observer = _observers.get(0)
    if observer is not None:
        observer.forget()
        observer.presence.leave()
