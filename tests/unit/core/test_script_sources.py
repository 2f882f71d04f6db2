"""The source files of a script's command, and those edited since a probe."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.core.config import ScriptSpec
from ctrkit.core.script_sources import edited_since, settled, sources_of


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "-u", "train.py", "--lr", "1"], {"train.py", "helper.py"}),
        (["torchrun", "--nproc-per-node", "2", "train.py"], {"train.py", "helper.py"}),
        (["python", "train.py", "--config=conf.yaml"], {"train.py", "helper.py", "conf.yaml"}),
        (["python", "-m", "pkg.fit"], {"pkg/__init__.py", "pkg/fit.py", "pkg/net.py", "helper.py"}),
        (["python", "-m", "tool"], {"tool/__main__.py"}),
        (["python", "tool"], {"tool/__main__.py"}),
        (["bash", "go.sh"], {"go.sh"}),
        (["python", "-c", "print()"], set()),
        (["python", "gone.py"], set()),
    ],
)
def test_the_files_of_a_command(tmp_path: Path, command: list[str], expected: set[str]) -> None:
    write(
        tmp_path,
        {
            "train.py": "import torch, helper\n", "helper.py": "X = 1\n", "conf.yaml": "lr: 1\n",
            "pkg/__init__.py": "", "pkg/fit.py": "import helper\nfrom .net import Net\n",
            "pkg/net.py": "class Net: ...\n", "tool/__main__.py": "", "go.sh": "python x.py\n",
            "other.py": "",
        },
    )  # fmt: skip
    assert set(sources_of(ScriptSpec(command=command, folder=str(tmp_path)))) == expected


def test_an_edited_a_removed_and_an_untouched_file(tmp_path: Path) -> None:
    write(tmp_path, {"train.py": "import a, b\n", "a.py": "1\n", "b.py": "2\n"})
    script = ScriptSpec(command=["python", "train.py"], folder=str(tmp_path))
    before = sources_of(script)
    assert edited_since(before, sources_of(script)) == []
    write(tmp_path, {"a.py": "3\n"})
    (tmp_path / "b.py").unlink()
    assert edited_since(before, sources_of(script)) == ["a.py", "b.py"]


def test_what_the_script_writes_itself_is_no_source_but_code_stays_one() -> None:
    before = {"train.py": "1", "metrics.json": "2", "conf.yaml": "3"}
    after = {"train.py": "9", "metrics.json": "8", "conf.yaml": "3"}
    assert settled(before, after) == {"train.py": "1", "conf.yaml": "3"}
