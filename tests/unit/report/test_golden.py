from pathlib import Path

import pytest

from tests.unit.report.golden.make import HERE, RUNS, texts


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return texts()


@pytest.mark.parametrize(
    "name", sorted(path.name for path in HERE.iterdir() if path.suffix in (".txt", ".md"))
)
def test_a_stored_run_looks_as_it_did(name: str, found: dict[str, str]) -> None:
    assert found[name] == (HERE / name).read_text("utf-8")


def test_every_text_is_stored(found: dict[str, str]) -> None:
    assert set(found) == {path.name for path in HERE.iterdir() if path.suffix in (".txt", ".md")}


@pytest.mark.parametrize("run", RUNS)
def test_no_line_is_wider_than_its_terminal(run: str, found: dict[str, str]) -> None:
    for width in (80, 120):
        assert max(map(len, found[f"{run}-{width}.txt"].splitlines())) <= width


def test_the_stored_folders_name_no_place_of_the_machine_they_were_made_on() -> None:
    for path in Path(HERE).rglob("*.json"):
        assert str(Path.home()) not in path.read_text("utf-8")
