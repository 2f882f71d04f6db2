"""Writes files whole or not at all, and reads them with errors that name the file."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ctrkit.core.config import encode
from ctrkit.core.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EIO)
_GONE = (errno.ENOENT, errno.ESTALE)


@contextmanager
def file_aside(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file beside `path`; at the end it is flushed to disk and renamed to `path`.

    A reader sees either the old file or the new one. After an error, the old one is still there.
    """
    aside = _beside(path)
    try:
        with open(aside, "xb") as file:  # opened normally, so that the user's umask applies
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    """A hidden, unused name beside a path."""
    return path.parent / f".{path.name}.{secrets.token_hex(6)}"


def is_of_disk(error: OSError, path: Path) -> bool:
    """Whether the disk refused to write `path`: full, read-only, broken, or its folder is gone."""
    gone = error.errno in _GONE and Path(error.filename or path).is_relative_to(path.parent)
    return error.errno in _DISK_ERRORS or gone


@contextmanager
def plain_disk_errors(path: Path, *, resume: Path | str = "", advice: str = "") -> Iterator[None]:
    """Turn an error of the disk into one line: what is still whole, and what to do.

    Args:
        path: the file to be written, if the error names none.
        resume: the run folder for `ctrkit train --resume`, if there is one.
        advice: what to do instead, if nothing can be resumed.

    Raises:
        UsageError: the disk is full, read-only or broken, or the folder is gone.
    """
    try:
        yield
    except OSError as error:
        if not is_of_disk(error, path):
            raise
        named = Path(error.filename or path)
        command = f"ctrkit train --resume {resume}".rstrip()
        advice = advice or (f"what was saved before is whole: make room, then go on with {command}")
        raise UsageError(
            f"{named}: cannot be written: {error.strerror or error}; {advice}"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary file, flush it to disk, and rename it."""
    with file_aside(path) as file:
        file.write(content)


def write_json(path: Path, value: object) -> None:
    """Write a dataclass or JSON value as indented JSON, atomically."""
    text = json.dumps(finite(encode(value)), indent=2, ensure_ascii=False, allow_nan=False)
    # a file name that is not valid UTF-8 is kept as JSON escapes
    write_atomically(path, (text + "\n").encode(errors="backslashreplace"))


def finite(value: Any) -> Any:
    """The value with NaN and infinities, which JSON lacks, replaced by None."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UsageError: the file is missing, not readable, or no valid JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    except ValueError as error:
        raise UsageError(f"{path}: cannot be read as JSON: {error}") from None


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file, atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_table(path: Path) -> pa.Table:
    """Read a Parquet file, without threads.

    Arrow's threads may end the interpreter by "terminate called without an active exception"
    (SIGABRT) if it exits while they start; files of a run are small.

    Raises:
        UsageError: the file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:  # Arrow accepts only UTF-8 paths
            return pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`; at the end it becomes `path`, on an error it is removed.

    `path` may be an existing empty folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = _beside(path)
    aside.mkdir()
    try:
        yield aside
        if path.is_dir():
            path.rmdir()
        os.replace(aside, path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def is_one_place(one: Any, other: Any) -> bool:
    """Whether two streams lead to the same terminal, file or pipe."""
    try:
        return os.path.samestat(os.fstat(one.fileno()), os.fstat(other.fileno()))
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return False
