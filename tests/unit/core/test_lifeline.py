from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from ctrkit.core import lifeline
from ctrkit.core.lifeline import (
    FIRST_FOLDER,
    FOLDER_VARIABLE,
    SOCKETS_VARIABLE,
    SUPERVISOR_VARIABLE,
    end_with_supervisor,
    make_sockets_folder,
    short_temporary_folder,
    sockets_folder,
)
from ctrkit.supervise.cleanup import remove_sockets


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def armed(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(FIRST_FOLDER), FOLDER_VARIABLE: str(folder)}


def test_a_sitecustomize_that_was_there_before_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.flag = __file__")
    env = armed(tmp_path)
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    print_it = "import sys, sitecustomize; print(sys.flag, sitecustomize.__file__)"
    done = python("-c", print_it, **env)
    assert set(done.stdout.split()) == {str(tmp_path / "sitecustomize.py")}, done.stderr
    (tmp_path / "sitecustomize.py").write_text("import nothing_of_this_name")
    done = python("-c", "print('goes on')", **env)
    assert done.stdout == "goes on\n"
    assert "nothing_of_this_name" in done.stderr


def test_without_a_place_for_them_a_process_runs_unarmed(tmp_path: Path) -> None:
    done = python("-c", "print('goes on')", **armed(tmp_path / "missing"))
    assert (done.stdout, done.stderr) == ("goes on\n", "")


def test_nothing_happens_without_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUPERVISOR_VARIABLE, raising=False)
    end_with_supervisor()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard does it elsewhere")
def test_a_child_whose_supervisor_is_gone_already_ends() -> None:
    code = (
        "from ctrkit.core.lifeline import end_with_supervisor; "
        "end_with_supervisor(); print('alive')"
    )
    gone = os.environ | {SUPERVISOR_VARIABLE: "1"}
    here = os.environ | {SUPERVISOR_VARIABLE: str(os.getpid())}
    for env, output in ((gone, ""), (here, "alive\n")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == output


HAND_OVER = """
import multiprocessing, os, tempfile
from multiprocessing import connection
from ctrkit.core.lifeline import share_sockets_folder
share_sockets_folder()
with connection.Listener(family="AF_UNIX") as listener:
    print(listener.address)
with tempfile.NamedTemporaryFile() as file:
    print(os.path.realpath(file.name))
"""


def test_sockets_are_given_a_short_folder_where_the_temporary_one_has_a_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    run_id = uuid.uuid4().hex
    told = make_sockets_folder(run_id)
    try:
        done = python("-c", HAND_OVER, **told)
        address, file = done.stdout.split()
        assert len(address) < 60, done.stderr
        assert sockets_folder(run_id) == Path(address).parent
        assert sockets_folder(run_id).stat().st_mode & 0o777 == 0o700
        assert Path(file).parent == long.resolve()  # files stay where they were meant to be
    finally:
        remove_sockets(run_id)
    assert long.is_dir()
    assert not sockets_folder(run_id).exists()


def test_a_temporary_folder_with_a_short_name_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Path(tempfile.mkdtemp(dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    try:
        told = make_sockets_folder("0123456789abcdef")
        assert told == {SOCKETS_VARIABLE: str(short / "ctrkit-0123456789ab")}
    finally:
        shutil.rmtree(short)


def test_without_any_short_folder_the_temporary_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr(lifeline, "_SHORT_FOLDERS", ())
    assert short_temporary_folder() is None
    assert sockets_folder("0123456789abcdef").parent == long
