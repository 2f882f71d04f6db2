from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from logs import log_rows, log_text, prepared

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.tables.table_files import find_files, read_blocks

ROWS = log_rows()
TEXT = log_text(ROWS).encode()


def _zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": _zstd}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["log.csv.{}", "log"])
def test_a_compressed_file_whatever_its_name(tmp_path: Path, packer: str, name: str) -> None:
    path = tmp_path / name.format(packer)
    path.write_bytes(PACKERS[packer](TEXT))
    assert b"".join(read_blocks(path, 1000)) == TEXT
    assert not find_files(path).parquet


@pytest.mark.parametrize("packer", PACKERS)
def test_a_compressed_file_that_is_cut_off(tmp_path: Path, packer: str) -> None:
    path = tmp_path / f"log.{packer}"
    packed = PACKERS[packer](os.urandom(50_000))
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match=rf"log\.{packer}: cannot be read to its end: "):
        list(read_blocks(path, 1000))


def test_parts_of_gzip_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:]))
    assert prepared(path, tmp_path / "store").reading.rows == len(ROWS)


def _zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


def _tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("log.csv"))
    return file.getvalue()


def _feather() -> bytes:
    file = io.BytesIO()
    feather.write_feather(pa.table({"user": [1]}), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("log.xlsx", lambda: _zipped("[Content_Types].xml"), "an Excel file"),
        ("renamed.csv", lambda: _zipped("[Content_Types].xml"), "an Excel file"),
        ("log.xls", lambda: b"\xd0\xcf\x11\xe0" + bytes(600), "an Excel file"),
        ("log.zip", lambda: _zipped("log.csv"), "a zip archive"),
        ("log.tar.gz", _tarred, "a tar archive"),
        ("log.7z", lambda: b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        ("log.feather", _feather, "an Arrow"),
        ("log.orc", lambda: b"ORC\x01", "an ORC file"),
        ("log.jsonl", lambda: b'{"user": 1}\n', "JSON"),
        ("log.json", lambda: b'[\n{"user": 1}]', "JSON"),
        ("log.csv", lambda: b"<!DOCTYPE html>", "HTML"),
        ("lfs.csv", lambda: b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
    ],
)
def test_other_kinds_are_refused_by_name(
    tmp_path: Path, name: str, content: Callable[[], bytes], what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(UsageError, match=rf"{name}: is {what}|is a pointer of {what}"):
        find_files(path)


def test_what_is_no_text_at_all(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(UsageError, match=r"log\.csv: is not text"):
        prepared(path, tmp_path / "store")


def test_a_pipe_is_refused_by_name_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match=r"pipe: is a pipe; .* write it to a file first"):
        find_files(tmp_path / "pipe")
    with pytest.raises(UsageError, match="-: no such file; standard input is not read"):
        find_files(Path("-"))


def _part(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    user, item, ts, label = map(list, zip(*ROWS[number * 40 : number * 40 + 40], strict=True))
    pq.write_table(pa.table({"user": user, "item": item, "ts": ts, "label": label}), path)


def test_a_folder_and_a_pattern_of_parquet_parts(tmp_path: Path) -> None:
    for number in range(3):
        _part(tmp_path / "log" / f"part-{number}.parquet", number)
    (tmp_path / "log" / "_SUCCESS").touch()
    (tmp_path / "log" / ".part-0.parquet.crc").write_bytes(b"crc")
    (tmp_path / "log" / "_temporary").mkdir()
    (tmp_path / "log" / "_temporary" / "part-9.parquet").write_bytes(b"half")
    whole = prepared(tmp_path / "log", tmp_path / "a")
    assert whole.reading.rows == len(ROWS)
    assert whole.meta.name == "log"
    pattern = prepared(tmp_path / "log" / "part-[01]*", tmp_path / "b")
    assert pattern.reading.rows == 80
    with pytest.raises(UsageError, match=r"\*\.csv: no file has such a name"):
        find_files(tmp_path / "log" / "*.csv")


def test_columns_that_the_folders_name(tmp_path: Path) -> None:
    for number, day in enumerate(("2017-05-06", "__HIVE_DEFAULT_PARTITION__", "a%20b")):
        _part(tmp_path / "log" / f"day={day}" / "part.parquet", number)
    result = prepared(tmp_path / "log", tmp_path / "store", category="day")
    assert result.meta.vocabulary["category"] == 2 + 2
    assert set(result.store.impressions[:, 2].tolist()) == {1, 2, 3}


def test_parts_whose_columns_differ_in_order_and_type(tmp_path: Path) -> None:
    _part(tmp_path / "log" / "0.parquet", 0)
    user, item, ts, label = map(list, zip(*ROWS[40:], strict=True))
    other = pa.table({"label": label, "ts": ts, "item": item, "user": pa.array(user, pa.float64())})
    pq.write_table(other, tmp_path / "log" / "1.parquet")
    result = prepared(tmp_path / "log", tmp_path / "store")
    assert result.users == len({row[0] for row in ROWS})
    assert result.positives == sum(row[3] for row in ROWS)
    pq.write_table(other.drop(["label"]), tmp_path / "log" / "1.parquet")
    with pytest.raises(UsageError, match=r"1\.parquet: no column 'label' for --label"):
        prepared(tmp_path / "log", tmp_path / "other")


def test_text_parts_with_a_header_each(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "0.csv").write_text(log_text(ROWS[:60]))
    (tmp_path / "log" / "1.csv").write_text(log_text(ROWS[60:], time=lambda _: "soon"))
    (tmp_path / "log" / "2.csv").touch()
    result = prepared(tmp_path / "log", tmp_path / "store", accept_loss=True)
    assert result.reading.first_bad == {"log: ts is no time": "line 2 of 1.csv: 'soon'"}
    (tmp_path / "log" / "1.csv").write_text(log_text(ROWS[60:], header=None))
    with pytest.raises(UsageError, match=r"1\.csv: has no header, its first line is data"):
        prepared(tmp_path / "log", tmp_path / "other")


def test_folders_that_are_no_plain_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no file with rows"):
        find_files(tmp_path)
    _part(tmp_path / "0.parquet", 0)
    (tmp_path / "1.csv").write_bytes(TEXT)
    with pytest.raises(UsageError, match=r"0\.parquet is a Parquet file and 1\.csv is text"):
        find_files(tmp_path)
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(UsageError, match="is a Delta table"):
        find_files(tmp_path)


def test_parquet_that_is_damaged_or_disguised(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    _part(path, 0)
    whole = path.read_bytes()
    (tmp_path / "as.csv").write_bytes(whole)
    assert find_files(tmp_path / "as.csv").parquet
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"log\.parquet: no readable Parquet file"):
        prepared(path, tmp_path / "store")
    path.write_bytes(whole[:40] + b"\xff" * 300 + whole[340:])
    with pytest.raises(UsageError, match=r"log\.parquet"):
        prepared(path, tmp_path / "store")
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(UsageError, match="is a Parquet file that was compressed"):
        find_files(path)


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    (folder / "_old").mkdir(parents=True)
    (folder / "1.csv").write_bytes(TEXT)
    for name, data in {
        "2.csv": b"",
        "3.csv": b"\xef\xbb\xbf\r\n\n",
        "4.csv.gz": gzip.compress(b""),
        "_SUCCESS": b"",
        "_old/5.csv": TEXT,
    }.items():
        (folder / name).write_bytes(data)
    result = prepared(folder, tmp_path / "store")
    assert result.reading.rows == len(ROWS)
    assert result.reading.notes[:2] == [
        "3 files not read, empty, such as '2.csv'",
        "1 file not read, below a name that begins with _ or ., such as '_old/5.csv'",
    ]
    (folder / "1.csv").unlink()
    with pytest.raises(UsageError, match=r"every file of it is empty, such as 2\.csv"):
        prepared(folder, tmp_path / "other")


def test_a_row_is_found_by_the_folder_of_its_part(tmp_path: Path) -> None:
    for day in ("2017-05-06", "__HIVE_DEFAULT_PARTITION__"):
        part = tmp_path / "log" / f"day={day}"
        part.mkdir(parents=True)
        columns = dict(zip(("user", "item", "ts", "label"), zip(*ROWS, strict=True), strict=True))
        pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), part / "part-0.parquet")
    with pytest.raises(
        UsageError, match="first in row 1 of day=__HIVE_DEFAULT_PARTITION__/part-0.parquet; "
    ):
        prepared(tmp_path / "log", tmp_path / "store", time="day")
    with pytest.raises(UsageError, match=r"no column 'when' .*\(2 of 2 files cannot be read"):
        prepared(tmp_path / "log", tmp_path / "store", time="when")


def test_control_characters_are_shown_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"user,item\n" + b"\x02\x03\x04" * 40)
    with pytest.raises(
        UsageError,
        match=r"is not text: 92 % .*first after 10 characters: 'user,item\\n\\x02\\x03.*--encoding",
    ):
        prepared(tmp_path / "log.csv", tmp_path / "store")


def test_a_few_vertical_tabs_are_text(tmp_path: Path) -> None:
    text = log_text(ROWS, user=lambda user: f"a\x0bb{user}")
    (tmp_path / "log.csv").write_text(text)
    assert prepared(tmp_path / "log.csv", tmp_path / "store").reading.rows == len(ROWS)


@pytest.mark.parametrize("delimiter", ["\x02", "\x07"])
def test_a_control_character_that_separates_fields(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "log.csv").write_text(log_text(ROWS, delimiter=delimiter))
    said = rf"\x{ord(delimiter):02x}"
    with pytest.raises(UsageError) as error:
        prepared(tmp_path / "log.csv", tmp_path / "store")
    assert f"--delimiter '{said}'" in str(error.value)
    result = prepared(tmp_path / "log.csv", tmp_path / "store", delimiter=said)
    assert result.reading.rows == len(ROWS)


def test_a_byte_order_mark_that_was_written_twice(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"\xef\xbb\xbf" * 2 + TEXT)
    assert prepared(tmp_path / "log.csv", tmp_path / "store").reading.rows == len(ROWS)


def test_pipes_and_links_of_a_folder_are_named(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "log", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "1.csv").write_bytes(TEXT)
    (elsewhere / "2.csv").write_bytes(TEXT)
    for make in (
        lambda: os.mkfifo(folder / "odd"),
        lambda: (folder / "odd").symlink_to("nowhere.csv"),
        lambda: (folder / "odd").symlink_to(elsewhere),
        lambda: (folder / "odd").symlink_to("."),
    ):
        make()
        (note,) = find_files(folder).left_out
        assert "1 file not read" in note
        assert note.endswith("such as 'odd'")
        (folder / "odd").unlink()


@pytest.mark.parametrize("copy", ["a.csv.bak", "a.csv~", "a (1).csv", "a - Copy.csv", "a.csv.gz"])
def test_a_file_and_its_copy_are_warned_of(tmp_path: Path, copy: str) -> None:
    (tmp_path / "log").mkdir()
    for name in ("a.csv", copy, "b.csv", "a-1.csv"):
        packed = gzip.compress(TEXT) if name.endswith(".gz") else TEXT
        (tmp_path / "log" / name).write_bytes(packed)
    result = prepared(tmp_path / "log", tmp_path / "store")
    assert result.reading.rows == 4 * len(ROWS)
    (warning,) = result.reading.warnings
    assert f"'{copy}'" in warning
    assert "'a.csv'" in warning
    assert "seem to hold the same rows" in warning
