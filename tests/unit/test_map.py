"""The README's map of the folders is true: every room is in it, and everything in it exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def mapped() -> str:
    """The map's text."""
    section = (ROOT / "README.md").read_text().split("## Map", 1)[1]
    block = re.search(r"```text\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1]


def test_everything_in_the_map_exists() -> None:
    known = {path.name for folder in ("ctrkit", "bench", "tests", "results") for path in
             [ROOT / folder, *(ROOT / folder).rglob("*")]}  # fmt: skip
    missing = [name for name in re.findall(r"([\w-]+)/", mapped()) if name not in known]
    assert missing == []


def test_every_room_is_in_the_map() -> None:
    rooms = {path.parent.name for path in (ROOT / "ctrkit").rglob("*.py")} - {"charts"}
    named = set(re.findall(r"([\w-]+)/", mapped()))
    assert rooms - named == set()
