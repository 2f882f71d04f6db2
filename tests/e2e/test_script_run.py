"""The real run of a script: its streams, terminal, signals and exit code are its own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support import COMMAND, Run

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


@pytest.mark.parametrize(
    ("code", "expected", "status"),
    [
        ("raise SystemExit(0)", 0, "done"),
        ("raise SystemExit(3)", 3, "ended"),
        ("import os; os.kill(os.getpid(), 9)", 137, "ended"),
    ],
)
def test_it_ends_with_the_scripts_exit_code(
    ctrkit: Run, tmp_path: Path, code: str, expected: int, status: str
) -> None:
    done = ctrkit("train", "--out", "run", "--", PYTHON, "-c", code)
    assert done.returncode == expected, done.stderr
    assert info(tmp_path)["status"] == status
    words = "SIGKILL" if expected == 137 else f"exit code {expected}"
    assert words in done.stderr.splitlines()[-1]
    assert ctrkit("report", "run").returncode == 0


EARLY = """
import sys, torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.rand(400, 4)), batch_size=4)
model = torch.nn.Linear(4, 1)
for epoch in range(2):
    for i, (x,) in enumerate(loader):
        model(x).mean().backward()
        if i == 30:
            {}
"""


@pytest.mark.parametrize(
    ("ends", "finished", "batches"),
    [
        ("sys.exit(3)", 0, 100),
        ("raise ValueError('diverged')", 0, 100),
        ("break", 2, 31),
        ("epoch and sys.exit(3)", 1, 100),
    ],
)
def test_an_epoch_that_the_end_of_the_script_broke_off_is_not_finished(
    ctrkit: Run, tmp_path: Path, ends: str, finished: int, batches: int
) -> None:
    path = script(tmp_path, EARLY.format(ends))
    done = ctrkit("train", "--out", "run", "--", PYTHON, path)
    assert (done.returncode == 0) == (ends == "break"), done.stderr
    if done.returncode:
        epoch = finished + 1
        # the batch that raises is not done
        count = 30 if "raise" in ends else 31
        assert f"after {count} of 100 batches of epoch {epoch}" in done.stderr.splitlines()[-1]
    about = info(tmp_path)
    sizes, cell = about["sizes"], about["cell"]
    assert isinstance(sizes, dict)
    assert isinstance(cell, dict)
    assert sizes["train_batches"] == batches
    assert (cell["loader"], cell["batch_size"]) == ("script", 4)
    assert f"{finished} finished of 2" in ctrkit("report", "run").stdout


def test_its_streams_pass_unchanged_and_are_kept(tmp_path: Path) -> None:
    code = (
        "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); print('e', file=sys.stderr)"
    )
    data = bytes(range(256)) * 1000
    done = subprocess.run(
        [COMMAND, "train", "--quiet", "--out", "run", "--", PYTHON, "-c", code], cwd=tmp_path,
        input=data, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout == data
    assert done.stderr == b"e\n"
    assert (tmp_path / "run" / "child" / "stdout.txt").read_bytes() == data
    assert (tmp_path / "run" / "child" / "stderr.txt").read_bytes() == b"e\n"


def test_who_stops_reading_ends_the_script_as_usual(tmp_path: Path) -> None:
    code = "import sys\nwhile True: print('x' * 1000)"
    command = f'{COMMAND} train -q --out run -- {PYTHON} -c "$CODE" | head -c 10'
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=os.environ | {"CODE": code}, timeout=60,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.stdout == b"x" * 10
    assert info(tmp_path)["status"] == "ended"


def test_a_reader_that_takes_its_time_gets_all(tmp_path: Path) -> None:
    command = (
        f"{COMMAND} train -q --out run -- {PYTHON} -c \"print('x' * 300000)\" | (sleep 5; wc -c)"
    )
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, timeout=60, capture_output=True, check=False
    )
    assert done.stdout.split() == [b"300001"]
    assert info(tmp_path)["status"] == "done"


def test_streams_that_the_caller_has_closed_are_no_hindrance(tmp_path: Path) -> None:
    closed = f"{COMMAND} train -q --out run -- echo hello >&- <&-"
    done = subprocess.run(
        ["sh", "-c", closed], cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "child" / "stdout.txt").read_text() == "hello\n"


def test_what_a_script_leaves_running_is_told_and_ended(ctrkit: Run, tmp_path: Path) -> None:
    code = "sleep 600 & echo $! > left"
    done = ctrkit("train", "--out", "run", "--", "sh", "-c", code)
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "left").read_text())
    assert f"left pid {pid} (sleep) running" in done.stderr
    assert not psutil.pid_exists(pid)


NOTES_SIGNALS = """
import os, signal, sys, time
def note(number, frame):
    with open("signals", "a") as file:
        file.write(signal.Signals(number).name + "\\n")
    if number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        sys.exit(5)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
open("ready", "w").write(str(os.getpid()))
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_reaches_the_script_which_decides(tmp_path: Path, name: str) -> None:
    run = start(tmp_path, "--", PYTHON, script(tmp_path, NOTES_SIGNALS))
    wait_for(tmp_path / "ready")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        run.send_signal(number)
        time.sleep(0.6)
    run.send_signal(signal.Signals[name])
    _, said = run.communicate(timeout=60)
    assert (tmp_path / "signals").read_text().split() == ["SIGUSR1", "SIGUSR2", name]
    assert run.returncode == 5, said
    assert info(tmp_path)["status"] == "interrupted"
    assert f"{name} is passed on" in said


def test_a_shell_between_does_not_keep_the_signal_from_the_training(tmp_path: Path) -> None:
    path = script(tmp_path, NOTES_SIGNALS)
    run = start(tmp_path, "--", "bash", "-c", f"{PYTHON} {path}; exit $?")
    wait_for(tmp_path / "ready")
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert (tmp_path / "signals").read_text().split() == ["SIGTERM"]


def test_one_that_does_not_end_is_ended_and_nobody_is_left(tmp_path: Path) -> None:
    deaf = "import signal, subprocess, sys, time, os\n" \
           "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" \
           "child = subprocess.Popen(['sleep', '600'])\n" \
           "open('ready', 'w').write(f'{os.getpid()} {child.pid}')\n" \
           "time.sleep(600)\n"  # fmt: skip
    run = start(tmp_path, "--grace", "1s", "--", PYTHON, script(tmp_path, deaf))
    pids = [int(word) for word in wait_for(tmp_path / "ready").split()]
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert "had not ended" in said
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_it_is_run_again_only_if_asked(ctrkit: Run, tmp_path: Path) -> None:
    flaky = "import os, sys\n" \
            "count = len(os.listdir('.'))\n" \
            "open(f'try-{count}', 'w').close()\n" \
            "sys.exit(0 if os.path.exists('run') and len([n for n in os.listdir('.')" \
            " if n.startswith('try')]) == 2 else 4)\n"  # fmt: skip
    path = script(tmp_path, flaky)
    done = ctrkit("train", "--out", "run", "--max-restarts", "3", "--", PYTHON, path)
    assert done.returncode == 0, done.stderr
    incidents = (tmp_path / "run" / "incidents.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in incidents] == ["restarted"]
    assert "1 restart" in str(info(tmp_path)["status_reason"])
    once = ctrkit("train", "--out", "other", "--", PYTHON, path)
    assert once.returncode == 4


def test_one_that_cannot_be_observed_runs_and_is_told_of(ctrkit: Run, tmp_path: Path) -> None:
    done = ctrkit("train", "--out", "run", "--", PYTHON, "-I", "-c", "print('hello')")
    assert done.returncode == 0
    assert done.stdout == "hello\n"
    assert "watches the script from outside only: python -I" in done.stderr
    plain = ctrkit("train", "--out", "other", "--", "echo", "hello")
    assert plain.stdout == "hello\n"
    assert "watches the script from outside only: no Python process" in plain.stderr


def test_no_secret_of_the_command_is_written_down(ctrkit: Run, tmp_path: Path) -> None:
    secret = "s3cr3t-value"
    check = f"import os, sys; sys.exit(sys.argv[2] != '{secret}' or os.environ['X'] != '{secret}')"
    path = script(tmp_path, check.replace(secret, "' + 's3cr3t' + '-value"))
    done = ctrkit(
        "train", "--out", "run", "--env", f"X={secret}", "--", PYTHON, path, "--api-key", secret
    )
    assert done.returncode == 0, done.stderr
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    texts = {file.name: file.read_bytes() for file in files if "observer" not in str(file.parent)}
    assert [name for name, text in texts.items() if secret.encode() in text] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "x", "--", "true"], ["--resume", "script"]),
        (["--max-steps", "3", "--", "true"], ["--max-steps", "script"]),
        (["--device", "cpu", "--", "true"], ["--device", "{device}"]),
        (["--loader", "rows", "--", "true"], ["--loader", "script"]),
        (["--", "true", "{workers}"], ["{workers}", "--workers"]),
        (["--workers", "1,2", "--", "true"], ["one value"]),
        (["--ends-by", "yesterday", "--", "true"], ["--ends-by yesterday", "07:30"]),
        (["--ends-by", "2020-01-01T00:00", "--", "true"], ["past"]),
        (["--ends-by", "6h"], ["--ends-by", "after --"]),
        (["--config", "nowhere.json", "--", "true"], ["nowhere.json"]),
        (["--", "no-such-program"], ["no-such-program"]),
    ],
    ids=" ".join,
)
def test_bad_input(in_process: Run, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = in_process("train", *arguments)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert list(tmp_path.iterdir()) == []


ASKS = """
import getpass, os, signal, sys, time
print("terminals", *[os.isatty(i) for i in (0, 1, 2)], *os.get_terminal_size(), flush=True)
signal.signal(signal.SIGWINCH, lambda *_: print("size", *os.get_terminal_size(), flush=True))
print("hello", input("name? "), flush=True)
print("length", len(getpass.getpass("secret? ")), flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
"""


class Terminal:
    """A terminal of 30 x 100 in which the command runs, and what it has shown so far."""

    def __init__(
        self, folder: Path, *arguments: str | Path, command: list[str] | None = None
    ) -> None:
        argv = command or [str(COMMAND), "train", "--out", "run", *map(str, arguments)]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ["TERM"] = "dumb"
            os.execv(argv[0], argv)
        self.resize(30, 100)
        self.mode = termios.tcgetattr(self.fd)
        self.shown = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def read_until(self, words: str) -> None:
        self._read(lambda: words in self.shown)
        assert words in self.shown, self.shown

    def _read(self, enough: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s and not enough():
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 4096)
                except OSError:
                    return
                self.shown += data.decode(errors="replace")
                if not data:
                    return

    def exit_code(self) -> int:
        mode = termios.tcgetattr(self.fd)
        self._read(lambda: False)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        assert mode is not None
        return code


def test_its_terminal_is_its_own(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--", PYTHON, script(tmp_path, ASKS))
    terminal.read_until("name? ")
    assert "terminals True True True 100 30" in terminal.shown
    terminal.type("Bob\r")
    terminal.read_until("hello Bob")
    terminal.read_until("secret? ")
    terminal.resize(40, 120)
    terminal.read_until("size 120 40")
    terminal.type("abcdef\r")
    terminal.read_until("length 6")
    assert "abcdef" not in terminal.shown
    assert "\x1b" not in terminal.shown  # TERM says that it understands no such thing
    terminal.type("\x03")
    assert terminal.exit_code() == 7, terminal.shown
    kept = (tmp_path / "run" / "child" / "stdout.txt").read_text()
    assert "hello Bob" in kept
    assert "ctrkit:" not in kept


def test_ctrl_z_stops_the_script_with_us(tmp_path: Path) -> None:
    path = script(tmp_path, "import time\nfor i in range(20):\n"
                            "    print('tick', i, flush=True); time.sleep(0.2)\n")  # fmt: skip
    line = (
        f"set -m; {COMMAND} train -q --out run -- {PYTHON} {path}; echo stopped; sleep 2;"
        " fg > /dev/null; echo ended $?"
    )
    terminal = Terminal(tmp_path, command=["/bin/bash", "-c", line])
    terminal.read_until("tick 3")
    terminal.type("\x1a")
    assert terminal.exit_code() == 0
    before, _, after = terminal.shown.partition("stopped")
    last = before.count("tick")
    assert 4 <= last < 20
    assert after.split()[:2] == ["tick", str(last)]  # nothing came while it was stopped
    assert "ended 0" in after


def test_our_terminal_is_given_back_as_it_was(tmp_path: Path) -> None:
    """A shell around it, so that the terminal is still there afterwards."""
    path = script(tmp_path, "print('trained')")
    line = f"stty -a > before; {COMMAND} train -q --out run -- {PYTHON} {path}; stty -a > after"
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv("/bin/sh", ["/bin/sh", "-c", line])
    shown = b""
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.waitpid(pid, 0)
    os.close(fd)
    assert shown == b"trained\r\n"
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()


def test_auto_device_trains_as_written_where_a_brief_probe_sees_no_training(
    ctrkit: Run, tmp_path: Path
) -> None:
    path = script(tmp_path, "print('trained without torch')")
    done = ctrkit("train", "--auto-device", "--out", "run", "--", PYTHON, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained without torch\n"
    assert "probed briefly first" in done.stderr
    assert "as written: nothing of the script is changed. --auto-device found nothing better: " in (
        done.stderr
    )
    assert info(tmp_path)["status"] == "done"


GRACEFUL = """
import signal, sys, time
open("ready", "w").write("x")
try:
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    print("stopped by the user, saved", flush=True)
"""


def test_a_script_that_ends_well_after_ctrl_c_ends_ctrkit_well(tmp_path: Path) -> None:
    run = start(tmp_path, "--", PYTHON, script(tmp_path, GRACEFUL))
    wait_for(tmp_path / "ready")
    run.send_signal(signal.SIGINT)
    out, said = run.communicate(timeout=60)
    assert (run.returncode, out) == (0, "stopped by the user, saved\n"), said
    assert info(tmp_path)["status"] == "interrupted"


JOBS = {
    "slurm": lambda: {"SLURM_JOB_ID": "77", "SLURM_JOB_END_TIME": str(int(time.time()) + 90)},
    "ends-by": dict,
}


@pytest.mark.parametrize("job", JOBS)
def test_a_run_that_a_job_ends_is_told_before_and_gets_the_schedulers_signals(
    tmp_path: Path, job: str
) -> None:
    """As Slurm does with `--signal=USR1@60`: SIGUSR1 first, SIGTERM at the end."""
    options = ["--ends-by", "90s"] if job == "ends-by" else []
    run = subprocess.Popen(
        [COMMAND, "train", "--out", "run", *options, "--", PYTHON, script(tmp_path, NOTES_SIGNALS)],
        cwd=tmp_path, text=True, env={**os.environ, **JOBS[job]()}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(tmp_path / "ready")
    run.send_signal(signal.SIGUSR1)
    time.sleep(0.6)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert (tmp_path / "signals").read_text().split() == ["SIGUSR1", "SIGTERM"]
    assert run.returncode == 5, said
    by = "the end of Slurm job 77" if job == "slurm" else "--ends-by 90s"
    assert f"ctrkit: {by} leaves 1 min" in said


def test_the_walltime_of_a_pbs_job_is_known(ctrkit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBS_JOBID", "12.server")
    monkeypatch.setenv("PBS_WALLTIME", "999:00:00")
    done = ctrkit("train", "--out", "run", "--", PYTHON, "-c", "pass")
    assert done.returncode == 0, done.stderr
    assert "ctrkit: the walltime of PBS job 12 leaves" in done.stderr
