"""README and architecture match the code: what they name exists, and no room is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()


def mapped() -> str:
    """The map's text."""
    section = (ROOT / "README.md").read_text().split("## Map", 1)[1]
    block = re.search(r"```text\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1]


def test_everything_in_the_map_exists() -> None:
    known = {path.name for folder in ("ctrkit", "bench", "tests", "docs", "results") for path in
             [ROOT / folder, *(ROOT / folder).rglob("*")]}  # fmt: skip
    missing = [name for name in re.findall(r"([\w-]+)/", mapped()) if name not in known]
    assert missing == []


def test_every_room_is_in_the_map() -> None:
    rooms = {path.parent.name for path in (ROOT / "ctrkit").rglob("*.py")} - {"charts"}
    named = set(re.findall(r"([\w-]+)/", mapped()))
    assert rooms - named == set()


def test_the_architecture_names_files_and_folders_that_exist() -> None:
    named = re.findall(r"`(ctrkit/[\w/.]+)`", ARCHITECTURE)
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    ("name", "file"),
    re.findall(r"`([\w.]+)(?:\(\))?` (?:in|of) `(ctrkit/[\w/]+\.py)`", ARCHITECTURE),
)
def test_the_architecture_names_what_its_files_define(name: str, file: str) -> None:
    """`judge_end` in `ctrkit/supervise/endings.py`, say."""
    last = name.rpartition(".")[2]
    assert re.search(rf"^ *(def|class) {last}\b", (ROOT / file).read_text(), re.MULTILINE)
