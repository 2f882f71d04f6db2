"""Builds a store in a folder of its own, so that an interrupted preparation can continue."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json, write_json
from ctrkit.core.locks import LOCK, only_writer
from ctrkit.core.units import format_bytes, format_duration
from ctrkit.ctr.data.builder import StoreBuilder
from ctrkit.ctr.data.stage_progress import Watcher
from ctrkit.ctr.data.store import META_FILE, STORE_SCHEMA_VERSION, StoreMeta, read_meta
from ctrkit.ctr.data.workspace import LimitError, Workspace, workspace

#: increase it whenever a stage makes something else of the same input
STAGES_VERSION = 2
MANIFEST = "manifest.json"
_STORE = "store"
_END_BYTES = 1 << 20


class Preparation:
    """The database and the builder of a store in preparation; get one from `preparing`."""

    def __init__(self, space: Workspace, folder: Path) -> None:
        self.space = space
        self.folder = folder
        self._whole = (folder / META_FILE).is_file()  # everything is done except the final rename
        self.builder = StoreBuilder(folder, keep=None if self._whole else space.saved)
        space.save = self.builder.save

    def finish(self, **description: Any) -> StoreMeta:
        """Call `StoreBuilder.finish`, unless that was done before."""

        def work() -> None:
            rows = sum(self.space.saved.values())
            self.space.advance(0, rows)
            self.builder.finish(**description)
            self.space.advance(rows, rows)

        if not self._whole:
            self.space.save = dict
            self.space.stage("writing the store", work)
        return read_meta(self.folder)


@contextmanager
def preparing(
    out: Path,
    *,
    inputs: Sequence[Path],
    options: Mapping[str, object],
    memory_limit_bytes: int,
    threads: int,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> Iterator[Preparation]:
    """Prepare a store, continuing what an interrupted call left.

    Everything happens in the folder `.NAME.preparing` beside `out`, which becomes `out` at the end.
    That folder is kept after a kill, Ctrl-C, a full disk or too small a memory limit; any other
    error removes it. It is reused only for the same inputs (size, modification time, first and last
    MiB) and options; otherwise the work begins anew.

    Args:
        out: the store's folder, missing or empty.
        inputs: the files to make the store from.
        options: everything else that the store depends on; JSON values.
        memory_limit_bytes: DuckDB's memory limit.
        threads: DuckDB's threads.
        fresh: begin anew, whatever is there.
        watcher: is told of the stages.

    Raises:
        UsageError: `out` is not empty or cannot be written, another process prepares it, or
            `workspace` raises it.
    """
    watcher = watcher or Watcher()
    work = out.parent / f".{out.name}.preparing"
    try:
        _check_free(out, work)
        work.mkdir(parents=True, exist_ok=True)
        with only_writer(work, who="ctrkit data prepare"):
            _keep_or_clear(work, _manifest(inputs, options), fresh, watcher)
            try:
                with _opened(work, memory_limit_bytes, threads, watcher) as preparation:
                    yield preparation
                _move(work / _STORE, out)
            except (LimitError, OSError, KeyboardInterrupt):
                _say_what_is_kept(work, watcher)
                raise
            except Exception:
                shutil.rmtree(work, ignore_errors=True)
                raise
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _opened(
    work: Path, memory_limit_bytes: int, threads: int, watcher: Watcher
) -> Iterator[Preparation]:
    with workspace(
        work, memory_limit_bytes=memory_limit_bytes, threads=threads, watcher=watcher
    ) as space:
        if space.finished:
            spent_s = sum(stage.elapsed_s for stage in space.finished)
            watcher.note(
                f"going on from an interrupted preparation: {len(space.finished)} stages"
                f" are finished, {format_duration(spent_s)} of work"
            )
        preparation = Preparation(space, work / _STORE)
        with preparation.builder:
            yield preparation


def _check_free(out: Path, work: Path) -> None:
    if (out / META_FILE).is_file() and work.is_dir() and not (work / _STORE).exists():
        # an earlier process was killed just before this step
        shutil.rmtree(work, ignore_errors=True)
        raise UsageError(
            f"--out {out}: an earlier call finished this store before it ended; 'ctrkit data info"
            f" {out}' shows it"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"--out {out}: the folder is not empty; name a new one")


def _manifest(inputs: Sequence[Path], options: Mapping[str, object]) -> dict[str, Any]:
    """Everything that the work depends on, as a JSON value."""
    return {
        "versions": [STAGES_VERSION, STORE_SCHEMA_VERSION],
        "options": dict(options),
        "inputs": {str(path.absolute()): _looks(path) for path in inputs},
    }


def _looks(path: Path) -> dict[str, Any]:
    """Facts that distinguish a file from others without reading all of it."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            ends = hashlib.sha256(file.read(_END_BYTES))
            file.seek(max(0, status.st_size - _END_BYTES))
            ends.update(file.read(_END_BYTES))
    except OSError as error:  # so that it is not taken for an error of `out`
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    return {
        "size_bytes": status.st_size,
        "changed_ns": status.st_mtime_ns,
        "ends_sha256": ends.hexdigest(),
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Why the work of one manifest cannot be used for another, in words; None if it can."""
    if before.get("versions") != now["versions"]:
        return "what is there was made by another version of ctrkit"
    for key, value in now["options"].items():
        if before["options"].get(key) != value:
            return f"{key} is {value}, but was {before['options'].get(key)}"
    for file, looks in now["inputs"].items():
        if file not in before["inputs"]:
            return f"{file} was not read then"
        if before["inputs"][file] != looks:
            return f"{file} has changed since then"
    return None if before == now else "it was of other files"


def _keep_or_clear(work: Path, manifest: dict[str, Any], fresh: bool, watcher: Watcher) -> None:
    """Keep what an interrupted preparation left if it is usable, else empty the folder."""
    if (work / MANIFEST).is_file():
        try:
            why = difference(read_json(work / MANIFEST), manifest)
        except (UsageError, KeyError, AttributeError, TypeError):
            why = f"{MANIFEST} in {work} is damaged"
        why = "--fresh" if fresh else why
        if why is None:
            return
        watcher.note(f"starting over instead of continuing from {work.name}: {why}")
    for left in work.iterdir():
        if left.name != LOCK:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    (work / _STORE).mkdir()
    write_json(work / MANIFEST, manifest)


def _say_what_is_kept(work: Path, watcher: Watcher) -> None:
    size_bytes = sum(file.stat().st_size for file in work.rglob("*") if file.is_file())
    watcher.note(
        f"what is finished is kept in {work} ({format_bytes(size_bytes)}): the same command "
        f"continues there; with --fresh it starts over"
    )


def _move(store: Path, out: Path) -> None:
    """Rename the finished store to its final path."""
    for left in store.glob("*.part"):  # left by a process that was killed just before this
        left.unlink()
    if out.is_dir():
        out.rmdir()
    os.replace(store, out)
