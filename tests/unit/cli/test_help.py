"""Help shows each of its texts to the letter: nothing in it is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ctrkit.cli.app import app
from ctrkit.cli.options import help_of


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))


def _plain(text: str) -> str:
    """Words without the frames around them."""
    return " ".join(re.sub("[│╭╮╰╯─|+]", " ", text).split())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_text_of_a_help_is_there_to_the_letter(
    path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "2000")
    monkeypatch.setenv("TERMINAL_WIDTH", "2000")
    shown = _plain(CliRunner().invoke(app, [*path, "--help"]).output)
    command = COMMANDS[path]
    texts = [command.callback.__doc__ or "", command.epilog or ""] if command.callback else []
    texts += [param.help for param in command.params if getattr(param, "help", None)]
    metavars = [param.metavar for param in command.params if param.metavar]
    for text in (*texts, *metavars):
        for paragraph in text.split("\n\n"):
            if paragraph.strip() and path:
                assert _plain(paragraph) in shown


def test_the_default_folder_of_a_run_is_shown_whole() -> None:
    assert "results/runs/<UTC>-<command>" in _plain(
        CliRunner().invoke(app, ["probe", "--help"], env={"TERMINAL_WIDTH": "200"}).output
    )


def test_a_docstring_flows_and_keeps_its_brackets() -> None:
    def command() -> None:
        """One line
        and [bold]another[/bold].

        More `words`
        here <b>.
        """

    from rich.text import Text

    shown = Text.from_markup(help_of(command)).plain
    assert shown == "One line and [bold]another[/bold].\n\nMore `words` here <b>."
