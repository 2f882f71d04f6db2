"""Makes the modules beside a user's file importable, in the same way in every process.

The file may have any name (`click-loader.py`, `random.py`, `my.loader.py`). It is imported under a
free name, and a spawned worker finds it under the same name when it unpickles. The file's folder is
first on `sys.path`, as with `python FILE`. But names that Python, torch and ctrkit use are searched
elsewhere first: a `random.py` beside the file must not replace the `random` that torch and
multiprocessing use.

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

#: Passes the `UserModules` to processes that multiprocessing starts.
VARIABLE = "CTRKIT_USER_MODULES"


@dataclass(frozen=True)
class UserModules:
    """Where to find a user's modules.

    Args:
        files: pairs `[module name, file]`.
        packages: pairs `[package name, folder]`.
        folder: the file's folder, the first on `sys.path`.
        kept: top-level names that the folder must not replace, besides the standard library's.
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
        """The interface of a `sys.meta_path` entry; None leaves the name to the next entry."""
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
    """Let this process, and those that multiprocessing starts from it, find these modules."""
    finders = [one for one in sys.meta_path if not isinstance(one, UserFinder)]
    by_path = importlib.machinery.PathFinder
    # before the finder that searches `sys.path`
    place = finders.index(by_path) if by_path in finders else 0
    sys.meta_path[:] = [*finders[:place], UserFinder(modules), *finders[place:]]
    os.environ[VARIABLE] = json.dumps(asdict(modules))


def install_from_environment() -> None:
    """In a process that multiprocessing started, do as the parent did, if it called `install`."""
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
    """Whether this is a spawned process, forkserver or tracker, also of multiprocess or loky."""
    return any("multiprocess" in word or "loky" in word for word in sys.orig_argv)
