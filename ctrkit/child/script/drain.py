"""A trial of the loader alone: drains it where the script asked for its first batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from ctrkit.child.script.ending import CommonEnd, ScriptFailedError
from ctrkit.child.script.presence import claim_owner
from ctrkit.child.script.seen_loaders import Seen
from ctrkit.child.script.trial_watch import TrialWatch
from ctrkit.child.script.trouble import note_trouble

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer
    from ctrkit.child.script.presence import Owner


class _DrainWatch(TrialWatch):
    """A watch in which every batch is a step, and groups do not matter.

    Ranks drain their loaders at the same time but independently: each ends by itself. Rows are
    those of all ranks, as in every other trial.
    """

    def __init__(self, observer: Observer, owner: Owner) -> None:
        super().__init__(observer, owner)
        self._end = CommonEnd(observer.folder, observer.presence.launch, owner.rank or 0, world=1)

    def is_warm(self) -> bool:
        return True

    def _end_or_cut(self) -> None:
        """End the window but not the trial: a second epoch follows."""


def drain(observer: Observer, seen: Seen, iterator: Any, original: Any) -> NoReturn:
    """Take batches until the window ends, then those of a second iterator; never returns."""
    observer.presence.leave()
    owner = claim_owner(observer.folder, observer.presence.launch)
    watch = _DrainWatch(observer, owner)
    observer.train, observer.driver, observer.confirmed = seen, watch, True
    loader = seen.loader()
    if loader is not None:
        seen.length = None
    watch.begin_pass(seen)
    _take_all(watch, seen, iterator, original)
    if watch.plan.boundary and loader is not None:
        _begin_again(observer, watch, seen, loader)
    watch.finish()
    raise AssertionError("a finished trial has left")


def _take_all(watch: TrialWatch, seen: Seen, iterator: Any, original: Any) -> None:
    observer = watch.observer
    while watch.recorder.wants_step:
        asked_s = observer.clock()
        watch.asked(asked_s)
        if not watch.recorder.wants_step:
            return
        try:
            batch = original(iterator)
        except StopIteration:
            ended_s = observer.clock()
            watch.recorder.epoch_ended(watch._time(asked_s), watch._time(ended_s))
            watch.in_epoch = False
            return
        except Exception as error:  # a worker's death, or an error of the data set
            raise ScriptFailedError(error) from error
        delivered_s = observer.clock()
        seen.in_pass += 1
        watch.delivered(asked_s, delivered_s, seen.rows_of(batch))
        if len(watch.recorder.stamps.step) == 0 and watch.batches is None:
            watch.batches = seen_length(observer)
            watch.recorder.know_batches(watch.batches)


def seen_length(observer: Observer) -> Any:
    """The loader's length, which may be read now that it has delivered a batch."""
    from ctrkit.child.script.seen_loaders import honest_length

    train = observer.train
    loader = train.loader() if train is not None else None
    if train is None or loader is None:
        return None
    train.length = honest_length(loader)
    return train.length


def _iterator_of(observer: Observer, loader: Any) -> Any:
    """Torch's own iterator, also for a loader that makes a generator of it."""
    data = observer.torch.utils.data
    iterator = iter(loader)
    if isinstance(iterator, data.dataloader._BaseDataLoaderIter):
        return iterator
    return data.DataLoader.__iter__(loader)


def _begin_again(observer: Observer, watch: TrialWatch, seen: Seen, loader: Any) -> None:
    """Begin a second epoch for its first batches; the first one may be abandoned midway."""
    watch._complete_stamps()
    observer.active = False  # what follows is ours, not the script's
    try:
        seen.begin_pass(observer.clock())
        iterator = _iterator_of(observer, loader)
        watch.begin_pass(seen)
        _take_all(watch, seen, iterator, next)
    except Exception as error:
        observer.note(f"a second epoch could not start: {type(error).__name__}: {error}")
        note_trouble("the loader could not be iterated again", error)
