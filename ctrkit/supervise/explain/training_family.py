"""Finds the main process of a training from any pid of its tree, a shell's or a worker's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ctrkit.core.errors import UsageError

_PYTHON = re.compile(r"^(python|pypy)[\d.]*t?$", re.IGNORECASE)
_LAUNCHER = re.compile(
    r"torch[./]distributed[./](run|launch)|(^|[/ ])(torchrun|accelerate|deepspeed|ray|mpirun)( |$)"
    r"|accelerate[./]commands|-m accelerate|deepspeed[./]launcher"
)
#: Python processes that libraries start for themselves, and that never train.
_HELPER = re.compile(
    r"multiprocessing\.resource_tracker|multiprocessing\.forkserver|torch_shm_manager"
    r"|compile_worker|wandb|tensorboard|ipykernel_launcher --helper"
)
_MULTIPROCESSING = re.compile(r"--multiprocessing-fork|multiprocessing\.(spawn|forkserver)")
_WORKER_NAME = "pt_data_worker"  # the process name of workers in torch 2.6 and newer


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A process as the system lists it; `has_torch` is None if its memory may not be read."""

    pid: int
    parent_pid: int = 0
    name: str = ""
    command: Sequence[str] = ()
    status: str = psutil.STATUS_SLEEPING
    python: bool = False
    has_torch: bool | None = None
    rank: int | None = None

    @property
    def words(self) -> str:
        """The command in one line."""
        return " ".join(self.command)

    @property
    def is_helper(self) -> bool:
        """Whether a library started it for its own use."""
        return bool(_HELPER.search(self.words))


@dataclass(frozen=True, kw_only=True)
class TrainingFamily:
    """The process tree to explain.

    Attributes:
        top_pid: the top of the tree.
        main_pid: the training process (of several ranks, the first).
        ranks: their numbers by pid.
        note: why `main_pid` is not the pid asked about.
    """

    top_pid: int
    main_pid: int
    ranks: Mapping[int, int]
    note: str = ""


def find_training(pid: int, listed: Mapping[int, Listed]) -> TrainingFamily:
    """The training that a process belongs to.

    A worker leads to the process that started it; a shell, a scheduler's script or a launcher leads
    to the Python process below it.

    Raises:
        UsageError: several Python processes are below it, and it is unclear which one is meant.
    """
    top = _climb(pid, listed)
    note = "" if top == pid else f"pid {pid} was started by pid {top}, so both are shown"
    python = [top] if listed[top].python else _topmost_python(top, listed)
    ranks = _ranks(top, listed)
    if not python:
        return TrainingFamily(top_pid=top, main_pid=top, ranks={}, note=note)
    if ranks:
        main = min(ranks, key=lambda one: ranks[one])
        return TrainingFamily(top_pid=top, main_pid=main, ranks=ranks, note=note)
    main = _trainer(python, pid, listed)
    main = _below_launchers(main, listed)
    if main != top and not note:
        note = f"pid {top} ({_short(listed[top])}) started the training, pid {main}"
    return TrainingFamily(top_pid=top, main_pid=main, ranks={}, note=note)


def _climb(pid: int, listed: Mapping[int, Listed]) -> int:
    """Go up from processes that multiprocessing started."""
    one = listed[pid]
    parent = listed.get(one.parent_pid)
    while parent is not None and parent.python and is_multiprocessing(one, parent):
        one, parent = parent, listed.get(parent.parent_pid)
    return one.pid


def is_multiprocessing(one: Listed, parent: Listed) -> bool:
    """Whether multiprocessing started it: a worker, a forkserver, a tracker."""
    forked = one.python and bool(one.command) and tuple(one.command) == tuple(parent.command)
    by_name = one.name == _WORKER_NAME or bool(_MULTIPROCESSING.search(one.words))
    return forked or by_name or "multiprocessing.resource_tracker" in one.words


def _children(pid: int, listed: Mapping[int, Listed]) -> list[Listed]:
    return [one for one in listed.values() if one.parent_pid == pid and one.pid != pid]


def below(pid: int, listed: Mapping[int, Listed]) -> list[Listed]:
    """All descendants."""
    found: list[Listed] = []
    waiting = _children(pid, listed)
    while waiting:
        one = waiting.pop(0)
        found.append(one)
        waiting += _children(one.pid, listed)
    return found


def _topmost_python(pid: int, listed: Mapping[int, Listed]) -> list[int]:
    found, waiting = [], _children(pid, listed)
    while waiting:
        one = waiting.pop(0)
        if one.python and not one.is_helper:
            found.append(one.pid)
        else:
            waiting += _children(one.pid, listed)
    return found


def _ranks(top: int, listed: Mapping[int, Listed]) -> dict[int, int]:
    """The ranks below a launcher, without processes that they started themselves."""
    ranked = {
        one.pid: one.rank
        for one in [listed[top], *below(top, listed)]
        if one.rank is not None and one.python and not one.is_helper
    }
    own = {pid: rank for pid, rank in ranked.items() if listed[pid].parent_pid not in ranked}
    return own if len(own) > 1 else {}


def _trainer(python: Sequence[int], pid: int, listed: Mapping[int, Listed]) -> int:
    """The training process: the only one, or the only one with torch loaded."""
    with_torch = [one for one in python if _any_torch(one, listed)]
    chosen = python if len(python) == 1 else with_torch
    if len(chosen) == 1:
        return chosen[0]
    named = with_torch or python
    names = ", ".join(f"{one} ({_short(listed[one])})" for one in named[:5])
    raise UsageError(
        f"pid {pid} ({_short(listed[pid])}) has {len(named)} Python processes below it, and "
        f"nothing tells which one is meant: {names}; name one of them"
    )


def _any_torch(pid: int, listed: Mapping[int, Listed]) -> bool:
    return any(one.has_torch for one in [listed[pid], *below(pid, listed)])


def _below_launchers(pid: int, listed: Mapping[int, Listed]) -> int:
    """Go down through launchers, and through wrappers without torch."""
    while True:
        own = listed[pid]
        children = [
            one
            for one in _children(pid, listed)
            if one.python and not one.is_helper and not is_multiprocessing(one, own)
        ]
        passes = _LAUNCHER.search(own.words) or own.has_torch is False
        trains = [one for one in children if _any_torch(one.pid, listed)] or children
        if not passes or len(trains) != 1:
            return pid
        if own.has_torch is False and not _any_torch(trains[0].pid, listed):
            return pid
        pid = trains[0].pid


def _short(one: Listed) -> str:
    return Path(one.command[0]).name if one.command else one.name


def list_processes() -> dict[int, Listed]:
    """All processes that the system lists, with the readable facts of each."""
    found = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            found[process.pid] = _listed(process)
    return found


def _listed(process: psutil.Process) -> Listed:
    with process.oneshot():
        one = Listed(
            pid=process.pid, parent_pid=process.ppid(), name=process.name(),
            status=process.status(),
        )  # fmt: skip
    command: Sequence[str] = ()
    with suppress(psutil.Error, OSError):
        command = tuple(process.cmdline())
    executable = ""
    with suppress(psutil.Error, OSError):
        executable = process.exe()
    program = Path(executable or (command[0] if command else "")).name
    python = bool(_PYTHON.match(program))
    return Listed(
        pid=one.pid, parent_pid=one.parent_pid, name=one.name, status=one.status, command=command,
        python=python, has_torch=_has_torch(one.pid) if python else None,
        rank=_rank(process) if python else None,
    )  # fmt: skip


def _has_torch(pid: int) -> bool | None:
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text(errors="replace")
    except OSError:
        return None


def _rank(process: psutil.Process) -> int | None:
    """The rank that a launcher gave it; reads nothing else of its environment."""
    with suppress(psutil.Error, OSError, ValueError, KeyError):
        environment = process.environ()
        if "WORLD_SIZE" in environment:
            return int(environment["RANK"])
    return None


def python_below(pid: int) -> list[int]:
    """The topmost Python processes below a shell or another program; none below a Python one."""
    with suppress(psutil.Error, OSError):
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
        listed = {}
        for one in family:
            with suppress(psutil.Error, OSError):
                listed[one.pid] = _listed(one)
        if pid in listed and not listed[pid].python:
            return _topmost_python(pid, listed)
    return []
