"""Decides which process of a script writes the progress file, before and after one trains."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from ctrkit.child.script import json_files
from ctrkit.core import lifeline
from ctrkit.core.progress import ProgressWriter, Stage, rank_folder


class Owner(NamedTuple):
    """A training process.

    Attributes:
        rank: its rank among those that train together.
        folder: the folder it writes to.
        is_alone: no other process trains that is not a rank of the same group.
        world: number of ranks that train together.
    """

    rank: int | None
    folder: str
    is_alone: bool
    world: int = 1

    @property
    def may_have_siblings(self) -> bool:
        """Whether multiprocessing started this process, and it is no rank."""
        process = sys.modules.get("multiprocessing.process")
        started = process is not None and process.parent_process() is not None
        return started and self.rank is None


class Presence:
    """The first Python process of a launch shows its stage until one is known to train."""

    def __init__(self, folder: str, launch: str) -> None:
        self.launch = launch
        self._writer: ProgressWriter | None = None
        if json_files.is_first(os.path.join(folder, f"root-{launch}.pid")):
            self._writer = ProgressWriter(os.path.join(folder, "progress.bin"))

    def enter(self, stage: Stage) -> None:
        """Show that the process is in this stage."""
        if self._writer is not None and stage > self._writer.stage:
            self._writer.enter(stage)

    def leave(self) -> None:
        """Stop showing this process: it trains, or it was forked."""
        self._writer = None


def claim_owner(folder: str, launch: str) -> Owner:
    """Claim a folder for a training process.

    The main process (the first rank, or the only process) gets the child's own folder, every other
    rank the folder of its rank. A later process of the same launch gets a folder of its own.
    """
    rank, world = _rank()
    is_main = rank is None or is_first_rank(rank)
    own = folder if is_main else str(rank_folder(Path(folder), rank or 0))
    os.makedirs(own, exist_ok=True)
    first = json_files.is_first(os.path.join(own, f"owner-{launch}.pid"))
    if not first:
        own = os.path.join(folder, f"other-{launch}-{os.getpid()}")
        os.makedirs(own, exist_ok=True)
    return Owner(rank, own, first, world)


def is_first_rank(rank: int) -> bool:
    """Whether a rank is the first that trains on this host, and so the one to follow.

    On a host of several it need not be rank 0. Then a launcher says it, and of processes that
    multiprocessing has started (`torch.multiprocessing.spawn`) their own number: they all inherit
    what a launcher said of their parent, and accelerate calls each of them local rank 0.
    """
    if rank == 0:
        return True
    said = lifeline.is_first_here(os.environ)
    process = sys.modules.get("multiprocessing.process")
    identity = getattr(process.current_process(), "_identity", ()) if process is not None else ()
    if said is None:
        return tuple(identity) == (1,)
    return said and tuple(identity) in ((), (1,))


def _rank() -> tuple[int | None, int]:
    """This process's rank and their number, from torch.distributed or its launcher."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank()), int(distributed.get_world_size())
    rank = lifeline.rank_of_environment()
    return rank, int(os.environ["WORLD_SIZE"]) if rank is not None else 1


def others_that_train(folder: str, launch: str) -> int:
    """The number of processes that train beside the first without being ranks of its group."""
    return sum(name.startswith(f"other-{launch}-") for name in os.listdir(folder))
