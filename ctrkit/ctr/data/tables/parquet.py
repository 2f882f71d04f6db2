"""Parquet files as tables: the types of their columns, and SQL that gives each cell as text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value
from ctrkit.ctr.data.workspace import first_line

if TYPE_CHECKING:
    import pyarrow as pa

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def read_types(file: Path) -> list[tuple[str, pa.DataType]]:
    """Name and type of each column; names may be equal.

    Raises:
        UsageError: the file is not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.open("rb") as opened:  # Arrow accepts only UTF-8 paths
            schema = pq.read_schema(opened)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{file}: no readable Parquet file: {first_line(error)}") from None
    return [(field.name, field.type) for field in schema]


def partitions(file: Path) -> dict[str, str]:
    """Columns given by folder names, as Spark and Hive write them: `day=2017-05-06/`."""
    pairs = [folder.partition("=") for folder in file.parts[:-1] if "=" in folder]
    return {
        unquote(key): "" if value == _NULL_PARTITION else unquote(value) for key, _, value in pairs
    }


def text_sql(file: Path, field: str, column: tuple[str, pa.DataType], sql: str) -> str:
    """SQL for a column's cells as text.

    Args:
        file: the file, for messages.
        field: `user`, `item`, `time`, ...
        column: name and type.
        sql: SQL for the column.

    Raises:
        UsageError: cells of this type cannot be ids, times or labels.
    """
    import pyarrow as pa

    name, kind = column
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    refused = {
        "holds lists or structs": pa.types.is_nested(kind) or pa.types.is_union(kind),
        "holds binary values": is_binary or pa.types.is_fixed_size_binary(kind),
        "holds durations": pa.types.is_duration(kind) or pa.types.is_interval(kind),
        "holds times of day without a date": field == "time" and pa.types.is_time(kind),
    }
    why = next((why for why, is_so in refused.items() if is_so), None)
    if why:
        raise UsageError(
            f"{file}: column {format_value(name)} {why} ({kind}), which cannot be the {field};"
            " write it as text or as numbers"
        )
    return f"trim({sql}::VARCHAR)"


def exact_limit(kind: pa.DataType) -> int | None:
    """The limit beyond which this floating type skips whole numbers; None for other types."""
    import pyarrow as pa

    limits = {pa.float64(): 2**53, pa.float32(): 2**24, pa.float16(): 2**11}
    return limits.get(kind)
