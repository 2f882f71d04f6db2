"""The example of docs/workload.md is the package that test_plugin.py installs and runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "example_plugin"


def blocks() -> list[tuple[str, str]]:
    """(file name, text) of the page's blocks that say which file they are."""
    page = (ROOT / "docs" / "workload.md").read_text()
    return re.findall(r"```\w+\n# (\S+\.\w+)\n(.*?)```", page, flags=re.DOTALL)


def test_the_page_has_every_file_of_the_package() -> None:
    files = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*.*") if path.is_file()}
    named = {name for name, _ in blocks()}
    assert named | {"circles_workload/__init__.py"} == {f for f in files if "__pycache__" not in f}


@pytest.mark.parametrize(("name", "text"), blocks(), ids=[name for name, _ in blocks()])
def test_the_page_shows_the_files_as_they_are(name: str, text: str) -> None:
    assert text == (EXAMPLE / name).read_text()
