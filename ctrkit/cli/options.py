"""Options that several commands share, as typer reads them from signatures: names and help only."""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ctrkit.core.cell import AXES, Axis
from ctrkit.core.config import DEFAULT_WORKLOAD

DATA = "Data & model"
CELL = "Cells (comma-separated lists; what you name is exactly what is tried)"
RUN = "The run"
SCRIPT = "A script of your own, unchanged (its command stands after --)"

Data = Annotated[
    Path | None,
    typer.Option("--data", help="The workload's data, e.g. a store. Without it: its default data.",
                 rich_help_panel=DATA),
]  # fmt: skip
PhaseName = Annotated[
    str | None,
    typer.Option("--phase", metavar="NAME|FILE", rich_help_panel=DATA,
                 help="Settings of the workload by name, e.g. phase1, or from a TOML file."),
]  # fmt: skip
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", rich_help_panel=DATA,
                 help="Override a setting of the phase, e.g. --set model=bst. May be repeated."),
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
                 help="Silence after which a child counts as hung, in every stage."),
]  # fmt: skip
MaxStep = Annotated[
    str | None,
    typer.Option("--max-step", metavar="T", rich_help_panel=RUN,
                 help="Longest a step may burn CPU before three are known. Default: 10m."),
]  # fmt: skip
TimeLimitsFile = Annotated[
    Path | None,
    typer.Option("--time-limits", metavar="FILE", rich_help_panel=RUN,
                 help="TOML: how long each stage may be silent, e.g. first_batch = \"5m\"."),
]  # fmt: skip
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", rich_help_panel=RUN,
                 help="The run folder, missing or empty. Default: results/runs/<UTC>-<command>."),
]  # fmt: skip
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress display.", rich_help_panel=RUN)
]
Command = Annotated[
    list[str] | None,
    typer.Argument(metavar="-- COMMAND", show_default=False,
                   help="A training script as you start it, e.g. -- python train.py --lr 3e-4. "
                        "{workers}, {batch_size}, {device}, {prefetch}, {start_method} and {nproc} "
                        "in it are replaced by the values that are tried."),
]  # fmt: skip
Environment = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="KEY=VALUE", rich_help_panel=SCRIPT,
                 help="Set an environment variable for the script. May be repeated."),
]  # fmt: skip
TrainLoader = Annotated[
    int | None,
    typer.Option("--train-loader", metavar="N", rich_help_panel=SCRIPT,
                 help="Which DataLoader it trains on, if the wrong one was taken: 0 is the first "
                      "that it iterates."),
]  # fmt: skip
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", metavar="N", rich_help_panel=RUN,
                 help="How many epochs the real run has, where it does not say so itself."),
]  # fmt: skip

#: Names that options had before. They still work, and no help shows them.
_OLD_NAMES = {"--budgets": "--time-limits"}


def with_current_names(arguments: Sequence[str]) -> list[str]:
    """The arguments with options' old names replaced; what stands after `--` stays as it is."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [*map(_with_current_name, arguments[:end]), *arguments[end:]]


def _with_current_name(argument: str) -> str:
    name, equals, value = argument.partition("=")
    return f"{_OLD_NAMES.get(name, name)}{equals}{value}"


def takes_axes(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for every axis in the place of its parameter `axes`.

    It gets there what was typed, by the names of the axes.
    """
    # typer reads a signature, and an axis may have a name of Python's own, such as `compile`
    axis_of = {f"axis_{name}": name for name in AXES}
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option_of(AXES[axis])
        )
        for name, axis in axis_of.items()
    ]

    @functools.wraps(command)
    def with_axes(**values: Any) -> None:
        axes = {axis: values.pop(name) for name, axis in axis_of.items()}
        command(**values, axes=axes)

    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += options if parameter.name == "axes" else [parameter]
    with_axes.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_axes.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_axes


def _option_of(axis: Axis) -> Any:
    return Annotated[str | None, typer.Option(axis.option, help=axis.help, rich_help_panel=CELL)]
