"""Nothing breaks on a terminal that shows ASCII only, or with brackets in names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASCII = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": ""}
NAME = "l\u00f6g [red]x[/] \u7528.csv".replace("/", "")


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "ctrkit", *arguments],
        cwd=folder, capture_output=True, timeout=120, env={**os.environ, **ASCII}, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr
    assert done.stdout.isascii()
    assert done.stderr.isascii()
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ascii")
    rows = "".join(f"\u00e9{n % 7},{n % 5},{1494000000 + n},{n % 2}\n" for n in range(60))
    (folder / NAME).write_text("user,item,ts,label\n" + rows, encoding="utf-8")
    return folder


def test_data_is_prepared_and_shown(folder: Path) -> None:
    columns = ("--user", "user", "--item", "item", "--time", "ts", "--label", "label")
    done = _run(folder, "data", "prepare", "--table", NAME, *columns, "--out", "st\u00f6re")
    assert done.returncode == 0
    assert rb"Store st\xf6re" in done.stdout
    assert rb"l\xf6g [red]x[] \u7528" in done.stdout
    assert _run(folder, "data", "info", "st\u00f6re").returncode == 0
    gone = _run(folder, "data", "prepare", "--table", "no [bold]\u00e9", *columns, "--out", "s2")
    assert gone.returncode == 2
    assert rb"ctrkit: no [bold]\xe9: no file has such a name" in gone.stderr


@pytest.mark.parametrize(
    "arguments",
    [(), ("--help",), ("probe", "--help"), ("train", "--help"), ("report", "--help"),
     ("doctor", "--help"), ("explain", "--help"), ("data", "prepare", "--help"),
     ("report", "[red]\u00e9"), ("explain", "\u00e9"), ("probe", "--workload", "\u00e9[b].py:x"),
     ("doctor", "--workload", "\u00e9[b].py:x"), ("report", "--list"), ("report", "--calibration"),
     ("train", "--config", "\u00e9[b].json")],
)  # fmt: skip
def test_every_command_speaks_ascii(folder: Path, arguments: tuple[str, ...]) -> None:
    done = _run(folder, *arguments)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode in (0, 2)
    for given in arguments:
        if not given.isascii():
            assert given.encode("ascii", "backslashreplace").decode() in said
