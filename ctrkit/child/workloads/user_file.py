"""Imports a user's file as `python FILE` would run it, but not under the name `__main__`.

In this process and in its workers, `sys.argv` is the file alone, and `sys.path[0]` its folder. Two
things differ: a file beside it cannot take the name of one of Python's modules
(`ctrkit.core.user_modules`), and relative imports work.
"""

from __future__ import annotations

import ast
import importlib
import keyword
import linecache
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType

from ctrkit.core.errors import UsageError
from ctrkit.core.lifeline import FOLDER_VARIABLE
from ctrkit.core.user_modules import UserModules, install

#: prefix of the module name if the file's own name is taken, or no import statement can spell it
_ALIAS = "ctrkit_file_"
_MOST_SAID = 300
_GUARD_IT = 'put that under `if __name__ == "__main__":`'


def import_user_file(path: Path) -> ModuleType:
    """Import a user's file; spawned workers find the module by its name, too.

    Raises:
        UsageError: it raises an exception, or ends the process, while it is imported.
    """
    tree = _parse(path)
    name, modules = _plan(path, tree)
    install(modules)
    sys.argv[:] = [str(path)]
    sys.path[:] = [modules.folder, *(one for one in sys.path if one != modules.folder)]
    if _is_package(path.parent):  # a file that imports its own package by name finds it, as with -m
        sys.path.append(str(_above_packages(path.parent)))
    before = _stderr_size()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        said = _said_since(before) if isinstance(error, SystemExit) else ""
        told = _told(error, path, said, modules)
        raise UsageError(f"--workload {path}: cannot be imported: {told}") from error


def defined_at(path: Path, name: str) -> int | None:
    """The number of the line that defines this name anywhere in the file; None if none does."""
    for node in ast.walk(_parse(path) or ast.Module(body=[], type_ignores=[])):
        named = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name
        if named or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and
                     node.id == name):  # fmt: skip
            return int(getattr(node, "lineno", 1))
    return None


def _parse(path: Path) -> ast.Module | None:
    """The file's syntax tree; None if it has none. Importing it then says why."""
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None


# ---- names ---------------------------------------------------------------------------------------


def _plan(path: Path, tree: ast.Module | None) -> tuple[str, UserModules]:
    """The module name to import the file under, and where it and its packages are found."""
    loaded = {name for name, module in sys.modules.items()
              if "." not in name and not _is_beside(module, path.parent)}  # fmt: skip
    kept = loaded - sys.stdlib_module_names
    # in a file named pandas.py, `import pandas` means the library
    if _imports_its_own_name(tree, path.stem):
        kept.add(path.stem)
    taken = kept | sys.stdlib_module_names
    packages = tuple(_packages(path, tree, taken))
    name = _plain(path.stem, set() if packages else taken)
    if packages:
        name = f"{packages[-1][0]}.{name}"
    modules = UserModules(
        files=((name, str(path)),),
        packages=packages,
        folder=str(path.parent),
        kept=tuple(sorted(kept - {name})),
    )
    return name, modules


def _plain(stem: str, taken: set[str] | frozenset[str]) -> str:
    """The name itself if an import can spell it and it is free, else a free name."""
    if stem.isidentifier() and not keyword.iskeyword(stem) and stem not in taken:
        return stem
    return _ALIAS + re.sub(r"\W", "_", stem)


def _packages(
    path: Path, tree: ast.Module | None, taken: set[str] | frozenset[str]
) -> Iterator[tuple[str, str]]:
    """The packages that the file's relative imports need, the outermost first.

    None without relative imports: `python FILE` does not run an `__init__.py` either.
    """
    depth = max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)),
                default=0) if tree is not None else 0  # fmt: skip
    if depth == 0:
        return
    folders = [path.parent]
    while len(folders) < depth or all(map(_is_package, (folders[0], folders[0].parent))):
        if folders[0] == folders[0].parent:
            break
        folders.insert(0, folders[0].parent)
    name = ""
    for folder in folders:
        name = f"{name}.{_plain(folder.name, set())}" if name else _plain(folder.name, taken)
        yield name, str(folder)


def _above_packages(folder: Path) -> Path:
    while _is_package(folder):
        folder = folder.parent
    return folder


def _is_package(folder: Path) -> bool:
    return (folder / "__init__.py").is_file()


def _imports_its_own_name(tree: ast.Module | None, stem: str) -> bool:
    for node in ast.walk(tree) if tree is not None else ():
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        if any(name.partition(".")[0] == stem for name in names):
            return True
    return False


def _is_beside(module: ModuleType | None, folder: Path) -> bool:
    """Whether a top-level module was found in this folder."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str):
        return False
    path = Path(file)
    return folder == (path.parent.parent if path.stem == "__init__" else path.parent)


# ---- what went wrong -----------------------------------------------------------------------------


def _told(error: BaseException, path: Path, said: str, modules: UserModules) -> str:
    """The error, the user's line that it came from, and a way out if one is known."""
    line = _line_in(error, path)
    where = f" (line {line})" if line else ""
    first = str(error).splitlines()[0] if str(error) else ""
    if not isinstance(error, SystemExit):
        text = f"{type(error).__name__}: {first}".rstrip(": ")
        if line and "argv" in linecache.getline(str(path), line):
            return f"{text}{where}; it reads the command line there, which is empty: {_GUARD_IT}"
        return f"{text}{where}{_shadowed(error, modules)}"
    text = f"it ends itself while it is imported, SystemExit: {first}".rstrip(": ")
    said = said.strip() or (first if isinstance(error.code, str) else "")
    said = f", having said: {said}" if said and said != first else ""
    way_out = _GUARD_IT
    if _reads_the_command_line(error.__traceback__):
        way_out = ("it reads the command line there, which is empty: give its arguments defaults, "
                   "call parse_args([...]) with them, or "
                   f"{way_out}")  # fmt: skip
    return f"{text}{where}{said}; {way_out}"


def _line_in(error: BaseException, path: Path) -> int | None:
    line = error.lineno if isinstance(error, SyntaxError) else None
    for traceback in _traceback(error.__traceback__):
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
    return line


def _traceback(traceback: TracebackType | None) -> Iterator[TracebackType]:
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def _reads_the_command_line(traceback: TracebackType | None) -> bool:
    return any(
        one.tb_frame.f_globals.get("__name__", "").partition(".")[0] in
        ("argparse", "optparse", "click", "docopt", "absl", "fire", "simple_parsing", "tyro")
        for one in _traceback(traceback)
    )  # fmt: skip


def _shadowed(error: BaseException, modules: UserModules) -> str:
    """A hint: the import means a file beside this one, but Python or torch has that name."""
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if not isinstance(error, ImportError) or name not in {*modules.kept, *sys.stdlib_module_names}:
        return ""
    for beside in (Path(modules.folder, f"{name}.py"), Path(modules.folder, name)):
        if beside.exists():
            return (f"; {beside.name} beside it has the name of a module that Python or torch "
                    "needs, which comes first: rename it")  # fmt: skip
    return ""


def _stderr_file() -> Path | None:
    """The file that the supervisor redirects this process's stderr to."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) / "stderr.txt" if folder else None


def _stderr_size() -> int:
    file = _stderr_file()
    return file.stat().st_size if file is not None and file.is_file() else 0


def _said_since(size: int) -> str:
    """The last line written to stderr since the file had this size."""
    file = _stderr_file()
    if file is None or not file.is_file():
        return ""
    sys.stderr.flush()
    with open(file, "rb") as opened:
        opened.seek(size)
        lines = opened.read().decode("utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:_MOST_SAID]
