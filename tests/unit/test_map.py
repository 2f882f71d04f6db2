"""The README's map of the files is true: every module is in it, and everything in it exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def mapped() -> set[str]:
    """Paths that the map names: a folder on a line of its own, then its files."""
    section = (ROOT / "README.md").read_text().split("## Map", 1)[1]
    block = re.search(r"```text\n(.*?)```", section, re.DOTALL)
    assert block is not None
    found, folder = set(), ""
    for line in block[1].splitlines():
        head = re.match(r"(\S+/)(\s|$)", line)
        if head:
            folder = head[1]
            found.add(folder)
        elif line.startswith("  "):
            found |= {folder + name for name in re.findall(r"[\w-]+\.(?:py|toml)\b", line)}
    return found


def test_everything_in_the_map_exists() -> None:
    missing = [path for path in mapped() if not (ROOT / path).exists()]
    assert missing == []


def test_every_module_is_in_the_map() -> None:
    modules = {
        str(path.relative_to(ROOT))
        for folder in ("ctrkit", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules - mapped() == set()
