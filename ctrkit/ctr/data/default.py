"""The default data set: a generated store, built once in the cache folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ctrkit.core.environment import cache_folder
from ctrkit.core.errors import UsageError
from ctrkit.core.locks import LockTakenError, locked
from ctrkit.ctr.data.planted import REFERENCE, Scale
from ctrkit.ctr.data.store import STORE_SCHEMA_VERSION, Store
from ctrkit.ctr.data.synthetic import GENERATOR_VERSION, OnProgress, generate_store

NAME = "default"
#: how many seconds to wait for another process that builds the store
WAIT_S = 600.0


def default_store_path() -> Path:
    """The path of the default store; its name holds the versions that it depends on."""
    return cache_folder() / "stores" / f"{NAME}-v{STORE_SCHEMA_VERSION}.{GENERATOR_VERSION}"


def default_store(
    on_progress: OnProgress | None = None, *, scale: Scale = REFERENCE, wait_s: float = WAIT_S
) -> Path:
    """The folder of the default store; builds it if it is missing, damaged or of another version.

    Only one process builds, and others wait for it. A build that was killed leaves at most a hidden
    folder; the next build removes that, and stores of other versions.

    Raises:
        UsageError: the cache folder cannot be written, or another process takes longer than
            `wait_s`.
    """
    tell = on_progress or (lambda _text, _share: None)
    path = default_store_path()
    if _is_sound(path):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path.parent / f"{NAME}.lock", tell, wait_s):
            if not _is_sound(path):
                _clear(path.parent)
                generate_store(
                    path,
                    rows=scale.rows,
                    users=scale.users,
                    items=scale.items,
                    on_progress=on_progress,
                )
    except OSError as error:
        raise UsageError(
            f"cache folder {path.parent}: cannot be written: {error.strerror or error};"
            " set CTRKIT_HOME to another folder"
        ) from error
    return path


def _is_sound(path: Path) -> bool:
    try:
        Store.open(path)
    except UsageError:
        return False
    return True


@contextmanager
def _lock(path: Path, tell: OnProgress, wait_s: float) -> Iterator[None]:
    """Hold the lock, after waiting for its current holder."""
    with ExitStack() as held:
        try:
            held.enter_context(locked(path))
        except LockTakenError as taken:
            tell("waiting for another process that builds the default store", 0.0)
            try:
                held.enter_context(locked(path, wait_s=wait_s))
            except LockTakenError:
                raise UsageError(
                    f"{path}: another process (pid {taken.holder}) has been building the default"
                    f" store for more than {wait_s:.0f} s; end it, or give --data"
                ) from None
        yield


def _clear(folder: Path) -> None:
    """Remove leftovers of killed builds and of other versions; the lock excludes other builds."""
    for pattern in (f".{NAME}-*", f"{NAME}-*"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)
