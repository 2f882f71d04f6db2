"""A lock that a process holds, with a real second process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctrkit.core.errors import UsageError
from ctrkit.core.locks import LOCK, only_writer

HOLDER = """
import sys, time
from pathlib import Path
from ctrkit.core.locks import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_told_who_holds_it(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    words = rf"another ctrkit train \(pid {holder.pid}\) is writing into it"
    with pytest.raises(UsageError, match=words), only_writer(tmp_path):
        pass


def test_it_comes_back_when_the_holder_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    timer = threading.Timer(0.3, holder.kill)
    timer.start()
    with only_writer(tmp_path, wait_s=20):
        assert (tmp_path / LOCK).read_text() == str(os.getpid())
    timer.join()


def test_neither_a_file_nor_a_forked_process_holds_it(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("1")
    with only_writer(tmp_path):
        sleeper = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        done = subprocess.run(
            [sys.executable, "-c", HOLDER.replace("time.sleep(60)", ""), str(tmp_path)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    finally:
        sleeper.kill()
        sleeper.wait()
    assert (done.returncode, done.stdout) == (0, "held\n"), done.stderr


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    words = "missing: cannot be written"
    with pytest.raises(UsageError, match=words), only_writer(tmp_path / "missing"):
        pass
