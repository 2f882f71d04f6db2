"""`ctrkit explain`: its options."""

from __future__ import annotations

from typing import Annotated

import typer


def explain(
    pid: Annotated[str, typer.Argument(metavar="PID", help="Any process of the training.")],
    wait: Annotated[
        str | None,
        typer.Option(metavar="T", help="Look twice, this far apart, to see whether it gets on."),
    ] = None,
    no_stacks: Annotated[
        bool, typer.Option("--no-stacks", help="Ask the system only; read no Python stacks.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
) -> None:
    """Say what a running process is stuck on, whoever started it.

    Shows the whole tree of the process: what each one waits for, where it stands in Python, and
    the cause in one sentence. PID may be the training itself, one of its workers, or the shell or
    launcher above it. Nothing is signalled, stopped or changed.

    Python stacks are read by py-spy (`pip install 'ctrkit[stacks]'`), or by Python 3.14 itself.
    Where a permission is missing, the command that gives it is shown.

    Exit codes: 0 looked at, whether it hangs or not; 2 no such process, or not yours.
    """
    from ctrkit.commands.explain import explain as run

    run(pid=pid, wait=wait, stacks=not no_stacks, as_json=as_json, quiet=quiet)
