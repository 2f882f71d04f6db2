"""Finds the files behind `--table`: one file, a folder or a pattern, text or Parquet."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import os
import re
import stat
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value

_HEAD_BYTES = 512
_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
_COMPRESSED = (_GZIP, _BZIP2, _XZ, _ZSTD)
_PARQUET = b"PAR1"
_SAVE_AS_CSV = "save the sheet as CSV"
_CONVERT = "write it as CSV or Parquet"
#: first bytes of files that are no table for us, their kind, and advice
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "an Excel file (.xls)", _SAVE_AS_CSV),
    (b"ORC", "an ORC file", _CONVERT),
    (b"ARROW1", "an Arrow (Feather) file", _CONVERT),
    (b"FEA1", "a Feather file", _CONVERT),
    (b"Obj\x01", "an Avro file", _CONVERT),
    (b"\x89HDF", "an HDF5 file", _CONVERT),
    (b"SQLite format 3", "an SQLite database", _CONVERT),
    (b"\x93NUMPY", "a NumPy file", _CONVERT),
    (b"\x80\x04\x95", "a Python pickle", _CONVERT),
    (b"\x80\x05\x95", "a Python pickle", _CONVERT),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"\x04\x22\x4d\x18", "an lz4 file", "unpack it first"),
    (b"Rar!", "a RAR archive", "unpack it first"),
    (b"%PDF", "a PDF file", _CONVERT),
    (b"version https://git-lfs", "a pointer of Git LFS", "run 'git lfs pull'"),
)
#: what a name ends with if the file is packed, or is a copy: `a.csv.gz`, `a.csv~`, `a (1).csv`
_COPY_ENDING = re.compile(
    r"\.(gz|bz2|xz|zst|bak|old|orig|copy|backup|save)$|~$| \(\d+\)(?=\.)|( - |[ _-])copy(?=\.)",
    re.IGNORECASE,
)
#: marks of tables whose folder alone does not say which files count
_LAKES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table", "metadata": "an Iceberg table"}


@dataclass(frozen=True)
class TableFiles:
    """The files of a table, in order.

    Attributes:
        named: the path as the user gave it.
        files: one or more files.
        parquet: true for Parquet, false for text.
        left_out: which files of the folder or pattern are not read, in words.
        copies: which files seem to hold the same rows, in words.
    """

    named: Path
    files: tuple[Path, ...]
    parquet: bool
    left_out: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the table in messages and counts."""
        return format_value(self.named.name or self.named)[1:-1]

    def place(self, number: int, row: int) -> str:
        """The place of a row: `line 302`, or `line 302 of part-1.csv` with several files."""
        where = f"{'row' if self.parquet else 'line'} {row:,}"
        return where if len(self.files) == 1 else f"{where} of {self.short_name(number)}"

    def short_name(self, number: int) -> str:
        """A file's path relative to the folder that the user named; its name elsewhere."""
        file = self.files[number]
        below = file.relative_to(self.named) if file.is_relative_to(self.named) else Path(file.name)
        names = [each.name for each in self.files]
        unique = below if names.count(file.name) == 1 or below != Path(file.name) else file
        return format_value(unique, 200)[1:-1]


def find_files(named: Path) -> TableFiles:
    """Find the files of a table.

    Args:
        named: a file; a folder, with all files at any depth except those whose name begins with `_`
            or `.`; or a pattern with `*`, `?` or `[`.

    Raises:
        UsageError: there is none, it cannot be read, or its kind is not supported.
    """
    try:
        listed = _listed(named)
        files = [file for file in listed if file == named or not _is_empty(file)]
        if not files:
            raise UsageError(f"{named}: every file of it is empty, such as {listed[0].name}")
        kinds = {file: _is_parquet(file) for file in files}
        left_out = _left_out(named, listed, files)
    except FileNotFoundError:
        why = "; standard input is not read, so write it to a file" if str(named) == "-" else ""
        raise UsageError(f"{named}: no such file{why}") from None
    except OSError as error:
        raise UsageError(f"{named}: cannot be read: {error.strerror or error}") from None
    if len(set(kinds.values())) > 1:
        parquet, text = (next(f for f in files if kinds[f] == kind) for kind in (True, False))
        raise UsageError(
            f"{named}: {parquet.name} is a Parquet file and {text.name} is text;"
            " name one kind with a pattern, such as 'folder/*.parquet'"
        )
    return TableFiles(named, tuple(files), kinds[files[0]], left_out, _copies(files))


def _listed(named: Path) -> list[Path]:
    if named.is_dir():
        return _in_folder(named)
    if glob.has_magic(str(named)) and not named.exists():
        found = sorted(Path(file) for file in glob.glob(str(named), recursive=True))
        files = [file for file in found if file.is_file()]
        if not files:
            raise UsageError(f"{named}: no file has such a name")
        return files
    mode = named.stat().st_mode
    if not stat.S_ISREG(mode):
        what = "a pipe" if stat.S_ISFIFO(mode) else "no regular file"
        raise UsageError(
            f"{named}: is {what}; a table is read more than once, so write it to a file first"
        )
    return [named]


def _in_folder(folder: Path) -> list[Path]:
    for name, what in _LAKES.items():
        marks = folder / name
        if marks.is_dir() and (name != "metadata" or any(marks.glob("*.metadata.json"))):
            raise UsageError(
                f"{folder}: is {what}, where some files hold rows that were deleted;"
                " export it to plain Parquet files first"
            )
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "_.")
        paths = [Path(parent, name) for name in sorted(names) if name[0] not in "_."]
        files += [path for path in paths if path.is_file()]
    if not files:
        raise UsageError(f"{folder}: the folder holds no file with rows")
    return files


def _is_empty(file: Path) -> bool:
    """True for a file with nothing but blanks, after decompression."""
    if not file.stat().st_size:
        return True
    head = next(read_blocks(file, _HEAD_BYTES), b"")
    return not head.strip(b"\xef\xbb\xbf \t\r\n") and len(head) < _HEAD_BYTES


def _left_out(named: Path, listed: Sequence[Path], files: Sequence[Path]) -> tuple[str, ...]:
    """Files that one might expect to be read, but that are not."""
    empty = [file for file in listed if file not in files]
    hidden: list[Path] = []
    odd: list[Path] = []  # pipes, links that lead nowhere or to a folder
    if named.is_dir():
        endings = {file.suffix for file in files}
        for parent, folders, names in os.walk(named):
            paths = [Path(parent, name) for name in sorted(names)]
            linked = [Path(parent, name) for name in sorted(folders)]
            odd += [path for path in paths if not path.is_file()]
            odd += [path for path in linked if path.is_symlink()]
            hidden += [path for path in paths if path.suffix in endings and path not in listed]
        hidden = [path for path in hidden if path.suffix and path.stat().st_size]
    return tuple(
        f"{len(paths)} file{'s' * (len(paths) > 1)} not read, {why}, such as"
        f" {format_value(paths[0].relative_to(named) if named.is_dir() else paths[0])}"
        for paths, why in (
            (empty, "empty"),
            (hidden, "below a name that begins with _ or ."),
            (odd, "a pipe, or a link to a folder or to nothing"),
        )
        if paths
    )


def _copies(files: Sequence[Path]) -> tuple[str, ...]:
    """Pairs of files that seem to hold the same rows, a sentence for the first."""
    first: dict[tuple[Path, str], Path] = {}
    pairs = []
    for file in files:
        name = file.name
        while (short := _COPY_ENDING.sub("", name)) != name:
            name = short
        other = first.setdefault((file.parent, name), file)
        if other is not file:
            pairs.append((other, file))
    if not pairs:
        return ()
    one, two = (format_value(file.name) for file in pairs[0])
    return (
        f"{one} and {two} seem to hold the same rows, and each is read: if one is a copy, name the"
        " others with a pattern or move it away" + f" ({len(pairs)} such pairs)" * (len(pairs) > 1),
    )


def _is_parquet(file: Path) -> bool:
    """True for Parquet, False for text.

    Raises:
        UsageError: the file is of another kind.
    """
    with file.open("rb") as raw:
        _rewind(raw)
        head = raw.read(_HEAD_BYTES)
    if head.startswith(_COMPRESSED):
        head = next(read_blocks(file, _HEAD_BYTES), b"")
        if head.startswith(_PARQUET):
            raise UsageError(f"{file}: is a Parquet file that was compressed; unpack it first")
    if head.startswith(_PARQUET):
        return True
    what = _other_kind(file, head)
    if what:
        raise UsageError(f"{file}: is {what[0]}, not CSV or Parquet; {what[1]}")
    if file.suffix.lower() in (".parquet", ".pq"):
        raise UsageError(
            f"{file}: no readable Parquet file: it begins with {format_value(_readable(head), 24)}"
        )
    return False


def _other_kind(file: Path, head: bytes) -> tuple[str, str] | None:
    """The kind of a file that is neither text nor Parquet, with advice; None if it is text."""
    if head.startswith(b"PK\x03\x04"):
        excel = file.suffix.lower().startswith((".xls", ".ods")) or b"[Content_Types]" in head
        return ("an Excel file", _SAVE_AS_CSV) if excel else ("a zip archive", "unpack it first")
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it first"
    for begin, what, advice in _OTHERS:
        if head.startswith(begin):
            return what, advice
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith((b'{"', b"[{", b"[\n")):
        return "JSON", _CONVERT
    if text[:5].lower() in (b"<html", b"<!doc", b"<?xml"):
        return "HTML or XML", "download or export the table itself"
    return None


def _readable(head: bytes) -> str:
    return head.decode("latin-1").partition("\n")[0]


def _rewind(raw: IO[bytes]) -> None:
    """Go back to the start: some systems share the position of /dev/stdin among its readers."""
    if raw.seekable():
        raw.seek(0)


def read_blocks(file: Path, block_bytes: int) -> Iterator[bytes]:
    """The bytes of a file in blocks; gzip, bzip2, xz and zstd are decompressed.

    Raises:
        UsageError: the file cannot be read, or the compressed data is damaged or cut off.
    """
    try:
        with file.open("rb") as raw:
            _rewind(raw)
            begin = raw.read(len(_XZ))
            _rewind(raw)
            with _unpacked(raw, begin) as stream:
                while block := stream.read(block_bytes):
                    yield block
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{file}: cannot be read to its end: {why}") from None


def _unpacked(raw: IO[bytes], begin: bytes) -> Any:
    if begin.startswith(_GZIP):
        return gzip.open(raw)
    if begin.startswith(_BZIP2):
        return bz2.open(raw)
    if begin.startswith(_XZ):
        return lzma.open(raw)
    if begin.startswith(_ZSTD):
        import pyarrow as pa

        return pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
    return raw
