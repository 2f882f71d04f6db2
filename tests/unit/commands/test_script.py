"""The command after `--`: what is refused, each with one line that says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands.script import read_script
from ctrkit.core.config import ScriptSpec
from ctrkit.core.errors import UsageError


def read(folder: Path, *command: str, axes: Any = None, **options: Any) -> ScriptSpec | None:
    return read_script(command, ["probe", "--", *command], axes or {}, folder=folder, **options)


def test_a_command_is_kept_as_typed(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("")
    script = read(tmp_path, "python3", "t.py", "-j", "{workers}", environment=["A=b=c"], epochs=3)
    assert script is not None
    assert script.command == ["python3", "t.py", "-j", "{workers}"]
    assert script.environment == {"A": "b=c"}
    assert (script.folder, script.epochs) == (str(tmp_path), 3)


def test_without_a_command_there_is_no_script() -> None:
    assert read_script([], ["probe", "--workers", "2"], {}) is None


@pytest.mark.parametrize(
    ("argv", "command", "said"),
    [
        (["probe", "--"], [], "there is no command"),
        (["probe", "python3", "t.py"], ["python3", "t.py"], "write -- before a command"),
        (["probe", "t.py", "-x"], ["t.py", "-x"], "write -- before a command: -- python t.py -x"),
        (["probe", "--", "python3", "tt.py"], ["python3", "tt.py"], "tt.py; did you mean t.py"),
        (["probe", "--", "python3", "other.x"], ["python3", "other.x"], "no file other.x in"),
        (["train", "--", "python3.12", "n.ipynb"], ["python3.12", "n.ipynb"], "nbconvert"),
        (["train", "n.ipynb"], ["n.ipynb"], "nbconvert"),
        (["probe", "--", "no-such-program-x"], ["no-such-program-x"], "no such command"),
        (["probe", "--", "./none"], ["./none"], "no such file"),
        (["probe", "--", "t.py"], ["t.py"], "write -- python t.py"),
        (["probe", "--", "./t.py"], ["./t.py"], "not executable; write -- python ./t.py"),
        (["probe", "--", "python3", "{wokers}"], ["python3", "{wokers}"], "did you mean {workers}"),
        (["probe", "--", "python3", "{batch_size}"], ["python3", "{batch_size}"], "--batch-size"),
    ],
)
def test_what_cannot_be_started_is_said(
    tmp_path: Path, argv: list[str], command: list[str], said: str
) -> None:
    (tmp_path / "t.py").write_text("")
    with pytest.raises(UsageError, match=said.replace("{", r"\{").replace("?", r"\?")):
        read_script(command, argv, {}, folder=tmp_path)


@pytest.mark.parametrize("word", ["-m", "-c", "-", "{workers}.py", "folder", "t.py"])
def test_only_a_file_that_python_is_to_run_is_looked_for(tmp_path: Path, word: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.py").write_text("")
    script = read(tmp_path, "python3", word, "missing.py")
    assert script is not None
    assert script.command[1] == word


def test_braces_of_the_script_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("")
    script = read(tmp_path, "python3", "t.py", '{"lr": 1}', "ckpt-{epoch}.pt")
    assert script is not None
    assert script.command[2:] == ['{"lr": 1}', "ckpt-{epoch}.pt"]


@pytest.mark.parametrize("text", ["A", "=b", " A=b"])
def test_a_variable_needs_a_name_and_a_value(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--env"):
        read(tmp_path, "python3", environment=[text])


def test_options_of_a_script_need_one() -> None:
    with pytest.raises(UsageError, match="--train-loader is for scripts"):
        read_script([], ["probe"], {}, train_loader=1)
