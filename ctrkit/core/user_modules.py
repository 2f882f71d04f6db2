"""Makes the modules beside a user's file importable, in the same way in every process.

The file may have any name (`click-loader.py`, `random.py`, `my.loader.py`): it is imported under a
name that is free, and a worker that is started anew finds it under the same one when it unpickles.
The file's folder is first on `sys.path`, as `python FILE` has it. But the names that Python, torch
and ctrkit use are looked up elsewhere first: a `random.py` beside the file must not become the
`random` of torch and multiprocessing.

Standard library only: this is imported before anything else in a worker.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from types import ModuleType

#: Tells the processes that multiprocessing starts which modules to find where.
VARIABLE = "CTRKIT_USER_MODULES"


@dataclass(frozen=True)
class UserModules:
    """Where to look.

    Args:
        files: `[module's name, file]` pairs.
        packages: `[package's name, folder]` pairs.
        folder: the file's; it is first on `sys.path`.
        kept: top-level names that the folder must not take: those of the standard library are
            kept anyway.
    """

    files: tuple[tuple[str, str], ...]
    packages: tuple[tuple[str, str], ...] = ()
    folder: str = ""
    kept: tuple[str, ...] = ()


class UserFinder:
    """Finds the modules of a user's file, and keeps what Python and torch need from its folder."""

    def __init__(self, modules: UserModules) -> None:
        self.modules = modules
        self._files, self._packages = dict(modules.files), dict(modules.packages)
        self._kept = {*sys.stdlib_module_names, *modules.kept}
        self._folder = _real(modules.folder)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As an entry of `sys.meta_path` does it: None leaves the name to the next one."""
        if name in self._files:
            return importlib.util.spec_from_file_location(name, self._files[name])
        if name in self._packages:
            return _package_spec(name, self._packages[name])
        if path is None and name in self._kept:
            others = [one for one in sys.path if _real(one or os.curdir) != self._folder]
            return importlib.machinery.PathFinder.find_spec(name, others)
        return None


@lru_cache(maxsize=256)
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def _package_spec(name: str, folder: str) -> importlib.machinery.ModuleSpec | None:
    first = os.path.join(folder, "__init__.py")
    if os.path.isfile(first):
        return importlib.util.spec_from_file_location(
            name, first, submodule_search_locations=[folder]
        )
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [folder]
    return spec


def install(modules: UserModules) -> None:
    """From now on this process, and those that multiprocessing starts from it, find them."""
    finders = [one for one in sys.meta_path if not isinstance(one, UserFinder)]
    by_path = importlib.machinery.PathFinder
    # ours stands before the one that looks into `sys.path`
    place = finders.index(by_path) if by_path in finders else 0
    sys.meta_path[:] = [*finders[:place], UserFinder(modules), *finders[place:]]
    os.environ[VARIABLE] = json.dumps(asdict(modules))


def install_from_environment() -> None:
    """Where multiprocessing started this process: do what its parent did, if that did anything."""
    told = os.environ.get(VARIABLE)
    if told and _is_started_by_multiprocessing():
        values = json.loads(told)
        install(
            UserModules(
                files=tuple(map(tuple, values["files"])),
                packages=tuple(map(tuple, values["packages"])),
                folder=values["folder"],
                kept=tuple(values["kept"]),
            )
        )


def _is_started_by_multiprocessing() -> bool:
    """Whether it is a spawned process, a forkserver or a tracker, also of multiprocess or loky."""
    return any("multiprocess" in word or "loky" in word for word in sys.orig_argv)
