"""Wraps functions of torch: each wrapper tells the observer, then does as before.

A DataLoader's constructor is not wrapped, and `__iter__` stays a plain function that returns what
torch's returns. Errors of the observer never reach the script.
"""

from __future__ import annotations

import functools
import os
import sys
from _thread import get_ident
from typing import Any

from ctrkit.child.script.observer import Observer, the_observer
from ctrkit.child.script.seen_loaders import calling_site
from ctrkit.child.script.unseen import unseen

#: The attribute of an iterator that names its loader.
_SEEN = "_ctrkit_seen"
_LOADER = "_ctrkit_loader"


def watch_dataloader(module: Any) -> None:
    """`torch.utils.data.dataloader` is imported."""
    observer = the_observer()
    if observer is None:
        return
    _wrap_iter(observer, module.DataLoader)
    _wrap_iterator(observer, module._BaseDataLoaderIter, module.DataLoader)
    _wrap_next(observer, module._BaseDataLoaderIter)
    if observer.is_trial:  # nothing is compared with a real run's rows
        _wrap_next_index(observer, module._BaseDataLoaderIter)
    _wrap_reset(observer, module._MultiProcessingDataLoaderIter)
    _wrap_made(observer, module.DataLoader)


def watch_stateful_dataloader(module: Any) -> None:
    """Torchdata's loader has its own `__iter__`."""
    observer = the_observer()
    kind = getattr(module, "StatefulDataLoader", None)
    if observer is None or kind is None:
        return
    if "__iter__" in vars(kind):
        _wrap_iter(observer, kind)
    for iterator in vars(module).values():
        own = isinstance(iterator, type) and iterator.__module__ == module.__name__
        if own and "DataLoaderIter" in iterator.__name__ and "__next__" in vars(iterator):
            _wrap_next(observer, iterator)


def _wrap_iter(observer: Observer, kind: Any) -> None:
    original = kind.__iter__

    @unseen
    @functools.wraps(original)
    def __iter__(self: Any) -> Any:
        if not observer.active or observer.is_asking(self):
            return original(self)
        seen = observer.iterator_asked(self)
        try:
            iterator = original(self)
        finally:
            observer.iterator_made(self)
        _mark(iterator, seen, self)
        return iterator

    kind.__iter__ = __iter__
    made = kind._get_iterator

    @unseen
    @functools.wraps(made)
    def _get_iterator(self: Any) -> Any:
        if not observer.active or observer.is_asking(self):
            return made(self)
        seen = observer.iterator_asked(self)  # a subclass may have its own `__iter__`
        try:
            iterator = made(self)
        finally:
            observer.iterator_made(self)
        _mark(iterator, seen, self)
        return iterator

    kind._get_iterator = _get_iterator


def _wrap_iterator(observer: Observer, kind: Any, stock: Any) -> None:
    """Wrap torch's iterators: loaders such as fastai's use them without being a DataLoader."""
    original = kind.__init__

    @unseen
    @functools.wraps(original)
    def __init__(self: Any, loader: Any) -> None:
        foreign = observer.active and not isinstance(loader, stock)
        if not foreign or observer.is_asking(loader):
            original(self, loader)
            return
        seen = observer.iterator_asked(loader)
        try:
            original(self, loader)
        finally:
            observer.iterator_made(loader)
        _mark(self, seen, loader)

    kind.__init__ = __init__


def _mark(iterator: Any, seen: Any, loader: Any) -> None:
    stored = getattr(iterator, "__dict__", None)
    if stored is not None and seen is not None:
        stored[_SEEN] = seen
        if not loader.persistent_workers:
            stored[_LOADER] = loader  # `for batch in DataLoader(...)` keeps it nowhere else
        if seen.first_pass_s is None:
            seen.worker_pids = [one.pid for one in stored.get("_workers", ())]


def _wrap_next(observer: Observer, kind: Any) -> None:
    original = kind.__next__

    @unseen
    @functools.wraps(original)
    def __next__(self: Any) -> Any:
        seen = self.__dict__.get(_SEEN)
        thread = get_ident()
        if seen is None or not observer.active or thread in observer.taking:
            return original(self)
        return observer.take(seen, self, original, thread)

    kind.__next__ = __next__


def _wrap_next_index(observer: Observer, kind: Any) -> None:
    original = kind._next_index

    @unseen
    @functools.wraps(original)
    def _next_index(self: Any) -> Any:
        index = original(self)
        if observer.active:
            observer.index_drawn(self.__dict__.get(_SEEN), index)
        return index

    kind._next_index = _next_index


def _wrap_reset(observer: Observer, kind: Any) -> None:
    original = kind._reset

    @unseen
    @functools.wraps(original)
    def _reset(self: Any, loader: Any, first_iter: bool = False) -> Any:
        if observer.active and not first_iter:
            observer.iterator_reset(loader)
        return original(self, loader, first_iter)

    kind._reset = _reset


def _wrap_made(observer: Observer, kind: Any) -> None:
    """Wrap the method that the constructor calls last, to see where a loader is made."""
    original = getattr(kind, "check_worker_number_rationality", None)
    if original is None:
        return

    @unseen
    @functools.wraps(original)
    def check_worker_number_rationality(self: Any) -> Any:
        if observer.active and sys._getframe(1).f_code.co_name == "__init__":
            observer.loader_made(self, calling_site(self))
        return original(self)

    kind.check_worker_number_rationality = check_worker_number_rationality


def watch_torch(torch: Any) -> None:
    """Torch is imported: watch backward passes, saves, and the workers of its loaders."""
    observer = the_observer()
    if observer is None:
        return
    _wrap_backward(observer, torch)
    torch.save = torch.serialization.save = _timed_save(observer, torch.save, place=1)
    observer.torch_imported(torch)


def _wrap_backward(observer: Observer, torch: Any) -> None:
    """Wrap the backward function, which `Tensor.backward` also calls."""
    original = torch.autograd.backward

    @unseen
    @functools.wraps(original)
    def backward(*arguments: Any, **named: Any) -> Any:
        if not observer.active or observer.in_backward:
            return original(*arguments, **named)
        observer.backward_begins(arguments[0] if arguments else named.get("tensors"))
        try:
            return original(*arguments, **named)
        finally:
            observer.backward_ends()

    torch.autograd.backward = backward


def watch_optimizers(module: Any) -> None:
    """`torch.optim.optimizer` is imported."""
    observer = the_observer()
    if observer is None:
        return
    module.register_optimizer_step_pre_hook(observer.step_begins)
    module.register_optimizer_step_post_hook(observer.step_ends)


def watch_safetensors(module: Any) -> None:
    """`safetensors.torch` is imported."""
    observer = the_observer()
    if observer is None:
        return
    for name in ("save_file", "save_model"):
        original = getattr(module, name, None)
        if original is not None:
            setattr(module, name, _timed_save(observer, original, place=1))


def watch_distributed_saves(module: Any) -> None:
    """`torch.distributed.checkpoint` is imported."""
    observer = the_observer()
    if observer is None or not hasattr(module, "save"):
        return
    module.save = _timed_save(observer, module.save, place=None)


def _timed_save(observer: Observer, original: Any, place: int | None) -> Any:
    """A wrapper that times a function that saves; a trial does not overwrite the user's files.

    `place`: position of the file's name among the arguments.
    """

    @unseen
    @functools.wraps(original)
    def save(*arguments: Any, **named: Any) -> Any:
        if not observer.active or observer.saving:
            return original(*arguments, **named)
        aside = _aside(observer, arguments, named, place)
        observer.save_begins()
        try:
            if aside is None:
                return original(*arguments, **named)
            return _saved_aside(original, arguments, named, place, aside)
        finally:
            observer.save_ends()

    return save


def _file_argument(arguments: Any, named: Any, place: int | None) -> Any:
    if place is None:
        return None
    if len(arguments) > place:
        return arguments[place]
    return named.get("f", named.get("filename"))


def _aside(observer: Observer, arguments: Any, named: Any, place: int | None) -> str | None:
    """A path beside a file that existed before the trial, where the trial saves instead."""
    file = _file_argument(arguments, named, place)
    if not observer.is_trial or not isinstance(file, (str, os.PathLike)):
        return None
    path = os.path.abspath(os.fspath(file))
    if not observer.was_there(path):
        return None
    return f"{path}.trial-{os.getpid()}"


@unseen
def _saved_aside(original: Any, arguments: Any, named: Any, place: Any, aside: str) -> Any:
    given = list(arguments)
    if len(given) > place:
        given[place] = aside
    else:
        named = {**named, ("f" if "f" in named else "filename"): aside}
    try:
        return original(*given, **named)
    finally:
        if os.path.exists(aside):
            os.unlink(aside)
