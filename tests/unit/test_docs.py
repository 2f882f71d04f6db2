"""What README and docs/ show exists: commands with their options, links, the example package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import Shown, ctrkit_commands

from ctrkit.cli.app import app
from ctrkit.cli.options import as_written_today

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


@pytest.mark.parametrize("shown", ctrkit_commands(), ids=str)
def test_a_command_that_is_shown_has_these_options(shown: Shown) -> None:
    words = as_written_today([word for word in shown.words if word != "$cell"])
    name, *rest = words
    command: Any = typer.main.get_command(app).commands.get(name)
    if command is None:
        assert name.startswith("--")  # of ctrkit itself, tried in test_bad_input
        return
    if hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    command.make_context(name, rest)


def test_all_pages_show_commands() -> None:
    assert len(ctrkit_commands()) > 50
    assert {shown.page for shown in ctrkit_commands()} >= {
        "README.md", "scripts.md", "hangs.md", "ci.md", "clusters.md", "loader.md",
    }  # fmt: skip


def test_the_site_has_no_dead_link(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_page_is_in_the_navigation_and_on_the_first_page() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    first = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in navigation
        assert page.name in first or page.name == "index.md"


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)[^)]*\)|src=\"([^\"]+)\"", (ROOT / "README.md").read_text())
    assert len(links) > 15
    assert [one for pair in links for one in pair if one and not (ROOT / one).exists()] == []
