"""The recorded environment: never more than the allow-list."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ctrkit.core.environment
from ctrkit.core.environment import (
    began_unix_s,
    describe_code,
    describe_environment,
    performance_cores,
    with_torch,
)


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    git(tmp_path, "checkout", "-q", "-b", "faster-loader")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_branch_and_commit_of_the_working_folder(repository: Path) -> None:
    found = describe_environment()["git"]
    assert found["branch"] == "faster-loader"
    assert len(found["commit"]) >= 7
    git(repository, "checkout", "-q", "--detach")
    assert describe_code() == {"commit": found["commit"]}


def test_without_a_repository_nothing_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "git" not in describe_environment()


def test_a_git_that_is_missing_or_does_not_answer_is_no_reason_to_fail(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    assert describe_code() == {}
    (tools / "git").write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (tools / "git").chmod(0o755)
    monkeypatch.setattr(ctrkit.core.environment, "_GIT_S", 0.2)
    assert describe_code() == {}


def test_what_is_not_on_the_list_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-write")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    found = describe_environment()
    assert found["variables"]["OMP_NUM_THREADS"] == "3"
    assert "do-not-write" not in str(found)


def test_a_process_that_ended_has_not_begun() -> None:
    began_s = began_unix_s(os.getpid())
    assert began_s is not None
    assert 0 <= time.time() - began_s < 7 * 86400
    process = subprocess.Popen([sys.executable, "-c", ""])
    pid = process.pid
    deadline_s = time.monotonic() + 60
    while began_unix_s(pid) is not None and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert began_unix_s(pid) is None  # not waited for yet: a zombie runs no more
    process.wait()
    assert began_unix_s(pid) is None


@pytest.mark.parametrize(
    ("system", "said", "cores"),
    [
        ("darwin", "2\n6\n", 6),  # M3 Pro: 6 fast, 6 slow
        ("darwin", "1\n8\n", None),  # one kind
        ("darwin", "", None),  # an Intel Mac does not know these names
        ("darwin", "sysctl: unknown oid", None),
        ("linux", "2\n6\n", None),
    ],
)
def test_only_a_processor_with_two_kinds_of_cores_has_performance_cores(
    system: str, said: str, cores: int | None
) -> None:
    assert performance_cores(system, lambda command: said) == cores


def test_a_script_has_a_torch_of_its_own_or_an_unknown_one() -> None:
    known = {"machine": {"system": "Linux"}, "versions": {"python": "3.11", "torch": "2.13"}}
    assert with_torch(known, "2.4.1")["versions"] == {"python": "3.11", "torch": "2.4.1"}
    assert with_torch(known, "")["versions"] == {"python": "3.11"}
    assert with_torch(known, "")["machine"] == known["machine"]
