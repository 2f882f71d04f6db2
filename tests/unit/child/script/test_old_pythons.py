"""Code inside a script's interpreter runs on Python 3.9 without ctrkit's dependencies."""

from __future__ import annotations

import ast
import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ctrkit

ROOT = Path(ctrkit.__file__).parent
INSIDE = [
    *sorted((ROOT / "child" / "script").glob("*.py")),
    *sorted((ROOT / "child" / "recording").glob("*.py")),
    *(ROOT / "child" / "training" / f"{name}.py" for name in ("stamps", "workers", "batches")),
    *(ROOT / "core" / f"{name}.py" for name in ("progress", "spending", "lifeline", "stops")),
    ROOT / "child" / "workloads" / "pickling.py",
    ROOT / "child" / "first" / "sitecustomize.py",
]  # fmt: skip


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: path.name)
def test_python_3_9_can_read_it(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    used = {part.attr for part in ast.walk(tree) if isinstance(part, ast.Attribute)}
    named = {
        part.arg
        for part in ast.walk(tree)
        if isinstance(part, ast.keyword) and part.arg is not None
    }
    assert not used & {"orig_argv", "stdlib_module_names", "UTC"}
    assert not named & {"kw_only", "strict", "slots"}


def _other_pythons() -> list[str]:
    """Interpreters of other versions, 3.9 and newer, that pyenv has on this machine."""
    folder = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    minors = (9, 10, 12, 13, 14)
    found = (glob.glob(f"{folder}/versions/3.{minor}.*/bin/python") for minor in minors)
    return [path for paths in found for path in sorted(paths)[-1:]]


_CHECK = """
import sys, warnings
from ctrkit.child.script.cpu import family_cpu_s
from ctrkit.child.script.hook import install
from ctrkit.child.script.run_length import run_length
from ctrkit.child.script.running_frames import frames_from
from ctrkit.child.script.unseen import unseen
install()
assert family_cpu_s() is None or family_cpu_s() > 0
for epoch in range(7):
    length = run_length(frames_from(sys._getframe()))
    break
assert length.steps == 7 or length.epochs == 7 or length.told_by == "", length
def warns():
    warnings.warn("x", stacklevel=2)
hidden = unseen(lambda: warns())
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    hidden()
assert seen[0].filename == "<string>", seen[0].filename
"""


@pytest.mark.parametrize("python", [sys.executable, *_other_pythons()])
def test_the_observer_needs_no_installed_package(python: str) -> None:
    names = [path.stem for path in INSIDE if path.parent.name == "script" and path.stem[0] != "_"]
    code = (
        "import sys\n"
        "for name in ('msgspec', 'psutil', 'numpy', 'torch', 'pyarrow'): sys.modules[name] = None\n"
        + "".join(f"import ctrkit.child.script.{name}\n" for name in names)
        + _CHECK
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    subprocess.run([python, "-c", code], check=True, timeout=60, env=environment)
