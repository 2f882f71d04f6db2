"""Whether a command trains on several hosts: no trial of it can be launched from one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: Launchers, and the options by which each is told how many hosts take part.
_OPTIONS = {
    "torchrun": ("--nnodes",),
    "torch.distributed.run": ("--nnodes",),
    "torch.distributed.launch": ("--nnodes",),
    "accelerate": ("--num_machines", "--num-machines"),
    "deepspeed": ("--num_nodes",),
    "srun": ("--nodes", "-N"),
}


def hosts_of(command: Sequence[str]) -> int:
    """On how many hosts a launcher starts the training at least, as its options say; else 1."""
    launcher = next((i for i, word in enumerate(command) if _name(word) in _OPTIONS), None)
    if launcher is None:
        return 1
    options = _OPTIONS[_name(command[launcher])]
    words = command[launcher + 1 :]
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.endswith(".py") or word == "--":
            break  # what follows is the script's own
        name, equals, value = word.partition("=")
        if name.replace("_", "-") in {option.replace("_", "-") for option in options}:
            least = (value if equals else following).partition(":")[0].partition("-")[0]
            return int(least) if least.isdigit() else 1
    return 1


def why_not_probed(command: Sequence[str]) -> str:
    """Why no trial of it can be launched, in words; empty where nothing speaks against it."""
    hosts = hosts_of(command)
    if hosts < 2:
        return ""
    return (
        f"the command trains on {hosts} hosts, and a trial starts it on this one alone, where it "
        "would wait for the others: probe it on one host, and watch the real run by ctrkit train "
        "on each"
    )


def _name(word: str) -> str:
    return Path(word).name
