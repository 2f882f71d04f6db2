"""The options of `ctrkit explain`."""

from __future__ import annotations

from typing import Annotated

import typer

Pid = Annotated[
    str, typer.Argument(metavar="PID", help="The number of any process of the training.")
]  # fmt: skip
Wait = Annotated[
    str | None,
    typer.Option(
        metavar="T", help="Look twice, this far apart, and say whether it makes progress."
    ),
]  # fmt: skip
NoStacks = Annotated[
    bool, typer.Option("--no-stacks", help="Read no Python stacks; ask only the system.")
]  # fmt: skip
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout.")
]  # fmt: skip
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


def explain(
    pid: Pid,
    wait: Wait = None,
    no_stacks: NoStacks = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a running process is stuck on, whoever started it.

    Shows the process and its children: what each waits for, which Python line it is at, and
    the cause in one sentence. PID may be the training itself, one of its workers, or the shell or
    launcher above it. ctrkit sends no signal and changes nothing.

    py-spy (`pip install 'ctrkit[stacks]'`) or Python 3.14 reads the Python stacks. If a permission
    is missing, ctrkit shows the command that gives it.

    Exit codes: 0 looked at, whether it hangs or not; 2 no such process, or not yours.
    """
    from ctrkit.commands.explain import explain as run

    run(pid=pid, wait=wait, stacks=not no_stacks, as_json=as_json, quiet=quiet)
