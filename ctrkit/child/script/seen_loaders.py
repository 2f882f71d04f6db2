"""The DataLoaders of a script's process: which is which, and its state when first iterated.

A loader's constructor is not wrapped. A loader is identified by its data set, its settings, and the
order in which loaders are first iterated. A loader that a script makes anew for each epoch keeps
the number of the one that it replaces.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import weakref
from typing import Any

from ctrkit.child.script.hashes import cloned, shape_of

#: The number of batches whose contents and rows are hashed.
HASHED_BATCHES = 4
#: The number of remembered batches of a loader that may or may not train.
MOST_PENDING = 4096
_KEPT = 10
#: after so many batches of exactly the batch size, all others except the last are assumed equal
_PLAIN = 8
_KEPT_OF_MANY_SHAPES = 40


class Seen:
    """One loader of the script, and what is known about it."""

    def __init__(self, number: int, loader: Any, site: tuple[str, int]) -> None:
        self.number = number
        self.facts = facts_of(loader)
        self.facts["file"], self.facts["line"] = site
        self.configuration = configuration_of(loader)
        self.dataset_id = id(loader.dataset)
        self.take_over(loader)
        self.length: int | None = None
        self.delivered = self.backwards = self.steps = 0
        #: batches that raised an error
        self.failed = 0
        self.hashes: list[str] = []
        self.rows: list[str] = []
        #: row hashes of the second pass over it
        self.later_rows: list[str] = []
        self.passes = 0
        #: Since its latest iterator: when that was asked for, and the batches (asked, delivered,
        #: rows) of a loader that is not known to train.
        self.iterator_asked_s = 0.0
        self.pending: list[tuple[float, float, int]] = []
        self.in_pass = 0
        #: of the first pass with training: when its iterator was asked for, and its workers
        self.first_pass_s: float | None = None
        self.worker_pids: list[int] = []
        #: batches since the training loader was asked for one, and how often it was exactly one
        self.since_train = self.companion = 0
        self.settled = self.rows_full = self.hashes_full = False
        #: of the latest pass: batches that a trial skips, those that come first as written, and
        #: those whose rows were drawn
        self.left_out = self.as_written = self.drawn = 0
        #: copies of its first batches, for a trial of the step alone
        self.kept: list[Any] = []
        self._counter: Any = None
        self._plain = 0
        self._shapes: set[Any] = set()

    def take_over(self, loader: Any) -> None:
        """Let this loader object represent it from now on."""
        self.loader = _reference(loader)
        #: number of iterators that this object was asked for
        self.asked = 0
        self._counter = None
        self.dataset = _reference(loader.dataset)

    def begin_pass(self, asked_s: float) -> None:
        """An iterator is asked for."""
        self.iterator_asked_s, self.in_pass = asked_s, 0
        self.asked += 1
        self.passes += bool(self.rows)  # another pass, if rows of the first were drawn
        self.rows_full = self.passes > 1
        self.left_out = self.as_written = self.drawn = 0
        self.pending.clear()

    def rows_of(self, batch: Any) -> int:
        """The number of rows of its latest batch; 0 if unknown.

        If the first batches have as many as its sampler draws, later ones are not examined.
        """
        if self._counter is None:
            from ctrkit.child.training.batches import RowCounter

            loader = self.loader()
            if loader is None:  # `for batch in DataLoader(..., persistent_workers=True)`
                self._counter = RowCounter(None, self.facts["batch_size"])
            else:  # the counter must not keep a loader alive that the script has dropped
                self._counter = RowCounter(weakref.proxy(loader))
            self._plain = 0
        index = self.in_pass - 1
        if index >= self.as_written:
            index += self.left_out
        if self.length:
            index %= self.length  # one iterator may repeat, epoch after epoch
        if self._plain >= _PLAIN and self.length is not None and index < self.length - 1:
            return int(self.facts["batch_size"])
        self._counter.begin_epoch(index)
        rows = self._counter.count(batch)
        self._plain = self._plain + 1 if rows == self.facts["batch_size"] else 0
        return int(rows or 0)

    def note_rows(self, marks: list[str], most: int) -> None:
        """Remember some of the rows that the sampler drew in the first two passes."""
        rows = self.later_rows if self.passes else self.rows
        rows += marks
        self.rows_full = len(rows) >= most

    @property
    def reuses_its_iterator(self) -> bool:
        """Whether the script as written would continue with the same iterator and workers now."""
        return self.asked > 1 and bool(self.facts["persistent"])

    def keep(self, batch: Any) -> None:
        """Keep a copy of one of the first batches, before the script changes it."""
        if not self.has_kept_enough:
            self.kept.append(cloned(batch))
            self._shapes.add(shape_of(batch))

    @property
    def has_kept_enough(self) -> bool:
        """Whether enough batches are kept: a few, more if shapes differ, at most half an epoch."""
        least = _KEPT if len(self._shapes) <= 2 else _KEPT_OF_MANY_SHAPES
        if self.length is not None:
            least = min(least, max(1, self.length // 2))
        return len(self.kept) >= least

    def as_json(self, is_train: bool) -> dict[str, Any]:
        """The values of a `ScriptLoader`."""
        return {
            "number": self.number, **self.facts, "length": self.length,
            "batches_taken": self.delivered, "is_train": is_train,
        }  # fmt: skip


def warmup_steps(loader: Any) -> int:
    """The number of batches made before the loop waits for them, and of those to hash."""
    queued = int(loader.num_workers) * int(loader.prefetch_factor or 0)
    return max(1, queued, HASHED_BATCHES if loader.num_workers else 2)


class Loaders:
    """All loaders of this process, in order of their first iterator."""

    def __init__(self) -> None:
        self.all: list[Seen] = []
        self._by_id: dict[int, Seen] = {}
        #: by a loader's identity: where it was made, and from what
        self._sites: dict[int, tuple[tuple[str, int], tuple[int, int | None]]] = {}

    def made(self, loader: Any, site: tuple[str, int]) -> None:
        """A loader is being made at this place in the script's own files."""
        if site[0] and len(self._sites) < 10_000:
            self._sites[id(loader)] = site, _made_of(loader)

    def of(self, loader: Any) -> Seen:
        """What is known about a loader that is asked for an iterator."""
        known = self._by_id.get(id(loader))
        if known is not None and known.loader() is loader:
            return known
        replaced = next((one for one in self.all if _replaces(loader, one)), None)
        if replaced is not None:
            replaced.take_over(loader)
            found = replaced
        else:
            found = Seen(len(self.all), loader, self._site_of(loader))
            self.all.append(found)
        self._by_id[id(loader)] = found
        return found

    def _site_of(self, loader: Any) -> tuple[str, int]:
        """Where the script made it, or the loader that a framework made it from."""
        own, parts = self._sites.get(id(loader)), _made_of(loader)
        if own is not None and own[1] == parts:
            return own[0]
        same = [site for site, made_of in self._sites.values() if made_of == parts]
        return same[0] if same else ("", 0)


def _made_of(loader: Any) -> tuple[int, int | None]:
    """The identity of the data set, and the batch size, of a loader or of one made from it."""
    return id(loader.dataset), batch_size_of(loader)


def batch_size_of(loader: Any) -> int | None:
    """Rows of a batch, also with a batch sampler."""
    batches = getattr(loader, "batch_sampler", None)
    size = getattr(loader, "batch_size", None) or getattr(batches, "batch_size", None)
    return size if isinstance(size, int) else None


def _reference(value: Any) -> Any:
    try:
        return weakref.ref(value)
    except TypeError:  # for a list or tuple, it is unknown whether it still lives
        return lambda: None


def _replaces(loader: Any, seen: Seen) -> bool:
    """Whether the loader replaces one that is gone, with the same data."""
    if seen.loader() is not None or seen.configuration != configuration_of(loader):
        return False
    return seen.dataset_id == id(loader.dataset) or seen.dataset() is None


def configuration_of(loader: Any) -> tuple[Any, ...]:
    """Values that are equal for loaders that do the same, except for the data set."""
    batches = getattr(loader, "batch_sampler", None)
    return (
        type(loader).__qualname__, type(loader.dataset).__qualname__,
        getattr(loader, "batch_size", None),
        getattr(batches, "batch_size", None), type(getattr(loader, "sampler", None)).__qualname__,
        loader.drop_last, _dataset_length(loader.dataset),
        getattr(loader.collate_fn, "__qualname__", type(loader.collate_fn).__qualname__),
    )  # fmt: skip


def _dataset_length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except Exception:
        return None


def facts_of(loader: Any) -> dict[str, Any]:
    """The fields of a `ScriptLoader` that the loader itself has."""
    context = getattr(loader, "multiprocessing_context", None)
    method = context if isinstance(context, str) or context is None else context.get_start_method()
    iterable = is_iterable(loader)
    return {
        "dataset": type(loader.dataset).__qualname__,
        "batch_size": batch_size_of(loader),
        "workers": int(loader.num_workers),
        "start_method": method,
        "prefetch": getattr(loader, "prefetch_factor", None) if loader.num_workers else None,
        "persistent": bool(loader.persistent_workers),
        "pin": bool(loader.pin_memory),
        "iterable": iterable,
        "shares_out": shares_out(loader.dataset) if iterable else None,
        "unpicklable": "",
        "sampler": _sampler_of(loader),
    }


def _sampler_of(loader: Any) -> str:
    """The class name of the sampler of rows, also behind a batch sampler."""
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    sampler = inner if inner is not None else getattr(loader, "sampler", None)
    return type(sampler).__name__


def is_iterable(loader: Any) -> bool:
    """Whether its data set is iterated, not indexed."""
    return getattr(loader, "_dataset_kind", 0) == 1


def honest_length(loader: Any) -> int | None:
    """The loader's `len()`, without the trace that asking leaves in it."""
    called = getattr(loader, "_IterableDataset_len_called", None)
    try:
        length = len(loader)
    except Exception:
        return None
    finally:
        if hasattr(loader, "_IterableDataset_len_called"):
            loader._IterableDataset_len_called = called
    return length if length >= 0 else None


_ASKS = {"get_worker_info", "apply_sharding", "split_by_worker"}
_RUN = ("__iter__", "__next__", "__init__", "__call__")
_DEEPEST = 4


def shares_out(dataset: Any) -> bool:
    """Whether an iterable data set, or one inside it, asks for its worker's number."""
    return _asks(dataset, _DEEPEST, set())


def _asks(dataset: Any, depth: int, done: set) -> bool:  # type: ignore[type-arg]
    if hasattr(dataset, "__code__"):  # a stage of a pipeline
        named = getattr(dataset, "__name__", "") in _ASKS
        return named or _code_asks(dataset, depth, done)
    if depth == 0 or id(dataset) in done:
        return False
    done.add(id(dataset))
    for kind in type(dataset).__mro__:
        if kind.__module__ == "torch.utils.data.datapipes.datapipe":
            return True  # torch itself divides data pipes among workers
        for name, member in list(vars(kind).items()):
            function = getattr(member, "__func__", member)
            plain = not name.startswith("__") or name in _RUN
            if plain and _code_asks(function, depth, done):
                return True
    inner = list(getattr(dataset, "__dict__", {}).values())
    parts = [part for value in inner for part in (value if isinstance(value, list) else [value])]
    return any(_asks(part, depth - 1, done) for part in parts[:100] if _may_ask(part))


def _may_ask(part: Any) -> bool:
    """Whether it is a function, or an object that is iterated or called, as data sets hold."""
    if isinstance(part, type) or not hasattr(part, "__dict__"):
        return False
    return hasattr(part, "__code__") or hasattr(part, "__iter__") or callable(part)


def _code_asks(function: Any, depth: int, done: set) -> bool:  # type: ignore[type-arg]
    code = getattr(function, "__code__", None)
    if code is None or depth == 0 or id(code) in done:
        return False
    done.add(id(code))
    codes = [code]
    while codes:
        code = codes.pop()
        codes += [one for one in code.co_consts if hasattr(one, "co_names")]
        if _ASKS & set(code.co_names):
            return True
        named = [function.__globals__.get(name) for name in code.co_names]
        modules = [one for one in named if isinstance(one, type(sys)) and one.__name__ != "torch"]
        named += [vars(one).get(name) for one in modules for name in code.co_names]
        for called in named:
            if hasattr(called, "__code__") and _code_asks(called, depth - 1, done):
                return True
    return False


_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_LIBRARIES = (
    _OWN + os.sep,
    *(os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib")),
)


def is_script_file(name: str) -> bool:
    """Whether a source file is the user's, not an installed library's."""
    if name.startswith("<") or not os.path.exists(name):
        return False
    path = os.path.realpath(name)
    if "/site-packages/" in path or "/dist-packages/" in path:
        return False
    return not path.startswith(_LIBRARIES)


def calling_site(loader: Any) -> tuple[str, int]:
    """File and line in the script that call the constructor of the loader being made.

    Empty if a library calls it: then no line of the script has the loader's settings.
    """
    frame = sys._getframe(2)
    own = {getattr(vars(kind).get("__init__"), "__code__", None) for kind in type(loader).__mro__}
    while frame is not None and frame.f_code in own:
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None or not is_script_file(frame.f_code.co_filename):
        return "", 0
    return os.path.abspath(frame.f_code.co_filename), frame.f_lineno
