"""Why the stacks of a process cannot be read here, and the exact command that allows it."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CAP_SYS_PTRACE = 19


@dataclass(frozen=True, kw_only=True)
class Access:
    """What decides whether this process may read another.

    Attributes:
        ptrace_scope: Linux's `kernel.yama.ptrace_scope`; None if there is none.
        can_trace: this process has CAP_SYS_PTRACE.
        protected: the other process made itself unreadable even for its own user.
        py_spy: path of py-spy; None if not found.
        ctrkit: path of ctrkit; None if not found.
    """

    pid: int
    system: str = "Linux"
    root: bool = False
    ptrace_scope: int | None = None
    container: bool = False
    can_trace: bool = False
    protected: bool = False
    py_spy: str | None = None
    ctrkit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What is missing, in a sentence, and commands of which any one helps."""

    what: str
    commands: tuple[str, ...] = ()


def missing(access: Access, problem: str) -> Missing:
    """What prevents this process from reading the other's stacks.

    Args:
        access: this process's access to the other.
        problem: the reader's message; empty without a reader.
    """
    if access.py_spy is None:
        install = f"{shlex.quote(sys.executable)} -m pip install py-spy"
        return Missing(what="py-spy is not installed", commands=(install, *_as_root(access)))
    if "ermission" not in problem:
        return Missing(what=problem)
    if access.system == "Darwin":
        return Missing(what="macOS lets only root read another process", commands=_as_root(access))
    if access.protected:
        return Missing(
            what="the process may not be read by its own user (it was started with other rights)",
            commands=_as_root(access),
        )
    if access.container and not access.can_trace:
        return Missing(
            what="this container may not read processes (it lacks the capability SYS_PTRACE)",
            commands=(
                "docker run --cap-add=SYS_PTRACE ...",
                'Kubernetes: securityContext: {capabilities: {add: ["SYS_PTRACE"]}}',
            ),
        )
    if access.ptrace_scope == 3:
        return Missing(
            what="this kernel lets nobody read another process until it is booted with "
            "kernel.yama.ptrace_scope below 3"
        )
    if access.ptrace_scope in (1, 2):
        open_up = "echo 0 | sudo tee /proc/sys/kernel/yama/ptrace_scope"
        return Missing(
            what="this kernel lets a user read only processes that it started itself "
            f"(kernel.yama.ptrace_scope is {access.ptrace_scope})",
            commands=(*_as_root(access), f"{open_up}    # until the next boot, for every process"),
        )
    return Missing(what="the system does not allow reading it", commands=_as_root(access))


def _as_root(access: Access) -> tuple[str, ...]:
    if access.root or access.py_spy is None:
        return ()
    commands = [f"sudo {shlex.quote(access.py_spy)} dump --pid {access.pid}"]
    if access.ctrkit:
        commands.insert(0, f"sudo {shlex.quote(access.ctrkit)} explain {access.pid}")
    return tuple(commands)


def read_access(pid: int, py_spy: str | None) -> Access:
    """Read the access rules of this system."""
    return Access(
        pid=pid,
        system=platform.system(),
        root=os.geteuid() == 0,
        ptrace_scope=_ptrace_scope(),
        container=_in_container(),
        can_trace=_can_trace(),
        protected=_is_protected(pid),
        py_spy=py_spy,
        ctrkit=_own_program(),
    )


def _own_program() -> str | None:
    beside = Path(sys.executable).parent / "ctrkit"
    return str(beside) if beside.is_file() else shutil.which("ctrkit")


def _ptrace_scope() -> int | None:
    with suppress(OSError, ValueError):
        return int(Path("/proc/sys/kernel/yama/ptrace_scope").read_text())
    return None


def _in_container() -> bool:
    if any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv")):
        return True
    with suppress(OSError):
        words = Path("/proc/1/cgroup").read_text("utf-8", "replace")
        return any(name in words for name in ("docker", "kubepods", "containerd", "lxc"))
    return False


def _can_trace() -> bool:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_PTRACE & 1)
    return False


def _is_protected(pid: int) -> bool:
    """Whether root owns its folder in /proc although the process is this user's."""
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
        user = next(int(line.split()[1]) for line in lines if line.startswith("Uid:"))
        return Path(f"/proc/{pid}").stat().st_uid != user
    return False
