"""Runs scripts in processes forked from one that has torch imported.

A script that is started anew needs two to three seconds of CPU to import torch and what its
optimizers import. `python -c BEGIN` is the server: it has done so once, and forks a process for
each line of JSON that it reads. That process becomes what `python SCRIPT` would be: environment,
`sys.path`, `sitecustomize`, arguments, output and `__main__` are its own. What it cannot show is
how torch is imported: tests of that start their scripts anew.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import process
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

#: Outside of any function and any loop, so that the script's own frames are all that is found.
BEGIN = f"""
import sys
sys.path[0] = {str(Path(__file__).parent)!r}
import script_server
code, names = script_server.serve()
exec(code, names)
"""


class ScriptServer:
    """The server as its tests see it: started when it is first needed, ended with them."""

    def __init__(self) -> None:
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("CTRKIT_", "PYTEST_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-c", BEGIN], env=plain, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        atexit.register(self.close)

    def run(
        self, argv: Sequence[str], folder: Path, environment: Mapping[str, str], timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run` of `python ARGV`, in a folder, with its output captured."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as temporary:
            out, err = Path(temporary, "out"), Path(temporary, "err")
            request = {
                "argv": list(argv), "folder": str(folder), "environment": dict(environment),
                "out": str(out), "err": str(err), "timeout_s": timeout_s,
            }  # fmt: skip
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            if answer["code"] is None:
                raise subprocess.TimeoutExpired(list(argv), timeout_s)
            return subprocess.CompletedProcess(
                list(argv), answer["code"], out.read_text(), err.read_text()
            )

    def close(self) -> None:
        self._process.communicate(timeout=10)


def serve() -> tuple[CodeType, dict[str, Any]]:
    """Answer each request with the exit code of its script; returns in a script, with its code."""
    importlib.import_module("torch")
    importlib.import_module("torch._dynamo")  # what the first step of an optimizer imports
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            return _become(request)
        print(json.dumps({"code": _exit_code(pid, request["timeout_s"])}), flush=True)
    os._exit(0)


def _exit_code(pid: int, timeout_s: float) -> int | None:
    """Of a script; None where it had to be killed."""
    killed = threading.Event()

    def kill() -> None:
        killed.set()
        os.kill(pid, 9)

    timer = threading.Timer(timeout_s, kill)
    timer.start()
    _, status = os.waitpid(pid, 0)
    timer.cancel()
    timer.join()  # the next fork is to be that of a process with one thread
    return None if killed.is_set() else os.waitstatus_to_exitcode(status)


def _become(request: dict[str, Any]) -> tuple[CodeType, dict[str, Any]]:
    os.chdir(request["folder"])
    for number, path in ((1, request["out"]), (2, request["err"])):
        opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    _forget_the_server()
    file = request["argv"][0]
    sys.argv[:] = request["argv"]
    sys.orig_argv[1:] = request["argv"]
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [str(Path(file).parent), *filter(None, own), *sys.path[1:]]
    sys.modules.pop("sitecustomize", None)
    importlib.import_module("sitecustomize")
    sys.modules["__main__"].__name__ = "server_of_scripts"
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = file
    return compile(Path(file).read_bytes(), file, "exec"), main.__dict__


def _forget_the_server() -> None:
    """What a new process would draw, or find out anew."""
    random.seed()
    sys.modules["numpy"].random.seed()
    sys.modules["torch"].default_generator.seed()
    tempfile.tempdir = None
    importlib.invalidate_caches()
    process.current_process().authkey = os.urandom(32)
