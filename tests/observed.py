"""Runs a script under the observer as a supervisor would, without one.

The scripts of `scripts/` are forked from a server that has torch imported, where that can be; with
`anew` they are started anew.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from script_server import ScriptServer

import ctrkit
from ctrkit.core.child_files import load_measurement
from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell, ChildSpec, ScriptSpec, WindowPlan, WorkloadSpec
from ctrkit.core.files import write_json
from ctrkit.core.lifeline import FIRST_FOLDER, FOLDER_VARIABLE
from ctrkit.core.script_records import ScriptSeen

SCRIPTS = Path(__file__).parent / "integration" / "scripts"


@dataclass(frozen=True, kw_only=True)
class Observed:
    """How a script ended, and what was written of it."""

    code: int
    out: str
    err: str
    folder: Path
    seen: ScriptSeen | None
    measured: Measurement | None
    trouble: str

    def needed(self) -> tuple[ScriptSeen, Measurement]:
        """What was seen and measured, both of which must be there."""
        assert self.trouble == "", self.trouble
        assert self.seen is not None, self.err
        assert self.measured is not None, self.err
        return self.seen, self.measured


def observe(
    tmp_path: Path,
    kind: Any,
    script: str | Sequence[str],
    *arguments: str,
    train_loader: int | None = None,
    put_in: Sequence[str] = (),
    cell: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    anew: bool = False,
    **windows: Any,
) -> Observed:
    """Run a script of `scripts/`, or a whole command, in `tmp_path`, and read what is left."""
    command = [sys.executable, str(SCRIPTS / script)] if isinstance(script, str) else list(script)
    command += arguments
    folder = tmp_path / f"child-{time.monotonic_ns()}"
    (folder / "observer").mkdir(parents=True)
    (folder / "observer" / "ctrkit").symlink_to(Path(ctrkit.__file__).parent)
    plan = {"window_s": 0.1, "min_steps": 4} | windows
    spec = ChildSpec(
        kind=kind, folder=str(folder), cell=Cell(**(cell or {})), put_in=list(put_in),
        workload=WorkloadSpec(
            target="script",
            script=ScriptSpec(command=command, folder=str(tmp_path), train_loader=train_loader),
        ),
        spawned_at_s=time.monotonic(), windows=WindowPlan(**plan),
    )  # fmt: skip
    write_json(folder / "spec.json", spec)
    environment = dict(os.environ) | (env or {})
    path = [str(FIRST_FOLDER), str(folder / "observer"), environment.get("PYTHONPATH", "")]
    environment |= {
        FOLDER_VARIABLE: str(folder), "CTRKIT_SCRIPT": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
    }  # fmt: skip
    if isinstance(script, str) and not anew and sys.platform.startswith("linux"):
        ended = _server().run(command[1:], tmp_path, environment, timeout_s=240)
    else:
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
    trouble = folder / "observer-trouble.txt"
    seen = folder / "script.json"
    return Observed(
        code=ended.returncode, out=ended.stdout, err=ended.stderr, folder=folder,
        seen=msgspec.json.decode(seen.read_bytes(), type=ScriptSeen) if seen.exists() else None,
        measured=load_measurement(folder / "measurement.json"),
        trouble=trouble.read_text() if trouble.exists() else "",
    )  # fmt: skip


@functools.cache
def _server() -> ScriptServer:
    return ScriptServer()
