"""The tool that keeps the machine awake is ended and reaped; a refusal is reported."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from ctrkit.supervise import awake
from ctrkit.supervise.awake import Awake, hold_command

# as `systemd-inhibit ... cat` does: there until its input ends
READS = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def children() -> set[int]:
    return {process.pid for process in psutil.Process().children()}


def until_told(held: Awake) -> str:
    deadline_s = time.monotonic() + 60
    while not held.problem() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return held.problem()


def test_the_systems_own_tools_are_used() -> None:
    assert hold_command("darwin", 42) == ["caffeinate", "-i", "-w", "42"]
    linux = hold_command("linux", 42)
    assert linux[:3] == ["systemd-inhibit", "--what=idle:sleep", "--mode=block"]
    assert linux[-1] == "cat"


def test_it_holds_and_is_gone_afterwards() -> None:
    before = children()
    with Awake(READS) as held:
        (pid,) = children() - before
        assert held.problem() == ""
    assert not psutil.pid_exists(pid)
    assert children() == before


def test_it_is_gone_after_an_error_too() -> None:
    before = children()
    with pytest.raises(RuntimeError), Awake(READS):
        raise RuntimeError
    assert children() == before


def test_one_that_does_not_heed_its_input_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awake, "_END_S", 0.2)
    before = children()
    with Awake([sys.executable, "-c", "import time; time.sleep(600)"]):
        assert len(children() - before) == 1
    assert children() == before


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('first\\nFailed to inhibit: Access denied')", "Access denied"),
        ("import sys; sys.exit(3)", "ended with exit code 3"),
    ],
)
def test_a_refusal_is_told_in_its_own_words(code: str, words: str) -> None:
    with Awake([sys.executable, "-c", code]) as held:
        assert words in until_told(held)


def test_a_tool_that_is_not_there_is_told_of() -> None:
    with Awake(["no-such-tool-anywhere"]) as held:
        assert held.problem() == "there is no no-such-tool-anywhere"


def test_it_ends_with_a_holder_that_is_killed() -> None:
    code = (
        "import sys, time\n"
        "from ctrkit.supervise.awake import Awake\n"
        f"with Awake({READS!r}) as held:\n"
        "    print(held._process.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    tool = psutil.Process(int(holder.stdout.readline()))
    holder.kill()
    holder.communicate()
    deadline_s = time.monotonic() + 60
    while _runs(tool) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not _runs(tool)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
