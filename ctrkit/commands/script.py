"""Checks the command after `--` before anything is started."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrkit.core.command_line import PLACEHOLDERS, placeholders_of
from ctrkit.core.config import ScriptSpec
from ctrkit.core.errors import UsageError

_PYTHON = re.compile(r"(python|pypy)[\d.]*")
_BRACED = re.compile(r"\{([A-Za-z_]+)\}")
#: Axes with a placeholder that need values from the command line, as nothing else gives any.
_NEED_VALUES = ("batch_size",)


def read_script(
    command: Sequence[str],
    argv: Sequence[str],
    axes: Mapping[str, tuple[Any, ...]],
    *,
    environment: Sequence[str] = (),
    epochs: int | None = None,
    train_loader: int | None = None,
    other: Mapping[str, object] | None = None,
    folder: Path | None = None,
) -> ScriptSpec | None:
    """The script started by the words after `--`; None without such words.

    Args:
        command: the words.
        argv: the whole command line, to see whether it contains `--`.
        axes: the axes that the user gave.
        environment: values of `--env`, each `KEY=VALUE`.
        epochs: value of `--epochs`.
        train_loader: value of `--train-loader`.
        other: options of a workload, which a script does not take.
        folder: the folder to start the script in; the working folder if left out.

    Raises:
        UsageError: a word before `--` is no option, the program cannot be found, a placeholder is
            misspelt or has no values, ...
    """
    if not command:
        if "--" in argv:
            raise UsageError("there is no command after --; write: -- python train.py")
        for option, value in (("--env", environment), ("--train-loader", train_loader)):
            if value not in ((), [], None):
                raise UsageError(f"{option} is for scripts: write the command after --")
        return None
    _check_notebook(command)
    if "--" not in argv:
        raise UsageError(f"'{command[0]}' is not an option; write -- before a command: -- "
                         f"{_with_interpreter(command)}")  # fmt: skip
    for option, given in (other or {}).items():
        if given:
            raise UsageError(f"{option}: is for workloads; a script has its own")
    folder = (folder or Path.cwd()).resolve()
    variables = _variables(environment)
    _check_program(command[0], folder, os.environ | variables)
    _check_file(command, folder)
    _check_placeholders(command, axes)
    _check_counts(epochs, train_loader)
    return ScriptSpec(
        command=list(command),
        folder=str(folder),
        environment=variables,
        epochs=epochs,
        train_loader=train_loader,
    )


def _variables(texts: Sequence[str]) -> dict[str, str]:
    variables = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or key != key.strip():
            raise UsageError(f"--env {text}: write KEY=VALUE, for example --env OMP_NUM_THREADS=1")
        variables[key] = value
    return variables


def _check_program(program: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Check that the program exists and is executable; otherwise every trial would fail."""
    path = folder / program
    if os.sep in program or (os.altsep and os.altsep in program):
        if not path.is_file():
            raise UsageError(f"-- {program}: there is no such file")
        if not os.access(path, os.X_OK):
            raise UsageError(f"-- {program}: is not executable{_interpreter_advice(program)}")
    elif shutil.which(program, path=environment.get("PATH")) is None:
        if path.is_file():
            advice = _interpreter_advice(program) or f"; write -- ./{program}"
            raise UsageError(f"-- {program}: is a file, not a command{advice}")
        raise UsageError(f"-- {program}: there is no such command on the PATH")


def _check_notebook(command: Sequence[str]) -> None:
    notebook = next((word for word in command[:2] if Path(word).suffix == ".ipynb"), None)
    first_is_it = bool(command) and (notebook == command[0] or _is_python(command[0]))
    if notebook is not None and first_is_it:
        raise UsageError(f"{notebook}: Python cannot run a notebook; make a script of it with "
                         f"`jupyter nbconvert --to script {notebook}`")  # fmt: skip


def _is_python(program: str) -> bool:
    return _PYTHON.fullmatch(Path(program).name) is not None


def _check_file(command: Sequence[str], folder: Path) -> None:
    """Check that the file exists that Python should run.

    Only `python FILE` is checked: after an option of Python's own, or a launcher, any word may be
    the file.
    """
    if len(command) < 2 or not _is_python(command[0]):
        return
    file = command[1]
    if file.startswith("-") or "{" in file or (folder / file).exists():
        return
    names = [path.name for path in (folder / file).parent.glob("*.py")]
    near = difflib.get_close_matches(Path(file).name, names, n=1)
    advice = f"; did you mean {Path(file).with_name(near[0])}?" if near else f" in {folder}"
    raise UsageError(f"-- {' '.join(command[:2])}: there is no file {file}{advice}")


def _interpreter_of(program: str) -> str | None:
    return {".py": "python", ".sh": "bash"}.get(Path(program).suffix)


def _with_interpreter(command: Sequence[str]) -> str:
    """The command in a form that can be started: `python train.py` for `train.py`."""
    interpreter = _interpreter_of(command[0])
    return " ".join([interpreter, *command] if interpreter else command)


def _interpreter_advice(program: str) -> str:
    interpreter = _interpreter_of(program)
    return f"; write -- {interpreter} {program}" if interpreter else ""


def _check_placeholders(command: Sequence[str], axes: Mapping[str, tuple[Any, ...]]) -> None:
    for word in command:
        for name in _BRACED.findall(word):
            # other braces may belong to the script, as in a format string
            near = difflib.get_close_matches(name.lower(), PLACEHOLDERS, n=1, cutoff=0.8)
            if name not in PLACEHOLDERS and near:
                raise UsageError(f"'{word}': unknown placeholder {{{name}}}; "
                                 f"did you mean {{{near[0]}}}?")  # fmt: skip
    for name in placeholders_of(command):
        if name in _NEED_VALUES and name not in axes:
            option = name.replace("_", "-")
            raise UsageError(f"{{{name}}}: give its values, for example --{option} 32,64")


def _check_counts(epochs: int | None, train_loader: int | None) -> None:
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs {epochs}: must be at least 1")
    if train_loader is not None and train_loader < 0:
        raise UsageError(f"--train-loader {train_loader}: must be at least 0; "
                         "the first DataLoader of a script is 0")  # fmt: skip
