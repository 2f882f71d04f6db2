"""Finding NAME in a user's FILE.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrkit.child.workloads.custom import CustomWorkload
from ctrkit.child.workloads.load import load_workload
from ctrkit.core.config import WorkloadSpec, make_cell
from ctrkit.core.errors import UsageError
from ctrkit.core.user_modules import VARIABLE

LOADER = "def make_loader(*, workers):\n    return [workers]\n"
WORKLOAD = """
from ctrkit.core.config import RunSizes
from ctrkit.child.workloads.protocol import Workload

class Mine(Workload):
    name = "mine"
    def sizes(self, batch_size):
        return RunSizes(epochs=1)
    def train_loader(self, cell):
        raise NotImplementedError

mine = Mine()
def build():
    return Mine()
number = 7
"""


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def spec(path: Path, name: str) -> WorkloadSpec:
    return WorkloadSpec(target=f"{path}:{name}")


def write(tmp_path: Path, content: str, name: str = "own_file.py") -> Path:
    path = tmp_path / name
    path.write_text(content)
    return path


def test_a_function_with_axes_is_a_make_loader(tmp_path: Path) -> None:
    path = write(tmp_path, LOADER)
    workload = load_workload(spec(path, "make_loader"))
    assert isinstance(workload, CustomWorkload)
    assert list(workload.train_loader(make_cell(loader="custom", workers=3))) == [3]
    assert "own_file" in sys.modules  # so that spawned workers can import it by this name


@pytest.mark.parametrize("name", ["Mine", "mine", "build"])
def test_workloads_classes_and_functions_that_return_one(tmp_path: Path, name: str) -> None:
    assert load_workload(spec(write(tmp_path, WORKLOAD), name)).name == "mine"


def test_a_function_without_parameters_may_return_a_loader(tmp_path: Path) -> None:
    path = write(tmp_path, "calls = []\ndef loader():\n    calls.append(1)\n    return [1, 2]\n")
    workload = load_workload(spec(path, "loader"))
    assert list(workload.train_loader(make_cell(loader="custom"))) == [1, 2]
    assert sys.modules["own_file"].calls == [1]  # called once per trial


def test_a_file_that_shadows_a_module_is_loaded_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, LOADER, "json.py")
    assert isinstance(load_workload(spec(path, "make_loader")), CustomWorkload)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (
            "x = 1\nraise ValueError('broken')",
            "f",
            r"cannot be imported: ValueError: broken \(line 2\)",
        ),
        ("def f(:\n", "f", r"cannot be imported: SyntaxError: .* \(line 1\)"),
        ("import nowhere_to_be_found", "f", "No module named 'nowhere_to_be_found'"),
        (
            "import sys\nsys.exit(3)",
            "f",
            r"ends itself while it is imported, SystemExit: 3 \(line 2\)",
        ),
        (LOADER, "other", "has no 'other'; it has make_loader"),
        (WORKLOAD, "number", "is a int; it must be a Workload"),
        ("def f(*, rows):\n    return []", "f", "parameter 'rows' is no axis"),
    ],
)
def test_what_is_no_workload_says_why(
    tmp_path: Path, content: str, name: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_workload(spec(write(tmp_path, content), name))


def test_mdaf_needs_a_store() -> None:
    with pytest.raises(UsageError, match="needs a store"):
        load_workload(WorkloadSpec())


def test_a_plugin_is_used_by_its_name(tmp_path: Path) -> None:
    text = "from ctrkit.workloads import Plugin\n\n\nclass Mine(Plugin):\n    pass\n"
    (tmp_path / "plugged.py").write_text(text)
    with pytest.raises(UsageError, match="Mine: is a Plugin; register it as an entry point"):
        load_workload(WorkloadSpec(target=f"{tmp_path / 'plugged.py'}:Mine"))
