"""Files written whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ctrkit.child.script.json_files import is_first
from ctrkit.core.errors import UsageError
from ctrkit.core.files import (
    finite,
    folder_aside,
    is_one_place,
    plain_disk_errors,
    read_json,
    read_table,
    write_atomically,
    write_json,
    write_table,
)
from ctrkit.core.locks import locked


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def no_space(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("ctrkit.core.files.os.fsync", no_space)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_has_no_nan(tmp_path: Path) -> None:
    assert finite({"a": [1.0, float("nan")], "b": float("inf")}) == {"a": [1.0, None], "b": None}
    write_json(tmp_path / "n.json", {"a": float("nan")})
    assert json.loads((tmp_path / "n.json").read_text()) == {"a": None}


@pytest.mark.parametrize("umask", [0o002, 0o022, 0o027, 0o077])
def test_what_is_written_has_the_modes_that_the_user_wants(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a", b"x")
        write_json(tmp_path / "b.json", {})
        write_table(tmp_path / "c.parquet", pa.table({"x": [1]}))
        with folder_aside(tmp_path / "store") as aside:
            (aside / "d").write_text("x")
        with locked(tmp_path / "lock"):
            pass
        assert is_first(str(tmp_path / "first"))
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes.pop("store") == 0o777 & ~umask
    assert set(modes.values()) == {0o666 & ~umask}


def test_a_path_that_is_no_text_can_be_read(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes names of UTF-8 only")
    write_table(folder / "t.parquet", pa.table({"x": [1]}))
    assert read_table(folder / "t.parquet").to_pylist() == [{"x": 1}]


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="gone.json: no such file"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UsageError, match="bad.json: cannot be read"):
        read_json(tmp_path / "bad.json")
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(UsageError, match="bad.parquet: cannot be read"):
        read_table(tmp_path / "bad.parquet")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), folder_aside(tmp_path / "store") as aside:
        (aside / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "store").mkdir()
    with folder_aside(tmp_path / "store") as aside:
        (aside / "whole").write_text("x")
        assert not (tmp_path / "store" / "whole").exists()
    assert (tmp_path / "store" / "whole").read_text() == "x"
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_what_the_disk_refuses_is_one_line_and_nothing_else_is(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = "run: cannot be written: No space.*--resume /"
    with pytest.raises(UsageError, match=words), plain_disk_errors(run, resume=run):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ProcessLookupError), plain_disk_errors(run):
        raise ProcessLookupError(errno.ESRCH, "No such process")


def test_a_folder_that_is_gone_is_one_line_and_a_missing_program_is_not(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "last.pt"
    with pytest.raises(UsageError, match="cannot be written: No such"), plain_disk_errors(path):
        write_atomically(path, b"")
    with pytest.raises(FileNotFoundError), plain_disk_errors(path):
        raise FileNotFoundError(errno.ENOENT, "No such file", "/usr/bin/python9")


def test_a_name_that_is_no_text_survives_in_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"bad\xff.csv")
    write_json(tmp_path / "a.json", {"table": name})
    assert read_json(tmp_path / "a.json") == {"table": name}


def test_two_streams_of_one_pipe_are_one_place(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with (
        open(writer, "w") as one, open(os.dup(writer), "w") as same,
        open(tmp_path / "file", "w") as other, open(reader),
    ):  # fmt: skip
        assert is_one_place(one, same)
        assert not is_one_place(one, other)
        assert not is_one_place(one, io.StringIO())
        assert not is_one_place(one, None)


COUNTS_THREADS = """
import os, sys
from pathlib import Path
import pyarrow as pa
from ctrkit.core.files import read_table, write_table
path = Path(sys.argv[1])
write_table(path, pa.table({"x": [1, 2, 3]}))
before = len(os.listdir("/proc/self/task"))
read_table(path)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_reading_a_table_starts_no_thread_that_could_abort_the_end_of_a_process(
    tmp_path: Path,
) -> None:
    argv = [sys.executable, "-c", COUNTS_THREADS, str(tmp_path / "t.parquet")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
