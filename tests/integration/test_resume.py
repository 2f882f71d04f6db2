"""Real runs that are killed, damaged or hindered, and what `--resume` does with them."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import COMMAND

from ctrkit.cli.app import run_command
from ctrkit.ctr.data.synthetic import generate_store

LOOPS = Path(__file__).parent / "children" / "resumable.py"
SIZE = {"rows": 2500, "users": 150, "items": 300}
OPTIONS = (
    "--set", "model=bst", "--set", "history_length=8", "--batch-size", "128", "--threads", "1",
    "--epochs", "2", "--checkpoint-every", "0.05s", "--quiet",
)  # fmt: skip
SEEN = [epoch * 1000 + batch for epoch in (1, 2) for batch in range(40)]

Start = Callable[..., "subprocess.Popen[str]"]
Refused = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With two stores of other content, and a run of two epochs that nobody interrupted."""
    made = tmp_path_factory.mktemp("resume")
    for name, seed in (("store", 1), ("other", 2)):
        generate_store(made / name, seed=seed, **SIZE)
    done = ctrkit(made, "train", "--data", "store", *OPTIONS, "--out", "whole")
    assert done.returncode == 0, done.stderr
    return made


def ctrkit(where: Path, *arguments: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *map(str, arguments)],
        cwd=where, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
        env=os.environ | {"CTRKIT_HOME": str(where / "home")}, **more,
    )  # fmt: skip


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts commands; what is left of them at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(where: Path, *arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [COMMAND, *map(str, arguments)],
            cwd=where, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=os.environ | {"CTRKIT_HOME": str(where / "home")},
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.0005)


def kill_family(process: subprocess.Popen[str]) -> None:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        member.kill()
    process.communicate(timeout=60)
    psutil.wait_procs(family[1:], timeout=60)


def state(path: Path) -> dict[str, Any]:
    """A checkpoint without its times."""
    import torch

    found = torch.load(path, weights_only=True)
    for timed in (found["position"], *found["position"]["history"]):
        timed.pop("wall_s")
    return dict(found)


def equal(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other) or (one != one and other != other)


def assert_same_run(run: Path, whole: Path) -> None:
    rows = []
    for path in (run, whole):
        with open(path / "epochs.csv", newline="") as file:
            rows.append([{**row, "wall_s": ""} for row in csv.DictReader(file)])
    assert rows[0] == rows[1]
    for name in ("last.pt", "best.pt"):
        assert equal(state(run / "checkpoints" / name), state(whole / "checkpoints" / name)), name


def test_killed_inside_a_checkpoint_write_and_resumed_with_all_else_changed(
    folder: Path, start: Start
) -> None:
    """The last checkpoint is damaged, the data have moved, and another cell goes on."""
    process = start(folder, "train", "--data", "store", *OPTIONS, "--out", "cut")
    checkpoints = folder / "cut" / "checkpoints"
    wait_for((checkpoints / "previous.pt").exists, process)
    wait_for(lambda: any(checkpoints.glob(".last.pt.*")), process)
    kill_family(process)
    last = checkpoints / "last.pt"
    content = last.read_bytes()
    middle = len(content) // 2
    last.unlink()  # it may just now be the same file as previous.pt
    last.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    shutil.copytree(folder / "store", folder / "moved")
    cell = ("--workers", "1", "--start-method", "fork")
    done = ctrkit(folder, "train", "--resume", "cut", "--data", "moved", *cell, "--quiet")
    assert done.returncode == 0, done.stderr
    assert "last.pt is damaged (kept as last.pt.damaged)" in done.stderr
    assert "continuing from previous.pt, the one before" in done.stderr
    assert_same_run(folder / "cut", folder / "whole")
    assert not list(checkpoints.glob(".last.pt.*"))


def test_killed_before_the_first_checkpoint(folder: Path, start: Start) -> None:
    process = start(folder, "train", "--data", "store", *OPTIONS, "--out", "early")
    wait_for((folder / "early" / "child" / "progress.bin").exists, process)
    kill_family(process)
    assert not (folder / "early" / "checkpoints" / "last.pt").exists()
    done = ctrkit(folder, "train", "--resume", "early", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "nothing was saved yet: it starts at its first step" in done.stderr
    assert_same_run(folder / "early", folder / "whole")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--data", "other"), "trained on data"),
        (("--set", "model=bst", "--set", "dropout=0.5"), "its dropout is 0.3, not 0.5"),
        (("--phase", "phase1"), "its lr is 0.0003, not 0.001"),
        (("--batch-size", "64"), "its batch size is 128, not 64"),
    ],
)
def test_another_experiment_is_refused_and_changes_nothing(
    folder: Path, option: tuple[str, ...], words: str, refused: Refused
) -> None:
    def content() -> dict[str, bytes]:
        files = [path for path in (folder / "whole").rglob("*") if path.name != ".lock"]
        return {str(path): path.read_bytes() for path in files if path.is_file()}

    before = content()
    assert words in refused("train", "--resume", "whole", *option)
    assert content() == before


def test_data_that_were_built_anew_are_refused_before_and_after_the_first_checkpoint(
    folder: Path, refused: Refused
) -> None:
    shutil.copytree(folder / "whole", folder / "rebuilt")
    spec_path = folder / "rebuilt" / "child" / "spec.json"
    spec = json.loads(spec_path.read_text())
    spec["workload"]["data"] = str(folder / "other")
    spec_path.write_text(json.dumps(spec))
    assert "it was trained on data" in refused("train", "--resume", "rebuilt")
    shutil.rmtree(folder / "rebuilt" / "checkpoints")
    assert "it was trained on data" in refused("train", "--resume", "rebuilt")


@pytest.fixture
def refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refused:
    """Run a command in this process, as it comes to no child; the one line that it says."""

    def run(*arguments: str) -> str:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["ctrkit", *arguments])
        assert run_command() == 2
        words = capsys.readouterr().err
        assert words.count("\n") == 1, words
        return words

    return run


def seen(run: Path) -> list[int]:
    import torch

    return list(torch.load(run / "checkpoints" / "last.pt", weights_only=True)["task"]["seen"])


def own(name: str, run: Path | str, every: str = "0.1s") -> list[str]:
    return [
        "train", "--workload", f"{LOOPS}:{name}", "--out", str(run), "--epochs", "2",
        "--checkpoint-every", every,
    ]  # fmt: skip


def test_two_into_the_same_folder_at_once(tmp_path: Path, start: Start) -> None:
    first = start(tmp_path, *own("Growing", "run"))
    wait_for((tmp_path / "run" / "checkpoints" / "last.pt").exists, first)
    second = ctrkit(tmp_path, "train", "--resume", "run")
    assert (second.returncode, second.stderr.count("\n")) == (2, 1), second.stderr
    assert f"another ctrkit train (pid {first.pid}) is writing into it" in second.stderr
    second = ctrkit(tmp_path, *own("Growing", "run"))
    assert second.returncode == 2
    assert "not empty" in second.stderr
    _, words = first.communicate(timeout=120)
    assert first.returncode == 0, words
    assert seen(tmp_path / "run") == SEEN


def test_a_file_that_may_grow_no_more(tmp_path: Path) -> None:
    limit = 40 * 30_000  # reached in the first epoch: its state grows by 40,000 bytes a step

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = ctrkit(tmp_path, *own("Growing", "run"), "--quiet", preexec_fn=limited)
    assert_full(tmp_path / "run", done, "File too large")


def assert_full(run: Path, done: subprocess.CompletedProcess[str], words: str) -> None:
    """It was ended in one line, and what was saved before is whole."""
    assert done.returncode == 2, done.stderr
    assert words in done.stderr.splitlines()[-1]
    assert "what was saved before is whole" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("the checkpoint could not be written") < 9  # told, but not each time
    assert "Training continues; the last good checkpoint is kept" in done.stderr
    incidents = [json.loads(line) for line in (run / "incidents.jsonl").read_text().splitlines()]
    assert [one["verdict"] for one in incidents] == ["not saved"]
    assert len((run / "epochs.csv").read_text().splitlines()) == 3  # it was trained to its end
    saved = len(seen(run))
    assert 0 < saved < 40
    assert not list((run / "checkpoints").glob(".last.pt.*"))


def test_a_file_system_without_room(disk: Callable[[str], Path], tmp_path: Path) -> None:
    run = disk("size=3m") / "run"
    done = ctrkit(tmp_path, *own("Growing", run), "--quiet")
    assert_full(run, done, "No space left on device")
    disk("remount,size=80m")
    done = ctrkit(tmp_path, "train", "--resume", str(run), "--quiet")
    assert done.returncode == 0, done.stderr
    assert seen(run) == SEEN


def warning_of(process: subprocess.Popen[str]) -> str:
    """The line with which it says that it could not save."""
    assert process.stderr is not None
    return next(line for line in process.stderr if "WARNING" in line)


def test_a_file_system_that_is_given_room_in_time(
    disk: Callable[[str], Path], tmp_path: Path, start: Start
) -> None:
    run = disk("size=2m") / "run"
    process = start(tmp_path, *own("Growing", run), "--quiet")
    assert "No space left on device" in warning_of(process)
    disk("remount,size=80m")
    _, words = process.communicate(timeout=120)
    assert process.returncode == 0, words
    assert "the checkpoint could be written again" in words
    assert seen(run) == SEEN


def test_ctrl_c_on_a_full_disk_says_what_is_not_saved(
    disk: Callable[[str], Path], tmp_path: Path, start: Start
) -> None:
    run = disk("size=2m") / "run"
    process = start(tmp_path, *own("Growing", run), "--quiet")
    assert "Training continues" in warning_of(process)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 2, words  # and not 130: its state is not saved
    last = words.splitlines()[-1]
    assert "cannot be written: No space left on device" in last
    assert "what was trained since the last checkpoint is not saved" in last


def test_a_file_system_that_became_read_only(
    disk: Callable[[str], Path], tmp_path: Path, start: Start
) -> None:
    run = disk("size=40m") / "run"
    done = ctrkit(tmp_path, *own("Growing", run), "--max-steps", "20", "--quiet")
    assert done.returncode == 0, done.stderr
    disk("remount,ro")
    done = ctrkit(tmp_path, "train", "--resume", str(run), "--epochs", "2")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "cannot be written: Read-only file system" in done.stderr
    disk("remount,rw")
    assert seen(run) == SEEN[:20]


@pytest.mark.parametrize("command", ["probe", "train"])
@pytest.mark.parametrize("room", ["size=4k", "size=40k"])
def test_a_disk_that_is_full_from_the_start_is_one_line(
    disk: Callable[[str], Path], tmp_path: Path, command: str, room: str
) -> None:
    run = disk(room) / "run"
    options = own("Growing", run)[1:5]
    more = ["--budget", "20s", "--workers", "0"]
    options += more if command == "probe" else ["--checkpoint-every", "1s"]
    done = ctrkit(tmp_path, command, *options, "--quiet")
    assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ctrkit: ")
    assert "cannot be written: No space left on device" in said
    if command == "probe":
        assert done.stderr.count("\n") == 1
        assert "free some space, or name a folder on another disk with --out" in said
    else:
        assert "what was saved before" not in said


def test_a_log_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [COMMAND, *own("Growing", tmp_path / "run"), "--max-steps", "20"],
            cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=full, stderr=full, timeout=120,
            env=os.environ | {"CTRKIT_HOME": str(tmp_path / "home")},
        )  # fmt: skip
    assert done.returncode == 0
    assert seen(tmp_path / "run") == SEEN[:20]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of one's own in memory; called with the options of `mount`."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "ctrkit-test", place],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small file system")
    yield mount
    subprocess.run(["umount", "-l", place], capture_output=True, timeout=60)


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write into any folder")
    done = ctrkit(tmp_path, *own("Growing", "run"), "--max-steps", "20", "--quiet")
    assert done.returncode == 0, done.stderr
    (tmp_path / "run").chmod(0o555)
    try:
        done = ctrkit(tmp_path, "train", "--resume", "run", "--epochs", "2")
    finally:
        (tmp_path / "run").chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert "cannot be written: Permission denied" in done.stderr


def test_ctrl_c_once_waits_for_the_step_and_twice_does_not(tmp_path: Path, start: Start) -> None:
    process = start(tmp_path, *own("Sticking", "run", every="0.01s"))
    last = tmp_path / "run" / "checkpoints" / "last.pt"
    wait_for(lambda: last.exists() and len(seen(tmp_path / "run")) == 10, process)
    process.send_signal(signal.SIGINT)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 130, words
    assert "finishing the step and saving; Ctrl-C again: stop now" in words
    assert f"continue with: ctrkit train --resume {tmp_path / 'run'}" in words
    assert seen(tmp_path / "run") == SEEN[:10]
