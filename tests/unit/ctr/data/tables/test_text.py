from __future__ import annotations

from pathlib import Path

import pytest
from logs import log_rows, log_text, prepared

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.tables.text import TextForm, find_form, line_blocks

ROWS = log_rows()
WITH_UMLAUTS = log_text(ROWS, user=lambda user: f"käse{user}")
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("said", [False, True])
def test_encodings_found_and_said(tmp_path: Path, encoding: str, said: bool) -> None:
    (tmp_path / "log.csv").write_bytes(WITH_UMLAUTS.encode(encoding))
    options = {"encoding": encoding} if said else {}
    result = prepared(tmp_path / "log.csv", tmp_path / "store", **options)
    users = result.store.users()
    assert users is not None
    assert set(users["user_id"].to_pylist()) == {f"käse{row[0]}" for row in ROWS}
    assert any("read as Latin-1" in note for note in result.reading.notes) == (
        encoding == "latin-1" and not said
    )


def test_other_encodings_are_said(tmp_path: Path) -> None:
    text = log_text(ROWS, header="用户,item,ts,label", user=lambda user: f"用户{user}")
    (tmp_path / "log.csv").write_bytes(text.encode("gbk"))
    with pytest.raises(UsageError, match=r"no column '用户'.*read as Latin-1; --encoding names"):
        prepared(tmp_path / "log.csv", tmp_path / "a", user="用户")
    result = prepared(tmp_path / "log.csv", tmp_path / "b", user="用户", encoding="gbk")
    assert result.users == len({row[0] for row in ROWS})
    with pytest.raises(UsageError, match=r"log\.csv: is not ascii.*--encoding names another"):
        prepared(tmp_path / "log.csv", tmp_path / "c", header=("user", "item", "ts", "label"),
                 encoding="ascii")  # fmt: skip


@pytest.mark.parametrize("name", ["klingon", "base64"])
def test_an_unknown_encoding(name: str) -> None:
    with pytest.raises(UsageError, match=f"--encoding {name}: unknown; for example utf-8"):
        find_form(b"user", name)


def test_a_few_bytes_of_another_encoding_cost_their_line_only(tmp_path: Path) -> None:
    odd = "7,caf\xe9,1494000000,1\n".encode("latin-1")
    (tmp_path / "log.csv").write_bytes(WITH_UMLAUTS.encode() + odd)
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert result.reading.used == len(ROWS)
    assert result.reading.first_bad == {
        "log.csv: line is not UTF-8": f"line {len(ROWS) + 2}: '7,caf\\xe9,1494000000,1'"
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_line_ends(tmp_path: Path, end: str) -> None:
    (tmp_path / "log.csv").write_bytes(log_text(ROWS, end=end).encode())
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert result.reading.used == result.reading.rows == len(ROWS)


def test_blank_lines_are_counted_apart(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(log_text(ROWS, end="\n \n"))
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert result.reading.used == result.reading.rows == len(ROWS)
    assert result.reading.blank_lines == len(ROWS) + 1


def test_a_nul_byte_costs_its_line_only(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(log_text(ROWS) + "7,\0,1494000000,1\n")
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert result.meta.bad_rows == {"log.csv: line has a NUL byte": 1}


def test_lines_do_not_depend_on_where_blocks_end() -> None:
    data = "ä,1\r\nöö,2\nü".encode("utf-16")
    form = find_form(data)
    for size in range(1, 9):
        # the mark is in the first block, as blocks are megabytes
        blocks = [data[:4], *(data[i : i + size] for i in range(4, len(data), size))]
        found = list(line_blocks(Path("log.csv"), form, blocks))
        assert b"".join(found).decode() == "ä,1\r\nöö,2\nü\n"
        assert all(block.endswith(b"\n") for block in found)


def test_a_file_that_ends_within_a_character() -> None:
    with pytest.raises(UsageError, match=r"log\.csv: is not utf-16-le"):
        list(line_blocks(Path("log.csv"), TextForm("utf-16-le"), [b"a\x00\n\x00b"]))
