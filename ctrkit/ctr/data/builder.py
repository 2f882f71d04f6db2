"""Writes a store chunk by chunk, never holding all of it in memory."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ctrkit.core.environment import fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.files import folder_aside, write_json
from ctrkit.ctr.data.store import (
    ADS_FILE,
    BEHAVIORS_FILE,
    FIRST_REAL_ID,
    IMPRESSION_COLUMNS,
    IMPRESSIONS_FILE,
    META_FILE,
    SPLITS,
    STORE_SCHEMA_VERSION,
    USERS_FILE,
    VOCABULARIES,
    Reading,
    StoreMeta,
)

if TYPE_CHECKING:
    import pyarrow as pa

_SCAN_ROWS = 1 << 20
_LABEL = IMPRESSION_COLUMNS.index("label")
_BEGIN = IMPRESSION_COLUMNS.index("history_begin")
_END = IMPRESSION_COLUMNS.index("history_end")


@contextmanager
def output_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` at the end; after an error nothing is left.

    Raises:
        UsageError: `out` is a file or a folder with content, or cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a new folder")
    try:
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(f"--out {out}: the folder is not empty; name a new one")
        with folder_aside(out) as aside:
            yield aside
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written: {error.strerror or error}") from error


def _part(folder: Path, name: str) -> Path:
    return folder / f"{name}.part"


def _check_length(path: Path, least_bytes: int) -> None:
    """Raise UsageError if a part is shorter than what was saved."""
    if least_bytes and (not path.is_file() or path.stat().st_size < least_bytes):
        raise UsageError(f"{path}: shorter than it was; the same command starts over")


class _Column:
    """An int32 column that grows on disk, with its hash and the range of its values.

    `keep`: so many rows of an earlier process are kept; the rest is cut off.
    """

    def __init__(self, folder: Path, name: str, width: int = 1, *, keep: int = 0) -> None:
        self.path = _part(folder, name)
        self.width = width
        self.rows = 0
        self.least = np.full(width, np.iinfo(np.int32).max, np.int64)
        self.most = np.full(width, np.iinfo(np.int32).min, np.int64)
        self.hash = hashlib.sha256()
        self._file = self.path.open("r+b" if keep else "wb")
        self._file.truncate(keep * 4 * width)
        while self.rows < keep:
            size = min(_SCAN_ROWS, keep - self.rows) * width
            self._note(np.fromfile(self._file, "<i4", size).reshape(-1, width))
        self._file.seek(0, os.SEEK_END)

    def append(self, values: npt.ArrayLike) -> int:
        """Write int32-valued (n,) or (n, width) rows; returns n."""
        given = np.asarray(values)
        rows = np.ascontiguousarray(given, dtype="<i4").reshape(-1, self.width)
        if (
            given.size
            and given.dtype != np.int32
            and not np.array_equal(rows.ravel(), given.ravel())
        ):
            raise ValueError(f"{self.path.stem}: values that do not fit into int32")
        if len(rows):
            self._note(rows)
            self._file.write(rows.data)
        return len(rows)

    def _note(self, rows: npt.NDArray[np.int32]) -> None:
        self.least = np.minimum(self.least, rows.min(axis=0))
        self.most = np.maximum(self.most, rows.max(axis=0))
        self.hash.update(rows.data)
        self.rows += len(rows)

    def save(self) -> int:
        """Flush the rows so far to disk; returns their number."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self.rows

    def close(self) -> None:
        self._file.close()

    def mapped(self, stack: ExitStack) -> Any:
        """The column as a pyarrow buffer of the mapped file; do not append after this."""
        import pyarrow as pa

        self._file.close()
        if not self.rows:
            return pa.py_buffer(b"")
        file = stack.enter_context(self.path.open("rb"))
        return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def remove(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class StoreBuilder:
    """Builds a store in an existing folder.

    `meta.json` is written last, so half a store is no store.

    Use it inside `output_folder(out)`, so that an interrupted build leaves nothing behind:

        with output_folder(out) as aside, StoreBuilder(aside) as builder:
            builder.add_behaviors(item, category, time_s)
            builder.add_impressions(rows, time_s)
            builder.finish(name="...", source="...", ...)

    To continue the build of another process, pass what that process's `save` returned:

        StoreBuilder(folder, keep=saved)
    """

    def __init__(self, folder: Path, *, keep: Mapping[str, int] | None = None) -> None:
        saved = keep or {}
        rows, events = saved.get("impressions", 0), saved.get("behaviors", 0)
        self.folder = folder
        columns = {"row": (len(IMPRESSION_COLUMNS), rows), "row_time_s": (1, rows)}
        columns |= {f"behavior_{name}": (1, events) for name in ("item", "category", "time_s")}
        for name, (width, count) in columns.items():
            _check_length(_part(folder, name), 4 * width * count)
        self._row, self._row_time, *self._behaviors = (
            _Column(folder, name, width, keep=count) for name, (width, count) in columns.items()
        )

    def __enter__(self) -> StoreBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        for column in self._columns():
            column.close()

    def save(self) -> dict[str, int]:
        """Flush what was added so far, so that it survives this process.

        Returns the value for `keep`.
        """
        sizes = {column.path.stem: column.save() for column in self._columns()}
        return {"impressions": sizes["row"], "behaviors": sizes["behavior_item"]}

    def behavior_times(self) -> npt.NDArray[np.int32]:
        """Times of the behaviours so far: int32 (behaviours,), Unix seconds, mapped from disk."""
        column = self._behaviors[-1]
        return np.memmap(column.path, "<i4", "r") if column.save() else np.empty(0, np.int32)

    def _columns(self) -> list[_Column]:
        return [self._row, self._row_time, *self._behaviors]

    def add_behaviors(
        self, item: npt.ArrayLike, category: npt.ArrayLike, time_s: npt.ArrayLike
    ) -> None:
        """Append events, each array (n,) of int32 values, in CSR order: by user, then by time."""
        lengths = {
            column.append(values)
            for column, values in zip(self._behaviors, (item, category, time_s), strict=True)
        }
        if len(lengths) > 1:
            raise ValueError("behaviours: item, category and time_s differ in length")

    def add_impressions(self, rows: npt.ArrayLike, time_s: npt.ArrayLike) -> None:
        """Append impressions, all of train first, then all of validation.

        Args:
            rows: (n, 8) of int32 values, the columns of IMPRESSION_COLUMNS.
            time_s: (n,), Unix seconds.
        """
        if self._row.append(rows) != self._row_time.append(time_s):
            raise ValueError("impressions: rows and time_s differ in length")

    def add_users(self, table: pa.Table) -> None:
        """Set the user table; its column `user` is the id that impressions use."""
        _write_table(self.folder / USERS_FILE, table)

    def add_ads(self, table: pa.Table) -> None:
        """Set the ad table; its column `item` is the id that impressions use."""
        _write_table(self.folder / ADS_FILE, table)

    def finish(
        self,
        *,
        name: str,
        source: str,
        vocabulary: Mapping[str, int],
        rows: Mapping[str, int],
        split: str,
        split_detail: str,
        history: Mapping[str, str],
        bad_rows: Mapping[str, int] | None = None,
        oracle_auc: Mapping[str, float] | None = None,
        seed: int | None = None,
        reading: Reading | None = None,
    ) -> StoreMeta:
        """Write the Arrow files and then `meta.json`; the arguments are fields of `StoreMeta`.

        `rows` says how many of the added impressions are `train` (the first ones) and `validation`.

        Raises:
            ValueError: what was added does not fit `rows` or `vocabulary`, or a history or value is
                out of range. That is a bug of the code that builds the store.
        """
        self._check(rows, vocabulary)
        ctr, lengths = self._write_arrow(rows)
        hashes = [column.hash.hexdigest() for column in self._columns()]
        meta = StoreMeta(
            schema_version=STORE_SCHEMA_VERSION,
            name=name,
            source=source,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            vocabulary={key: int(vocabulary[key]) for key in VOCABULARIES},
            rows={key: int(rows[key]) for key in SPLITS},
            behaviors=self._behaviors[0].rows,
            split=split,
            split_detail=split_detail,
            history=dict(history),
            ctr=ctr,
            history_length_stats=lengths,
            fingerprint=fingerprint([hashes, dict(vocabulary), dict(rows)]),
            bad_rows={key: int(count) for key, count in (bad_rows or {}).items()},
            oracle_auc=dict(oracle_auc or {}),
            seed=seed,
            reading=reading,
        )
        write_json(self.folder / META_FILE, meta)
        for column in self._columns():
            column.remove()
        return meta

    def _write_arrow(self, rows: Mapping[str, int]) -> tuple[dict[str, float], dict[str, float]]:
        """Write impressions and behaviours.

        Returns CTR per split, and statistics of history lengths.
        """
        with ExitStack() as stack:
            packed, time_s, item, category, behavior_time_s = (
                column.mapped(stack) for column in self._columns()
            )
            packed_rows = np.frombuffer(packed, np.int32).reshape(-1, len(IMPRESSION_COLUMNS))
            if np.any(packed_rows[:, _BEGIN] > packed_rows[:, _END]):
                raise ValueError("impressions: a history ends before it begins")
            found = _statistics(packed_rows, rows)
            _write_columns(
                self.folder / IMPRESSIONS_FILE,
                {"row": (packed, len(IMPRESSION_COLUMNS)), "time_s": (time_s, 1)},
            )
            _write_columns(
                self.folder / BEHAVIORS_FILE,
                {"item": (item, 1), "category": (category, 1), "time_s": (behavior_time_s, 1)},
            )
        return found

    def _check(self, rows: Mapping[str, int], vocabulary: Mapping[str, int]) -> None:
        told = sum(rows[split] for split in SPLITS)
        if told != self._row.rows:
            raise ValueError(f"impressions: {self._row.rows} were added, but {told} are told of")
        for name in VOCABULARIES:
            if vocabulary[name] < FIRST_REAL_ID:
                raise ValueError(f"vocabulary {name}: {vocabulary[name]}, but 0 and 1 are taken")
        events = self._behaviors[0].rows
        bounds = {
            "user": vocabulary["user"],
            "item": vocabulary["item"],
            "category": vocabulary["category"],
            "hour": 24,
            "weekday": 7,
            "label": 2,
            "history_begin": events + 1,
            "history_end": events + 1,
        }
        limits: list[tuple[str, Sequence[int], int]] = [
            (column, (self._row.least[i], self._row.most[i]), bounds[column])
            for i, column in enumerate(IMPRESSION_COLUMNS)
            if self._row.rows
        ]
        limits += [
            (f"history {name}", (column.least[0], column.most[0]), vocabulary[f"history_{name}"])
            for name, column in zip(("item", "category"), self._behaviors, strict=False)
            if column.rows
        ]
        for what, (least, most), bound in limits:
            if least < 0 or most >= bound:
                raise ValueError(f"{what}: values {least} .. {most}, but must be 0 .. {bound - 1}")


def _statistics(
    packed: npt.NDArray[np.int32], rows: Mapping[str, int]
) -> tuple[dict[str, float], dict[str, float]]:
    """CTR per split, and the statistics of all history lengths, in passes over mapped rows."""
    train = rows["train"]
    ctr = {
        split: float(part.mean(dtype=np.float64)) if len(part) else 0.0
        for split, part in zip(
            SPLITS, (packed[:train, _LABEL], packed[train:, _LABEL]), strict=True
        )
    }
    counts = np.zeros(1, np.int64)
    for start in range(0, len(packed), _SCAN_ROWS):
        chunk = packed[start : start + _SCAN_ROWS]
        found = np.bincount(chunk[:, _END] - chunk[:, _BEGIN], minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    total = max(1, len(packed))
    upto = np.cumsum(counts)
    lengths = {
        "mean": float(np.arange(len(counts)) @ counts / total),
        "p50": float(np.searchsorted(upto, 0.5 * total)),
        "p90": float(np.searchsorted(upto, 0.9 * total)),
        "max": float(len(counts) - 1),
        "empty_share": float(counts[0] / total),
    }
    return ctr, lengths


def _write_columns(path: Path, columns: Mapping[str, tuple[Any, int]]) -> None:
    """One record batch of int32 columns (a buffer and its width), copied from mapped files."""
    import pyarrow as pa

    arrays = []
    for buffer, width in columns.values():
        flat = pa.Array.from_buffers(pa.int32(), buffer.size // 4, [None, buffer])
        arrays.append(flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width))
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _write_table(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
