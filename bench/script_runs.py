"""Runs commands for the bench of scripts, and records what they leave behind.

Each runs with a private folder for temporary files and, where the system lets root make one, with
a private `/dev/shm`; its processes carry a mark in their environment. So what is left is its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_MARK = "CTRKIT_BENCH_MARK"
#: Seconds that a process may take to exit after its command has ended.
_LINGERS_S = 3.0
#: What torch leaves after any run of these scripts, even without ctrkit: caches, torchrun's logs.
_OF_LIBRARIES = ("torchinductor_", "torchelastic_")
_IN_OWN_SHM = 'mount -t tmpfs tmpfs /dev/shm && "$@"; code=$?; ls -A /dev/shm > "$LEFT"; exit $code'


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a command ended, and what it left behind: processes, shared memory, temporary files."""

    code: int | None
    out: str
    err: str
    wall_s: float
    left: list[str] = field(default_factory=list)


def run(argv: Sequence[str], folder: Path, env: Mapping[str, str], limit_s: float) -> Ran:
    """Run a command; at the time limit it is ended together with all processes it started."""
    mark = uuid.uuid4().hex
    temporary = Path(tempfile.mkdtemp(prefix="ctrkit-scripts-"))
    left_file = temporary.with_suffix(".left")
    variables = dict(os.environ) | dict(env)
    variables |= {_MARK: mark, "TMPDIR": str(temporary), "LEFT": str(left_file)}
    private = _may_mount()
    words = ["unshare", "--mount", "sh", "-c", _IN_OWN_SHM, "sh"] if private else []
    began_s = time.monotonic()
    process = subprocess.Popen(
        [*words, *argv], cwd=folder, env=variables, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    code: int | None = None
    try:
        out, err = process.communicate(timeout=limit_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        _end(mark)
        out, err = process.communicate()
    wall_s = time.monotonic() - began_s
    left = _left_processes(mark)
    if private and left_file.is_file():
        left += [f"/dev/shm/{name}" for name in left_file.read_text().split()]
    names = sorted(path.name for path in temporary.iterdir())
    left += [f"$TMPDIR/{name}" for name in names if not name.startswith(_OF_LIBRARIES)]
    shutil.rmtree(temporary, ignore_errors=True)
    left_file.unlink(missing_ok=True)
    return Ran(code=code, out=out, err=err, wall_s=wall_s, left=left)


def _may_mount() -> bool:
    """Whether this machine allows a private `/dev/shm`."""
    if shutil.which("unshare") is None:
        return False
    asks = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    return subprocess.run(asks, capture_output=True, check=False, timeout=10).returncode == 0


def _marked(mark: str) -> dict[int, str]:
    """The living processes that carry a mark, with their commands; empty without /proc."""
    found, text = {}, f"{_MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text in (entry / "environ").read_bytes().split(b"\0"):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found[int(entry.name)] = " ".join(words)[:80]
        except OSError:
            continue
    return found


def _end(mark: str) -> None:
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGKILL):
        for pid in _marked(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(2.0)


def _left_processes(mark: str) -> list[str]:
    """End the processes that outlive the command, and return them."""
    until_s = time.monotonic() + _LINGERS_S
    while _marked(mark) and time.monotonic() < until_s:
        time.sleep(0.1)
    found = [f"process {pid}: {command}" for pid, command in _marked(mark).items()]
    if found:
        _end(mark)
    return found
