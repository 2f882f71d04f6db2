"""The options of `ctrkit data synth | prepare | info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ctrkit.cli.options import help_of
from ctrkit.cli.plain_help import PlainCommand, PlainGroup

TABLE = "What --table holds"


def _column(holds: str) -> Any:
    """An option that names the column with this content."""
    return typer.Option(metavar="COLUMN", rich_help_panel=TABLE, help=f"The column of {holds}.")


User = Annotated[str | None, _column("user ids")]
Item = Annotated[str | None, _column("item ids")]
Time = Annotated[str | None, _column("times")]
Label = Annotated[str | None, _column("labels: clicked or not, or a rating")]
Category = Annotated[str | None, _column("item categories; may be left out")]

data_app = typer.Typer(
    cls=PlainGroup, no_args_is_help=True, help="Make, read and show data of the built-in example."
)


SynthOut = Annotated[
    Path, typer.Option(metavar="DIR", help="The folder to write; missing or empty.")
]
Rows = Annotated[
    int | None, typer.Option(metavar="N", help="Number of impressions. Default: 1,277,527.")
]  # fmt: skip
Users = Annotated[int | None, typer.Option(metavar="N", help="Number of users.")]
Items = Annotated[int | None, typer.Option(metavar="N", help="Number of items.")]
Behaviors = Annotated[
    int | None,
    typer.Option(metavar="N", help="With --format tianchi: about how many behavior events."),
]  # fmt: skip
SynthSeed = Annotated[int, typer.Option(metavar="N", help="The same seed gives the same data.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="store, or tianchi: the four CSV files, with the errors of the real ones.",
    ),
]  # fmt: skip


def synth(
    out: SynthOut,
    rows: Rows = None,
    users: Users = None,
    items: Items = None,
    behaviors: Behaviors = None,
    seed: SynthSeed = 42,
    format_: Format = "store",
) -> None:
    """Generate data that a model can learn from, as a store or as Tianchi's CSV files."""
    from ctrkit.commands.data import synth as run

    run(
        out=out, rows=rows, users=users, items=items, behaviors=behaviors, seed=seed,
        format_=format_,
    )  # fmt: skip


StoreOut = Annotated[
    Path, typer.Option(metavar="DIR", help="The store to write; missing or empty.")
]
Source = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The folder of the four Tianchi CSV files.")
]  # fmt: skip
SampleUsers = Annotated[
    float | None, typer.Option(metavar="F", help="Keep only this share of the users, 0 to 1.")
]  # fmt: skip
History = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="Source of histories: behaviors (behavior_log.csv) or impressions.",
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Your own log, CSV or Parquet: a file, a folder or a 'pattern*'."
    ),
]  # fmt: skip
Header = Annotated[
    str | None,
    typer.Option(metavar="NAME,...", rich_help_panel=TABLE,
                 help="Names of all columns, if the file has no header line."),
]  # fmt: skip
Delimiter = Annotated[
    str | None,
    typer.Option(metavar="TEXT", rich_help_panel=TABLE,
                 help="What separates the fields, such as '::' or tab. Default: detected."),
]  # fmt: skip
Encoding = Annotated[
    str | None,
    typer.Option(metavar="NAME", rich_help_panel=TABLE,
                 help="Its encoding, such as latin-1, utf-16 or gbk. Default: detected."),
]  # fmt: skip
TimeFormat = Annotated[
    str | None,
    typer.Option(metavar="FORMAT", rich_help_panel=TABLE,
                 help="The form of times, such as '%d/%m/%Y %H:%M' or YYMMDDHH. Default: "
                      "detected."),
]  # fmt: skip
TimeUnit = Annotated[
    str | None,
    typer.Option(metavar="UNIT", rich_help_panel=TABLE,
                 help="What times count since 1970: s, ms, us, ns, min, h, d; or excel."),
]  # fmt: skip
LabelThreshold = Annotated[
    float | None,
    typer.Option(metavar="X", rich_help_panel=TABLE,
                 help="A row counts as positive if its label is X or more."),
]  # fmt: skip
Positive = Annotated[
    str | None,
    typer.Option(metavar="VALUE,...", rich_help_panel=TABLE,
                 help="A row counts as positive if its label is one of these."),
]  # fmt: skip
AcceptLoss = Annotated[
    bool,
    typer.Option("--accept-loss",
                 help="Continue even if more than 20 % of the rows cannot be used."),
]  # fmt: skip
Split = Annotated[
    str, typer.Option(metavar="HOW", help="How to split off the test rows: by time or random.")
]  # fmt: skip
Seed = Annotated[
    int, typer.Option(metavar="N", help="The seed of the random split and of --sample-users.")
]  # fmt: skip
MemoryLimit = Annotated[
    str, typer.Option(metavar="SIZE", help="Memory that DuckDB may use before it writes to disk.")
]  # fmt: skip
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Start over; continue no interrupted preparation.")
]  # fmt: skip


def prepare(
    out: StoreOut,
    source: Source = None,
    sample_users: SampleUsers = None,
    history: History = "behaviors",
    table: Table = None,
    user: User = None,
    item: Item = None,
    time: Time = None,
    label: Label = None,
    category: Category = None,
    header: Header = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    time_format: TimeFormat = None,
    time_unit: TimeUnit = None,
    label_threshold: LabelThreshold = None,
    positive: Positive = None,
    accept_loss: AcceptLoss = False,
    split: Split = "time",
    seed: Seed = 42,
    memory_limit: MemoryLimit = "2GB",
    fresh: Fresh = False,
) -> None:  # fmt: skip
    """Read Tianchi's four files (--source) or your own log (--table) into a store."""
    from ctrkit.commands.data import prepare as run

    run(
        out=out, source=source, sample_users=sample_users, history=history, table=table, user=user,
        item=item, time=time, label=label, category=category, header=header,
        delimiter=delimiter, encoding=encoding, time_format=time_format, time_unit=time_unit,
        label_threshold=label_threshold, positive=positive, accept_loss=accept_loss, split=split,
        seed=seed, memory_limit=memory_limit, fresh=fresh,
    )  # fmt: skip


def info(
    store: Annotated[Path, typer.Argument(metavar="DIR", help="The store.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on stdout.")
    ] = False,
) -> None:
    """Show a store: its size, click rate, split, history lengths, fingerprint and unusable rows."""
    from ctrkit.commands.data import info as run

    run(store, as_json=as_json)


for command in (synth, prepare, info):
    data_app.command(help=help_of(command), cls=PlainCommand)(command)
