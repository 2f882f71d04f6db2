"""Helpers for tests of a script's real run: the script, its start, and what is known about it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from support import COMMAND

PYTHON = sys.executable


def script(folder: Path, text: str) -> Path:
    path = folder / "train.py"
    path.write_text(text)
    return path


def start(folder: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "train", "--out", "run", *map(str, arguments)], cwd=folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(path: Path) -> str:
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        if path.exists() and (text := path.read_text()):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path.name} does not come")


def info(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "run" / "run.json").read_text()))
