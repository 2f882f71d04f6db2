"""The store: a folder of memory-mapped Arrow files that every loader reads without copying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctrkit.core.config import decode
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
#: row numbers
IndexArray = npt.NDArray[np.int32] | npt.NDArray[np.int64]

STORE_SCHEMA_VERSION = 1

#: the columns of a packed impression row, in this order
IMPRESSION_COLUMNS = (
    "user",
    "item",
    "category",
    "hour",
    "weekday",
    "label",
    "history_begin",
    "history_end",
)
SPLITS = ("train", "validation")
VOCABULARIES = ("item", "category", "user", "history_item", "history_category")

PADDING_ID = 0
UNKNOWN_ID = 1
FIRST_REAL_ID = 2

META_FILE = "meta.json"
IMPRESSIONS_FILE = "impressions.arrow"
BEHAVIORS_FILE = "behaviors.arrow"
USERS_FILE = "users.arrow"
ADS_FILE = "ads.arrow"


@dataclass(frozen=True, kw_only=True)
class FileAccount:
    """What became of the rows of one file of several.

    Attributes:
        rows: its lines after the header, without blank ones: the sum of the next three.
        used: rows that are in the store.
        not_needed: usable rows that belong to no impression of the store.
        dropped: rows that could not be used, or are duplicates.
        blank_lines: blank lines, not counted as rows.
    """

    rows: int
    used: int
    not_needed: int = 0
    dropped: int = 0
    blank_lines: int = 0


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a table was read.

    Attributes:
        rows: rows of the table, without header and blank lines.
        used: rows that became impressions; `StoreMeta.bad_rows` counts the others.
        blank_lines: blank lines between the rows, not counted as rows.
        first_bad: for each reason in `StoreMeta.bad_rows`, where it first occurs, and the value.
        notes: how columns and bytes were understood.
        warnings: what may be wrong with the data although it could be read.
        files: each file's own account, if there are several; then the fields above are those of the
            file of impressions.
    """

    rows: int
    used: int
    blank_lines: int = 0
    first_bad: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: dict[str, FileAccount] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoreMeta:
    """The contents of a store's `meta.json`.

    Attributes:
        name: the name of the data in reports.
        source: what made the store, such as `generated` or the ingest command.
        created: UTC, ISO 8601.
        vocabulary: rows of the embedding table per name in VOCABULARIES; 0 is padding, 1 unknown.
        rows: impressions per split.
        behaviors: number of events in all histories.
        split: `time` or `random`; `split_detail` says it in words.
        history: `kind` (`behaviors`, `impressions`, ...) and `item` (what the item slot holds).
        ctr: clicks per impression, per split (0 for an empty split).
        history_length_stats: mean, p50, p90, max and empty_share over all impressions, in events
            before the impression; a batch takes the latest of them.
        bad_rows: input rows that could not be used as they are, by reason.
        fingerprint: 16 hex digits; equal for equal batches.
        oracle_auc: AUC of the true click probability per split; empty unless generated.
        seed: seed of the generator or of the random split.
        reading: how the rows were read; None unless they come from a single table.
    """

    schema_version: int
    name: str
    source: str
    created: str
    vocabulary: dict[str, int]
    rows: dict[str, int]
    behaviors: int
    split: str
    split_detail: str
    history: dict[str, str]
    ctr: dict[str, float]
    history_length_stats: dict[str, float]
    fingerprint: str
    bad_rows: dict[str, int] = field(default_factory=dict)
    oracle_auc: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    reading: Reading | None = None


class Store:
    """An open store. Get one with `Store.open`; it pickles as its path.

    All arrays are views of memory-mapped files: opening takes milliseconds and no memory.

    Attributes:
        path: the folder.
        meta: the contents of `meta.json`.
        impressions: int32 (rows, 8), the columns of IMPRESSION_COLUMNS; train rows come first. A
            row's history is the behaviours `history_begin` to `history_end` (exclusive): what its
            user did strictly before the impression, oldest first.
        time_s: int32 (rows,), Unix seconds of the impressions.
        behavior_item: int32 (behaviors,), by user, then by time.
        behavior_category: int32 (behaviors,).
        behavior_time_s: int32 (behaviors,), Unix seconds.
    """

    def __init__(
        self,
        *,
        path: Path,
        meta: StoreMeta,
        impressions: Int32Array,
        time_s: Int32Array,
        behavior_item: Int32Array,
        behavior_category: Int32Array,
        behavior_time_s: Int32Array,
    ) -> None:
        self.path = path
        self.meta = meta
        self.impressions = impressions
        self.time_s = time_s
        self.behavior_item = behavior_item
        self.behavior_category = behavior_category
        self.behavior_time_s = behavior_time_s

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Map the files of a store folder.

        Raises:
            UsageError: it is no store or has another schema version, or files are missing,
                truncated or do not fit `meta.json`.
        """
        folder = Path(path)
        meta = read_meta(folder)
        rows = _mapped_columns(folder / IMPRESSIONS_FILE, ("row", "time_s"))
        behaviors = _mapped_columns(folder / BEHAVIORS_FILE, ("item", "category", "time_s"))
        store = cls(
            path=folder,
            meta=meta,
            impressions=rows["row"],
            time_s=rows["time_s"],
            behavior_item=behaviors["item"],
            behavior_category=behaviors["category"],
            behavior_time_s=behaviors["time_s"],
        )
        _check_sizes(store)
        return store

    def rows(self, split: str) -> range:
        """Row numbers of a split in `impressions`: `train` or `validation`."""
        train = self.meta.rows["train"]
        return {"train": range(train), "validation": range(train, len(self.impressions))}[split]

    def users(self) -> pa.Table | None:
        """The user table (column `user` is the id used here); None if there is none."""
        return _optional_table(self.path / USERS_FILE)

    def ads(self) -> pa.Table | None:
        """The ad table (column `item` is the id used here); None if there is none."""
        return _optional_table(self.path / ADS_FILE)

    def __reduce__(self) -> tuple[Callable[[Path], Store], tuple[Path]]:
        """Pickle only the path; a worker process maps the files anew."""
        return Store.open, (self.path.absolute(),)


def read_meta(folder: Path) -> StoreMeta:
    """Read `meta.json` without opening the Arrow files.

    Raises:
        UsageError: it is no store, or has another schema version.
    """
    if not folder.is_dir():
        raise UsageError(
            f"data folder {folder}: no such folder; make one with 'ctrkit data synth'"
            " or 'ctrkit data prepare'"
        )
    if not (folder / META_FILE).is_file():
        raise UsageError(
            f"data folder {folder}: no store, it has no {META_FILE}; make one with"
            " 'ctrkit data synth' or 'ctrkit data prepare'"
        )
    where = folder / META_FILE
    values = read_json(where)
    if not isinstance(values, dict):
        raise UsageError(f"{where}: not the description of a store; build the store again")
    version = values.get("schema_version")
    if version != STORE_SCHEMA_VERSION:
        raise UsageError(
            f"data folder {folder}: store of schema version {version}, but this ctrkit reads"
            f" version {STORE_SCHEMA_VERSION}; build the store again"
        )
    meta = decode(StoreMeta, values, str(where))
    for kind, known, wanted in (
        ("rows", meta.rows, SPLITS),
        ("vocabulary", meta.vocabulary, VOCABULARIES),
    ):
        missing = [key for key in wanted if key not in known]
        if missing:
            raise UsageError(f"{where}: {kind} lacks '{missing[0]}'; build the store again")
    return meta


def _mapped_columns(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Columns of an Arrow file's single record batch, as read-only views of the mapped file."""
    import pyarrow as pa

    if not path.is_file():
        raise UsageError(f"{path}: missing from the store; build the store again")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.num_record_batches != 1:
            raise pa.ArrowInvalid(f"{reader.num_record_batches} record batches instead of one")
        batch = reader.get_batch(0)
        columns = {}
        for name in names:
            column = batch.column(name)
            if isinstance(column, pa.FixedSizeListArray):
                flat = column.values.to_numpy(zero_copy_only=True)
                columns[name] = flat.reshape(len(column), -1)
            else:
                columns[name] = column.to_numpy(zero_copy_only=True)
            if columns[name].dtype != np.int32:
                raise pa.ArrowInvalid(f"column {name} is {columns[name].dtype}, not int32")
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{path}: truncated or damaged ({reason}); build the store again"
        ) from None
    return columns


def _optional_table(path: Path) -> pa.Table | None:
    import pyarrow as pa

    if not path.is_file():
        return None
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{path}: truncated or damaged ({reason}); build the store again"
        ) from None


def _check_sizes(store: Store) -> None:
    rows = sum(store.meta.rows[split] for split in SPLITS)
    for file, what, found, told in (
        (IMPRESSIONS_FILE, "impressions", store.impressions.shape, (rows, len(IMPRESSION_COLUMNS))),
        (BEHAVIORS_FILE, "behaviors", store.behavior_item.shape, (store.meta.behaviors,)),
    ):
        if found != told:
            raise UsageError(
                f"{store.path / file}: {what} of shape {found}, but {META_FILE} says {told};"
                " build the store again"
            )
