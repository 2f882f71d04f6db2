"""What runs inside a script's interpreter: Python 3.9, and nothing that ctrkit depends on."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ctrkit

ROOT = Path(ctrkit.__file__).parent
INSIDE = [
    *sorted((ROOT / "child" / "script").glob("*.py")),
    *(ROOT / "child" / "training" / f"{name}.py" for name in ("stamps", "workers", "batches")),
    *(ROOT / "core" / f"{name}.py" for name in ("progress", "lifeline", "stops")),
    ROOT / "child" / "recorder.py", ROOT / "child" / "workloads" / "pickling.py",
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


def test_the_observer_needs_no_installed_package() -> None:
    names = [path.stem for path in INSIDE if path.parent.name == "script" and path.stem[0] != "_"]
    code = (
        "import sys\n"
        "for name in ('msgspec', 'psutil', 'numpy', 'torch', 'pyarrow'): sys.modules[name] = None\n"
        + "".join(f"import ctrkit.child.script.{name}\n" for name in names)
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
