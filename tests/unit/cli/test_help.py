"""Help shows all of its texts literally: nothing is taken for markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from ctrkit.cli.app import app, run_command
from ctrkit.cli.misuse import misplaced_words
from ctrkit.cli.options import as_written_today, help_of


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


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_help_shows_a_type_of_pythons(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"], env={"TERMINAL_WIDTH": "100"}).output
    assert not re.search("<(bool|str|int|path|list)", shown)


def test_what_a_script_needs_comes_before_the_built_in_example() -> None:
    shown = CliRunner().invoke(app, ["probe", "--help"], env={"TERMINAL_WIDTH": "100"}).output
    places = [shown.index(f"--{name} ") for name in ("budget", "workers", "scratch", "data")]
    assert places == sorted(places)
    assert shown.index("--help") < places[1], "it has no panel of its own"


def test_help_is_also_a_word_and_the_version_a_letter() -> None:
    assert as_written_today(["help"]) == ["--help"]
    assert as_written_today(["help", "probe"]) == ["probe", "--help"]
    assert as_written_today(["probe", "--", "help"]) == ["probe", "--", "help"]
    assert CliRunner().invoke(app, ["-V"]).output == CliRunner().invoke(app, ["--version"]).output


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


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["probe", "--epochs", "two"], "--epochs: 'two' is not a whole number; see ctrkit probe "),
        (["data", "synth", "--out", "x", "--rows=z"], "--rows: 'z' is not a whole number; see"),
        (["data", "prepare", "--out", "x", "--sample-users", "all"], "'all' is not a number; see"),
        (["probe", "--epochs", "1", "--epochs", "a", "--", "--epochs", "b"], "'a' is not a whole"),
        (["train", "--nope"], "No such option: --nope"),
        (["train", "--epochs"], "Option '--epochs' requires an argument; see ctrkit train --help"),
        (["prob"], "No such command 'prob'. Did you mean 'probe'? See ctrkit --help"),
    ],
)
def test_a_value_that_is_refused_is_shown(
    typed: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ctrkit", *typed])
    assert run_command() == 2
    assert said in capsys.readouterr().err


def test_an_option_of_ours_behind_the_dashes_is_named_where_the_script_refuses_it() -> None:
    words = ["probe", "--", "python", "train.py", "--budget", "60s", "--lr=1"]
    said = "train.py: error: unrecognized arguments: --budget 60s"
    hint = "; if --budget is meant for ctrkit, write it before the --"
    assert misplaced_words(said, words, ["--budget", "--out"]) == hint
    assert misplaced_words("error: Unknown flag 'budget'", words, ["--budget"]) == hint
    assert misplaced_words("error: no data", words, ["--budget"]) == ""
    assert misplaced_words(said, words, ["--lr"]) == ""
    assert misplaced_words(said, ["probe", "--budget", "60s"], ["--budget"]) == ""
