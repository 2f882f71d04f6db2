"""The command line: its commands, and an exit code for each error that they raise."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from ctrkit import __version__
from ctrkit.cli.data import data_app
from ctrkit.cli.doctor import doctor
from ctrkit.cli.explain import explain
from ctrkit.cli.misuse import misplaced_words, misuse_words
from ctrkit.cli.options import as_written_today, help_of
from ctrkit.cli.plain_help import PlainCommand, PlainGroup
from ctrkit.cli.probe import probe
from ctrkit.cli.report import report
from ctrkit.cli.train import train
from ctrkit.core.bystander import say
from ctrkit.core.errors import CtrkitError
from ctrkit.core.plain_text import make_streams_readable
from ctrkit.core.units import printable

app = typer.Typer(
    name="ctrkit",
    cls=PlainGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",  # Markdown would take `<UTC>` for a tag and leave it out
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Know before you start how long a PyTorch training run will take, which configuration is "
    "fastest, and why.",
    epilog="Start with: `ctrkit probe -- python train.py`. Then: `ctrkit train --auto-device -- "
    "python train.py`, and `ctrkit report`.",
)
app.add_typer(data_app, name="data")
for command in (probe, train, report, doctor, explain):
    app.command(help=help_of(command), cls=PlainCommand)(command)

# typer has included its own click since 0.20, so click's errors are reached through typer.
ClickError: Any = typer.BadParameter.__mro__[2]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ctrkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Options of ctrkit itself."""


def main() -> None:
    """Run the command line and exit: the only place where errors become exit codes."""
    make_streams_readable()
    code = run_command()
    try:
        if sys.stdout is not None:  # None if the caller has closed stdout
            sys.stdout.flush()
    except OSError:  # its reader or the terminal is gone; Python would turn this into the exit code
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process after Python's exit handlers, before libraries in C++ end themselves.

    A thread that a C++ library has only just started can abort a finished process there: "terminate
    called without an active exception". Arrow's did so (see `core.files.read_table`).
    """
    getattr(threading, "_shutdown", lambda: None)()  # waits for non-daemon threads
    getattr(atexit, "_run_exitfuncs", lambda: None)()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def run_command() -> int:
    """Run the command in `sys.argv`; returns its exit code."""
    if sys.platform == "win32":
        print("ctrkit: Windows is not supported; use Linux, macOS or WSL", file=sys.stderr)
        return 2
    try:
        # its name is in what it says, and `python -m` would make it that of any runner
        code = app(as_written_today(sys.argv[1:]), prog_name="ctrkit", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except CtrkitError as error:
        if not error.is_shown:
            _say(str(error) + misplaced_words(str(error), sys.argv[1:], _options_of(sys.argv[1:])))
        return error.exit_code
    except ClickError as error:
        # a group without a command has already printed its help, and has no message
        if error.format_message():
            _say(misuse_words(error, sys.argv[1:]))
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        return 0


def _options_of(words: list[str]) -> list[str]:
    """The options of the command that was typed."""
    command = getattr(typer.main.get_command(app), "commands", {}).get(words[0] if words else "")
    return [name for param in getattr(command, "params", ()) for name in param.opts]


def _say(message: str) -> None:
    """Print a message as one line on stderr, whatever it contains."""
    say(f"ctrkit: {printable(' '.join(message.split()))}")
