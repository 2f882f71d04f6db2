"""What is read besides stacks: locks, permissions, macOS's `sample`, Python 3.14's own way."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from ctrkit.supervise.explain import stack_readers
from ctrkit.supervise.explain.endpoints import Ends, lock_owners
from ctrkit.supervise.explain.macos import parse_sample
from ctrkit.supervise.explain.permissions import Access, missing
from ctrkit.supervise.explain.stack_readers import by_remote_exec

LOCKS = """\
1: FLOCK  ADVISORY  WRITE 700 fd:01:5678 0 EOF
1: -> FLOCK  ADVISORY  WRITE 701 fd:01:5678 0 EOF
2: POSIX  ADVISORY  READ 650 00:1b:1171 1073741826 1073742335
3: OFDLCK ADVISORY  WRITE -1 fd:01:99 0 EOF
3: -> OFDLCK ADVISORY  WRITE 702 fd:01:99 0 EOF
"""


def test_who_waits_for_a_file_lock_and_who_holds_it() -> None:
    assert lock_owners(LOCKS) == {701: 700}
    assert lock_owners("garbage\n1: ->\n") == {}


def test_targets_in_words() -> None:
    ends = Ends(
        holders={"pipe:[5]": [1, 2], "socket:[6]": [1], "pipe:[7]": [1]},
        names={2: "pt_data_worker"}, peers={"socket:[6]": "10.0.0.1:2049"}, owners={1: 2},
    )  # fmt: skip
    assert ends.words(1, "pipe:[5]") == "a pipe shared with pid 2 (pt_data_worker)"
    assert ends.words(1, "pipe:[7]") == "a pipe that no other process has open"
    assert ends.words(1, "socket:[6]") == "a socket to 10.0.0.1:2049"
    assert ends.words(1, "/data/x.lock") == "/data/x.lock, held by pid 2 (pt_data_worker)"
    assert ends.words(3, "/data/x.lock") == "/data/x.lock"


DENIED = "Permission denied (os error 13)"
ACCESS = Access(pid=7, py_spy="/opt/py-spy", ctrkit="/opt/ctrkit")


@pytest.mark.parametrize(
    ("access", "problem", "says", "command"),
    [
        (dataclasses.replace(ACCESS, py_spy=None), "", "not installed", "pip install py-spy"),
        (dataclasses.replace(ACCESS, ptrace_scope=1), DENIED, "ptrace_scope is 1",
         "sudo /opt/ctrkit explain 7"),
        (dataclasses.replace(ACCESS, ptrace_scope=2), DENIED, "ptrace_scope is 2",
         "sudo tee /proc/sys/kernel/yama/ptrace_scope"),
        (dataclasses.replace(ACCESS, container=True, ptrace_scope=1), DENIED, "SYS_PTRACE",
         "--cap-add=SYS_PTRACE"),
        (dataclasses.replace(ACCESS, protected=True, container=True), DENIED, "own user",
         "sudo /opt/py-spy dump --pid 7"),
        (dataclasses.replace(ACCESS, system="Darwin"), DENIED, "macOS",
         "sudo /opt/py-spy dump --pid 7"),
    ],
)  # fmt: skip
def test_what_is_missing_and_the_command_that_gives_it(
    access: Access, problem: str, says: str, command: str
) -> None:
    found = missing(access, problem)
    assert says in found.what
    assert any(command in one for one in found.commands), found.commands


def test_what_no_command_gives() -> None:
    assert missing(dataclasses.replace(ACCESS, ptrace_scope=3), DENIED).commands == ()
    assert missing(ACCESS, "Unsupported version of Python").what == "Unsupported version of Python"


SAMPLE = """\
Analysis of sampling python3.11 (pid 77) every 1 millisecond
Process:         python3.11 [77]

Call graph:
    857 Thread_101   DispatchQueue_1: com.apple.main-thread  (serial)
    + 857 start  (in dyld) + 1942  [0x18f]
    +   857 Py_BytesMain  (in Python) + 40  [0x10]
    +     857 time_sleep  (in Python) + 120  [0x11]
    +       856 __semwait_signal  (in libsystem_kernel.dylib) + 8  [0x12]
    +       1 clock_gettime  (in libsystem_c.dylib) + 9  [0x13]
    857 Thread_102
    + 857 thread_start  (in libsystem_pthread.dylib) + 8  [0x14]
    +   857 __psynch_cvwait  (in libsystem_kernel.dylib) + 8  [0x15]

Total number in stack (recursive counted multiple, when >=5):
"""


def test_macos_sample_tells_what_the_main_thread_waits_for() -> None:
    wait = parse_sample(SAMPLE, 77)
    assert wait is not None
    assert (wait.syscall, wait.library) == ("nanosleep", "libsystem_kernel.dylib")
    assert parse_sample(SAMPLE.replace("__semwait_signal", "_PyEval_Eval"), 77) is None
    assert parse_sample("", 77) is None


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def interpreter(folder: Path, body: str) -> str:
    """Stands for Python 3.14: `sys.remote_exec` is what `body` says of the script's path."""
    program = folder / "python3.14"
    program.write_text(f"#!{sys.executable}\nimport re, sys\n"
                       "path = re.search(r\"'(.+ask.py)'\", sys.argv[-1])[1]\n" + body)  # fmt: skip
    program.chmod(0o755)
    return str(program)


def test_python_3_14_is_asked_for_its_stacks(own_temporary_folder: Path) -> None:
    run = "def where_it_stands():\n    exec(compile(open(path).read(), path, 'exec'))\n"
    program = interpreter(own_temporary_folder, f"{run}where_it_stands()\n")
    found = by_remote_exec(1, program)
    assert found.by == "sys.remote_exec", found.problem
    assert [frame.function for frame in found.threads[-1]] == ["where_it_stands", "<module>"]
    assert list(own_temporary_folder.glob("ctrkit-explain-*")) == []


def test_one_that_runs_no_python_code_is_not_waited_for_and_does_nothing_later(
    own_temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack_readers, "_REMOTE_S", 0.2)
    found = by_remote_exec(1, interpreter(own_temporary_folder, ""))
    assert found.threads == ()
    assert "cannot answer" in found.problem
    (script,) = own_temporary_folder.glob("ctrkit-explain-*/ask.py")
    exec(compile(script.read_text(), str(script), "exec"), {})  # it comes to it at last
    assert list(script.parent.iterdir()) == []
    shutil.rmtree(script.parent)


def test_a_refusal_is_told(own_temporary_folder: Path) -> None:
    refuses = "raise PermissionError('not permitted')\n"
    found = by_remote_exec(1, interpreter(own_temporary_folder, refuses))
    assert found.problem == "sys.remote_exec: PermissionError: not permitted"
