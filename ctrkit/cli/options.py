"""Options that several commands share, as typer reads them from signatures: names and help only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

DATA = "Data & model"
CELL = "Cells (comma-separated lists; what you name is exactly what is tried)"
RUN = "The run"
SCRIPT = "A script of your own, unchanged (its command stands after --)"

Data = Annotated[
    Path | None,
    typer.Option("--data", help="The workload's data, for mdaf a store. Without it: default data.",
                 rich_help_panel=DATA),
]  # fmt: skip
PhaseName = Annotated[
    str | None,
    typer.Option("--phase", metavar="NAME|FILE", rich_help_panel=DATA,
                 help="Settings by name or from a TOML file. mdaf has phase1, phase3 (default), "
                      "phase3-revised."),
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
                      "make_loader(*, workers, ...). Default: mdaf."),
]  # fmt: skip
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cpu, mps, cuda.", rich_help_panel=CELL),
]
Loader = Annotated[
    str | None,
    typer.Option("--loader", help="rows, batches, thread, resident.", rich_help_panel=CELL),
]
Workers = Annotated[
    str | None,
    typer.Option("--workers", help="DataLoader worker processes.", rich_help_panel=CELL),
]
BatchSize = Annotated[
    str | None,
    typer.Option("--batch-size", rich_help_panel=CELL,
                 help="Rows per batch. Default: the phase's."),
]  # fmt: skip
StartMethod = Annotated[
    str | None,
    typer.Option("--start-method", help="fork, spawn, forkserver.", rich_help_panel=CELL),
]
Prefetch = Annotated[
    str | None,
    typer.Option("--prefetch", help="Batches prefetched per worker.", rich_help_panel=CELL),
]
Threads = Annotated[
    str | None,
    typer.Option("--threads", help="torch's intra-op threads.", rich_help_panel=CELL),
]
Nproc = Annotated[
    str | None,
    typer.Option("--nproc", rich_help_panel=CELL,
                 help="Processes that train together; each takes its part of every batch."),
]  # fmt: skip
Persistent = Annotated[
    str | None,
    typer.Option("--persistent", help="Keep workers between epochs: true, false.",
                 rich_help_panel=CELL),
]  # fmt: skip
Pin = Annotated[
    str | None,
    typer.Option("--pin", help="Pinned host memory (CUDA): true, false.", rich_help_panel=CELL),
]
Optimizer = Annotated[
    str | None,
    typer.Option("--optimizer", rich_help_panel=CELL,
                 help="adam; sparse-adam updates only the embedding rows that a batch touched. "
                      "Changes the numerics: compare the loss too."),
]  # fmt: skip
Precision = Annotated[
    str | None,
    typer.Option("--precision", rich_help_panel=CELL,
                 help="float32; bf16 multiplies matrices in half the bits. Changes the numerics."),
]  # fmt: skip
Compile = Annotated[
    str | None,
    typer.Option("--compile", rich_help_panel=CELL,
                 help="torch.compile of the dense parts: true, false. Changes the rounding; where "
                      "there is no compiler it goes on without."),
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
    typer.Argument(metavar="[-- COMMAND...]", show_default=False,
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
