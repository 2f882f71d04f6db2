"""Options that several commands share, as typer reads them: their names and help texts."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrkit.core.axes import Axis
from ctrkit.core.cell import AXES
from ctrkit.core.config import DEFAULT_WORKLOAD

DATA = "The built-in example, or a workload (--workload)"
SEVERAL_CELLS = "Configurations to try (VALUES: one, or several with commas: 0,2,4)"
ONE_CELL = "The configuration"
RUN = "The run"
SCRIPT = "Your own script, unchanged (write its command after --)"
#: The panels of a help page in the order in which people need them.
_PANELS = (RUN, SEVERAL_CELLS, ONE_CELL, SCRIPT, DATA)

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", rich_help_panel=DATA,
                 help="The workload's data, e.g. a store. Default: the workload's own."),
]  # fmt: skip
PhaseName = Annotated[
    str | None,
    typer.Option("--phase", metavar="NAME|FILE", rich_help_panel=DATA,
                 help="The workload's settings: a name, e.g. phase1, or a TOML file."),
]  # fmt: skip
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", rich_help_panel=DATA,
                 help="Change one setting, e.g. --set model=bst. May be repeated."),
]  # fmt: skip
WorkloadName = Annotated[
    str | None,
    typer.Option("--workload", metavar="NAME|FILE.py:NAME", rich_help_panel=DATA,
                 help="An installed workload, or your own: a Workload, or a function "
                      f"make_loader(*, workers, ...). Default: {DEFAULT_WORKLOAD}."),
]  # fmt: skip
StallTimeout = Annotated[
    str | None,
    typer.Option("--stall-timeout", metavar="T", rich_help_panel=RUN,
                 help="Stop a process that has made no progress for this long, e.g. 2m."),
]  # fmt: skip
MaxStep = Annotated[
    str | None,
    typer.Option("--max-step", metavar="T", rich_help_panel=RUN,
                 help="Time limit for each of the first three steps while the CPU is busy. "
                      "Default: 10m."),
]  # fmt: skip
TimeLimitsFile = Annotated[
    Path | None,
    typer.Option("--time-limits", metavar="FILE", rich_help_panel=RUN,
                 help="A TOML file with a time limit for each stage, e.g. first_batch = \"5m\"."),
]  # fmt: skip
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", rich_help_panel=RUN,
                 help="The run folder, missing or empty. Default: results/runs/<UTC>-<command>."),
]  # fmt: skip
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout.", rich_help_panel=RUN),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=RUN)
]
Command = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- COMMAND", show_default=False,
                   help="Your training command as you type it, e.g. -- python train.py --lr 3e-4. "
                        "ctrkit replaces {workers}, {batch_size}, {device}, {prefetch}, "
                        "{start_method} and {nproc} in it by a configuration's values."),
]  # fmt: skip
Environment = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="KEY=VALUE", rich_help_panel=SCRIPT,
                 help="Set an environment variable for the script. May be repeated."),
]  # fmt: skip
TrainLoader = Annotated[
    int | None,
    typer.Option("--train-loader", metavar="N", rich_help_panel=SCRIPT,
                 help="Which DataLoader the script trains on, if ctrkit took the wrong one. "
                      "0 is the first that it iterates."),
]  # fmt: skip
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", rich_help_panel=RUN,
                 help="How many epochs the real run has, if ctrkit cannot find that out."),
]  # fmt: skip

#: Former names of options. They still work, but no help shows them.
_OLD_NAMES = {"--budgets": "--time-limits"}


def as_written_today(arguments: Sequence[str]) -> list[str]:
    """The arguments with former option names replaced, and `help probe` as `probe --help`.

    Words after `--` stay as they are.
    """
    if arguments[:1] == ["help"]:
        return [*arguments[1:2], "--help"]
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*map(_with_current_name, arguments[:end]), *arguments[end:]]


def _with_current_name(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{_OLD_NAMES.get(name, name)}{equals}{value}"


def help_of(command: Callable[..., None]) -> str:
    """A command's docstring as its help: each paragraph flows, and is shown literally."""
    from rich.markup import escape

    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return escape("\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs))


def takes_axes(*, several: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `axes` by an option for every axis.

    The command gets the typed texts by axis name.

    Args:
        several: whether help mentions several values per axis.
    """
    return functools.partial(_with_axes, several=several)


def _with_axes(command: Callable[..., None], *, several: bool) -> Callable[..., None]:
    # typer reads a signature, and an axis may be named like a Python builtin, such as `compile`
    axis_of = {f"axis_{name}": name for name in AXES}
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None,
            annotation=_option_of(AXES[axis], several),
        )
        for name, axis in axis_of.items()
    ]  # fmt: skip

    @functools.wraps(command)
    def with_axes(**values: Any) -> None:
        axes = {axis: values.pop(name) for name, axis in axis_of.items()}
        command(**values, axes=axes)

    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += options if parameter.name == "axes" else [parameter]
    parameters.sort(key=_panel_place)
    with_axes.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_axes.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_axes


def _panel_place(parameter: inspect.Parameter) -> int:
    """The position of a parameter in help: arguments first, then by panel."""
    info = parameter.annotation.__metadata__[0]
    panel = getattr(info, "rich_help_panel", None)
    return _PANELS.index(panel) + 1 if panel in _PANELS else 0


def _option_of(axis: Axis, several: bool) -> Any:
    return Annotated[
        str | None,
        typer.Option(
            axis.option,
            metavar="VALUES" if several else "VALUE",
            help=axis.help,
            rich_help_panel=SEVERAL_CELLS if several else ONE_CELL,
        ),
    ]
