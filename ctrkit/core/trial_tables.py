"""Trials and their stamps as Arrow tables, for `trials.parquet` and `stamps.parquet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ctrkit.core.child_records import STAGES, Stamps
from ctrkit.core.config import CELL_AXES, Cell, decode, encode
from ctrkit.core.records import TrialRecord

if TYPE_CHECKING:
    import pyarrow as pa


def trials_table(records: Sequence[TrialRecord]) -> pa.Table:
    """Trials as an Arrow table, with a column for each axis and each stage's seconds."""
    import pyarrow as pa

    rows = [_flat(record) for record in records]
    return pa.Table.from_pylist(rows, schema=_trials_schema())


def stamps_table(columns: Mapping[str, Sequence[Any]]) -> pa.Table:
    """Stamps of several trials as an Arrow table; a column of only None keeps its type."""
    import pyarrow as pa

    arrow_types = {"int": pa.int64(), "float": pa.float64(), "str": pa.string()}
    known = {
        f.name: arrow_types[str(f.type).removeprefix("list[").split(" ")[0].removesuffix("]")]
        for f in dataclasses.fields(Stamps)
    }
    fields = [(name, known.get(name, pa.string())) for name in columns]
    return pa.table(dict(columns), schema=pa.schema(fields))


def _flat(record: TrialRecord) -> dict[str, Any]:
    row = encode(record)
    row |= row.pop("cell")
    del row["unheeded"]  # it belongs to the workload, and is in run.json
    stage_s: Mapping[str, float] = row.pop("stage_s")
    row |= {f"{stage}_s": stage_s.get(stage) for stage in STAGES}
    return dict(row)


def _trials_schema() -> pa.Schema:
    import pyarrow as pa

    arrow_types = {
        "int": pa.int64(), "int | None": pa.int64(), "bool": pa.bool_(),
        "float | None": pa.float64(), "str": pa.string(), "str | None": pa.string(),
        "list[str]": pa.list_(pa.string()),
    }  # fmt: skip
    fields = []
    for f in dataclasses.fields(TrialRecord):
        if f.name == "cell":
            fields += [
                (a.name, arrow_types[str(a.type)])
                for a in dataclasses.fields(Cell)
                if a.name in CELL_AXES
            ]
        elif f.name == "stage_s":
            fields += [(f"{stage}_s", pa.float64()) for stage in STAGES]
        else:
            fields.append((f.name, arrow_types[str(f.type)]))
    return pa.schema(fields)


def records_of_table(table: pa.Table) -> list[TrialRecord]:
    """Trials of an Arrow table made by `trials_table`."""
    records = []
    for row in table.to_pylist():
        cell = {
            axis: row.pop(axis) for axis in CELL_AXES if axis in row
        }  # an older table has fewer columns
        stage_s = {stage: row.pop(f"{stage}_s") for stage in STAGES}
        row["stage_s"] = {stage: value for stage, value in stage_s.items() if value is not None}
        records.append(decode(TrialRecord, {**row, "cell": cell}, "trials.parquet"))
    return records
