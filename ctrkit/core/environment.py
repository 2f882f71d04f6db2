"""This machine: cores, cache folder, fingerprint, and the environment variables a run records."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs
import psutil

from ctrkit import __version__
from ctrkit.core.control_groups import cpu_quota_cores
from ctrkit.core.gpus import visible_gpus
from ctrkit.core.subprocesses import output_of

# Variables that change how a loop runs. No other environment variable is ever recorded.
RECORDED_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "KMP_AFFINITY",
    "MKL_NUM_THREADS",
    "OBJC_DISABLE_INITIALIZE_FORK_SAFETY",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "PYTORCH_MPS_HIGH_WATERMARK_RATIO",
)
_GIT_S = 2.0
RECORDED_PACKAGES = ("torch", "numpy", "pyarrow", "duckdb", "scipy")


def cache_folder() -> Path:
    """The folder of the default store and of the index of runs; `CTRKIT_HOME` overrides it."""
    override = os.environ.get("CTRKIT_HOME")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("ctrkit"))


def usable_cpus() -> int:
    """Logical processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def performance_cores(
    system: str = sys.platform, run: Callable[[list[str]], str] = output_of
) -> int | None:
    """Number of performance cores of a processor that also has efficiency cores (Apple silicon).

    Threads that share a step wait for the slowest of them, so both kinds together are often slower
    than the fast ones alone. None if all cores are of one kind, or if unknown.
    """
    if system != "darwin":
        return None
    text = run(["sysctl", "-n", "hw.nperflevels", "hw.perflevel0.physicalcpu"]).split()
    if len(text) != 2 or not all(word.isdigit() for word in text) or int(text[0]) < 2:
        return None
    return int(text[1]) or None


def all_cores() -> int:
    """Physical cores of any kind that this process may use."""
    return min(psutil.cpu_count(logical=False) or usable_cpus(), usable_cpus())


@cache
def usable_cores() -> float:
    """Cores' worth of CPU time that this process may use, by its affinity and its CPU quota.

    If there are two kinds of cores, only the fast ones count. A container's quota (`docker --cpus
    0.5`) need not be a whole number.
    """
    there = min(all_cores(), performance_cores() or all_cores())
    quota = cpu_quota_cores()
    return float(there) if quota is None else min(float(there), quota)


def physical_cores() -> int:
    """Whole physical cores that this process may use, at least 1: the default number of threads."""
    return max(1, math.floor(usable_cores()))


def began_unix_s(pid: int) -> float | None:
    """Unix time at which a process was started; None if no process has that id."""
    try:
        process = psutil.Process(pid)
        ended = process.status() == psutil.STATUS_ZOMBIE
        return None if ended else float(process.create_time())
    except (psutil.Error, OSError, ValueError, OverflowError):
        return None


def fingerprint(value: Any) -> str:
    """16 hex digits of the SHA-256 of a JSON value; equal values have equal fingerprints."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _versions() -> dict[str, str]:
    found = {"ctrkit": __version__, "python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def with_torch(environment: dict[str, Any], version: str) -> dict[str, Any]:
    """A description of the environment with this version of torch; empty: it is not known.

    A script may run in another interpreter, and it is that one's torch which trains.
    """
    versions = {k: v for k, v in environment.get("versions", {}).items() if k != "torch"}
    return {**environment, "versions": versions | ({"torch": version} if version else {})}


def code_versions(source: str | None = None) -> dict[str, str]:
    """Versions of everything that computes a step; equal versions promise equal numbers.

    Args:
        source: fingerprint of the workload's own source; None if a package version covers it.
    """
    known = _versions()
    found: dict[str, str] = {
        name: known[name] for name in ("ctrkit", "python", "torch", "numpy") if name in known
    }
    if source is not None:
        found["workload file"] = source
    return found


def describe_machine() -> dict[str, Any]:
    """Describe this machine without its name: system, processor, cores, memory bytes, GPUs."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "processor": _processor_name(),
        "physical_cores": physical_cores(),
        "logical_cores": usable_cpus(),
        **_quota_of_machine(),
        **_kinds_of_cores(),
        "memory_bytes": psutil.virtual_memory().total,
        **_gpus_of_machine(),
    }


def _kinds_of_cores() -> dict[str, int]:
    """Cores of both kinds; empty if there is one kind, so that old fingerprints stay valid."""
    return {} if performance_cores() is None else {"all_cores": all_cores()}


def _quota_of_machine() -> dict[str, float]:
    """The CPU quota; empty if there is none, so that old fingerprints stay valid."""
    quota = cpu_quota_cores()
    return {} if quota is None else {"cpu_quota_cores": quota}


def _gpus_of_machine() -> dict[str, list[str]]:
    """The NVIDIA GPUs that CUDA may use.

    Empty if there are none, so old fingerprints stay valid.
    """
    found = [gpu.words for gpu in visible_gpus()]
    return {"gpus": found} if found else {}


def _processor_name() -> str:
    if sys.platform.startswith("linux"):
        try:
            for line in Path("/proc/cpuinfo").read_text().splitlines():
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()


def describe_environment() -> dict[str, Any]:
    """The environment that `run.json` records: machine, versions, a few variables.

    `git` has branch and commit of the working folder; it is missing outside a repository.
    """
    variables = {name: os.environ[name] for name in RECORDED_VARIABLES if name in os.environ}
    found = {"machine": describe_machine(), "versions": _versions(), "variables": variables}
    code = describe_code()
    return found | {"git": code} if code else found


def describe_code() -> dict[str, str]:
    """`branch` and `commit` of the working folder; empty outside git.

    There is no branch on a detached HEAD, as in many CI jobs.
    """
    branch = _git("rev-parse", "--abbrev-ref", "HEAD")
    if not branch:
        return {}
    commit = _git("rev-parse", "--short", "HEAD")
    found = {"branch": "" if branch == "HEAD" else branch, "commit": commit}
    return {name: text for name, text in found.items() if text}


def _git(*arguments: str) -> str:
    """One line of git's output; empty without git or a repository, or if it is too slow."""
    return output_of(["git", *arguments], wait_s=_GIT_S).strip()[:200]


def machine_fingerprint() -> str:
    """A fingerprint that changes only with hardware, system, Python or torch."""
    machine = describe_machine()
    machine["memory_bytes"] = round(machine["memory_bytes"] / 2**30)
    machine.pop("release")
    versions = _versions()
    machine |= {"python": versions["python"], "torch": versions.get("torch")}
    return fingerprint(machine)
