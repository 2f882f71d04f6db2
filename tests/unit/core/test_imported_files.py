"""The files that a workload's file imports, and their common fingerprint."""

from __future__ import annotations

from pathlib import Path

from ctrkit.core.imported_files import files_of, source_fingerprint


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "mine.py"


def test_a_fingerprint_covers_what_is_imported_from_the_own_folder(tmp_path: Path) -> None:
    mine = written(
        tmp_path, mine="import rows\nimport json\n", rows="def f():\n    from parts import deep\n",
        parts__in____init__="", parts__in__deep="x = 1\n", other="y = 1\n",
    )  # fmt: skip
    names = {file.path.relative_to(tmp_path).as_posix() for file in files_of(mine)}
    assert names == {"mine.py", "rows.py", "parts/__init__.py", "parts/deep.py"}
    before = source_fingerprint(mine)
    (tmp_path / "other.py").write_text("y = 2\n")
    assert source_fingerprint(mine) == before
    (tmp_path / "parts" / "deep.py").write_text("x = 2\n")
    assert source_fingerprint(mine) != before


def test_of_an_installed_package_only_its_own_files_count(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages"
    written(
        folder, tiny__in____init__="", tiny__in__plugin="import library\nfrom tiny import task\n",
        tiny__in__task="from . import parts\n", tiny__in__parts="", library="big = 1\n",
        alone="import library\n",
    )  # fmt: skip
    found = [file.path.name for file in files_of(folder / "tiny" / "plugin.py")]
    assert sorted(found) == ["__init__.py", "parts.py", "plugin.py", "task.py"]
    assert [file.path.name for file in files_of(folder / "alone.py")] == ["alone.py"]
