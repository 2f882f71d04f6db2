"""A user's file is run as Python would run it, whatever its name, in workers as well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.core.lifeline import FIRST_FOLDER, FOLDER_VARIABLE

DRIVER = """
import multiprocessing
import sys
from pathlib import Path
from ctrkit.child.workloads.user_file import import_user_file
from ctrkit.core.errors import UsageError

if __name__ == "__main__":
    try:
        module = import_user_file(Path(sys.argv[1]))
    except UsageError as error:
        print(error)
        sys.exit(2)
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        process = context.Process(target=module.look, args=(module.Rows(),))
        process.start()
        process.join(60)
        print(method, process.exitcode)
"""
FILE = """
import argparse
import os
import sys

parser = argparse.ArgumentParser()
parser.add_argument("data", nargs="?")
parser.add_argument("--rows", type=int, default=7)
options = parser.parse_args()


class Rows:
    pass


def look(rows):
    import random
    import secrets  # not loaded before
    import tempfile
    import types
    assert type(rows) is Rows
    assert options.data is None
    assert options.rows == 7
    assert sys.argv == [__file__], sys.argv
    assert sys.path[0] == os.path.dirname(__file__), sys.path
    for module in (random, secrets, tempfile, types):
        assert os.path.dirname(module.__file__) != sys.path[0], module
"""
HOSTILE = "raise SystemExit('this hides a module of the standard library')\n"


def run(file: Path) -> subprocess.CompletedProcess[str]:
    """Import the file, and use a class of it in processes of every kind."""
    driver = file.parents[1] / "driver.py"
    driver.write_text(DRIVER)
    # as the supervisor starts a child
    env = os.environ | {"PYTHONPATH": str(FIRST_FOLDER), FOLDER_VARIABLE: str(file.parents[1])}
    with open(file.parents[1] / "stderr.txt", "ab") as stderr:
        return subprocess.run(
            [sys.executable, "-P", str(driver), str(file)],
            env=env, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=120, check=False,
        )  # fmt: skip


def write(tmp_path: Path, name: str, text: str = FILE) -> Path:
    path = tmp_path / "own" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


ALL_WELL = "fork 0\nspawn 0\nforkserver 0\n"


@pytest.mark.parametrize(
    "name", ["plain.py", "click-loader.py", "2024 loader.py", "my.loader.py", "random.py",
             "class.py", "test.py", "msgspec.py"]
)  # fmt: skip
def test_a_file_of_any_name_works_in_workers_of_any_kind(tmp_path: Path, name: str) -> None:
    for hostile in ("types.py", "secrets.py", "tempfile.py", "queue.py", "psutil.py"):
        write(tmp_path, hostile, HOSTILE)
    done = run(write(tmp_path, name))
    assert done.stdout == ALL_WELL, (tmp_path / "stderr.txt").read_text()


def test_modules_beside_it_are_found_and_go_before_installed_ones(tmp_path: Path) -> None:
    write(tmp_path, "rich.py", "mine = True")
    write(tmp_path, "features.py", "import rich\nassert rich.mine")
    done = run(write(tmp_path, "loader.py", "import features\n" + FILE))
    assert done.stdout == ALL_WELL, (tmp_path / "stderr.txt").read_text()


@pytest.mark.parametrize(
    ("folder", "has_init", "imports"),
    [
        ("pack", True, "from .beside import y\nfrom pack.beside import Beside"),
        ("pack/inner", True, "from . import beside\nfrom ..outer import x\nimport pack.outer"),
        ("no-package", False, "from .beside import y"),
        ("plain", True, "from beside import y\nimport plain.beside"),
    ],
)
def test_relative_imports_work(tmp_path: Path, folder: str, has_init: bool, imports: str) -> None:
    path = write(tmp_path, f"{folder}/load-it.py", imports + FILE)
    path.with_name("beside.py").write_text("y = 1\nclass Beside: pass\n")
    (path.parent.parent / "outer.py").write_text("x = 1\n")
    if has_init:
        for parent in (path.parent, path.parent.parent)[: folder.count("/") + 1]:
            (parent / "__init__.py").write_text("")
    done = run(path)
    assert done.stdout == ALL_WELL, (tmp_path / "stderr.txt").read_text()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "import argparse\np = argparse.ArgumentParser()\np.add_argument('--data', "
            "required=True)\np.parse_args()\n",
            ("SystemExit: 2 (line 4)", "the following arguments are required: --data",
             "give its arguments defaults", "__main__"),
        ),
        ("import sys\nsys.exit('no GPU here')", ("SystemExit: no GPU here (line 2)", "__main__")),
        (
            "import sys\nfolder = sys.argv[1]\n",
            ("IndexError: list index out of range (line 2)", "command line", "__main__"),
        ),
        ("print(1 / 0)", ("ZeroDivisionError: division by zero (line 1)",)),
        ("from calendar import days", ("cannot import name 'days'", "rename it")),
    ],
)  # fmt: skip
def test_what_ends_the_import_is_told(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    write(tmp_path, "calendar.py", "days = 7")
    done = run(write(tmp_path, "loader.py", text))
    assert done.returncode == 2
    for part in parts:
        assert part in done.stdout
