"""The options of `ctrkit data synth | prepare | info`; nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TABLE = "What --table holds"
Column = Annotated[
    str | None, typer.Option(metavar="COLUMN", rich_help_panel=TABLE, help="The column of it.")
]

data_app = typer.Typer(no_args_is_help=True, help="Make, ingest and look at data sets.")


@data_app.command()
def synth(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to; missing or empty.")],
    rows: Annotated[
        int | None, typer.Option(help="Impressions. Default: 1,277,527, the reference scale.")
    ] = None,
    users: Annotated[int | None, typer.Option(help="Users.")] = None,
    items: Annotated[int | None, typer.Option(help="Items.")] = None,
    behaviors: Annotated[
        int | None, typer.Option(metavar="N", help="About how many events, for tianchi.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal data.")] = 42,
    format_: Annotated[
        str, typer.Option("--format", help="store, or tianchi: the four CSV files with their dirt.")
    ] = "store",
) -> None:
    """Generate data with a planted signal, as a store or as Tianchi's CSV files."""
    from ctrkit.commands.data import synth as run

    run(
        out=out, rows=rows, users=users, items=items, behaviors=behaviors, seed=seed,
        format_=format_,
    )  # fmt: skip


@data_app.command()
def prepare(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The store; missing or empty.")],
    source: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the four Tianchi CSV files.")
    ] = None,
    sample_users: Annotated[
        float | None, typer.Option(metavar="F", help="Keep this share of the users, 0..1.")
    ] = None,
    history: Annotated[
        str, typer.Option(help="behaviors (needs behavior_log.csv) or impressions.")
    ] = "behaviors",
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Any log: CSV or Parquet; a file, a folder or a 'pattern*'."
        ),
    ] = None,
    user: Column = None,
    item: Column = None,
    time: Column = None,
    label: Column = None,
    category: Column = None,
    header: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", rich_help_panel=TABLE,
                     help="Names of all columns, where the file has no line of them."),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(metavar="TEXT", rich_help_panel=TABLE,
                     help="Between the fields, such as '::' or tab. Default: found out."),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=TABLE,
                     help="Such as latin-1, utf-16 or gbk. Default: found out."),
    ] = None,
    time_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", rich_help_panel=TABLE,
                     help="Such as '%d/%m/%Y %H:%M' or YYMMDDHH. Default: found out."),
    ] = None,
    time_unit: Annotated[
        str | None,
        typer.Option(metavar="UNIT", rich_help_panel=TABLE,
                     help="Times count these since 1970: s, ms, us, ns, min, h, d; or excel."),
    ] = None,
    label_threshold: Annotated[
        float | None,
        typer.Option(metavar="X", rich_help_panel=TABLE,
                     help="A row is positive where the label is >= X."),
    ] = None,
    positive: Annotated[
        str | None,
        typer.Option(metavar="VALUE,...", rich_help_panel=TABLE,
                     help="A row is positive where the label is one of these."),
    ] = None,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", rich_help_panel=TABLE,
                     help="Go on where more than 20 % of the rows cannot be used."),
    ] = False,
    split: Annotated[str, typer.Option(help="time or random.")] = "time",
    seed: Annotated[int, typer.Option(help="Of the random split and the sample.")] = 42,
    memory_limit: Annotated[
        str, typer.Option(help="What DuckDB may use before it spills to disk.")
    ] = "2GB",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew, not from what an interrupted one left.")
    ] = False,
) -> None:  # fmt: skip
    """Ingest Tianchi's four files (--source) or any interactions log (--table) into a store."""
    from ctrkit.commands.data import prepare as run

    run(
        out=out, source=source, sample_users=sample_users, history=history, table=table, user=user,
        item=item, time=time, label=label, category=category, header=header,
        delimiter=delimiter, encoding=encoding, time_format=time_format, time_unit=time_unit,
        label_threshold=label_threshold, positive=positive, accept_loss=accept_loss, split=split,
        seed=seed, memory_limit=memory_limit, fresh=fresh,
    )  # fmt: skip


@data_app.command()
def info(
    store: Annotated[Path, typer.Argument(metavar="DIR", help="A store.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Show a store: sizes, click rate, split, history lengths, fingerprint, unusable rows."""
    from ctrkit.commands.data import info as run

    run(store, as_json=as_json)
