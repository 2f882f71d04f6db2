"""How ranks find each other: all ranks of one start meet, and none of an earlier start.

torch's agents share one store over all starts of a group. Keys that a dead rank has left there look
like new ones, so each start must use other keys. Rank 0 draws their prefix. Each of the others asks
for it under a random number of its own, so it cannot mistake an old answer for its own.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

MEET_S = 300.0
_LOOK_S = 0.02


@dataclass(frozen=True, kw_only=True)
class RankGroup:
    """The ranks of one start: a store that only they use, and a message from rank 0."""

    store: Store
    rank: int
    count: int
    said: Mapping[str, Any]


def find_ranks(
    says: Mapping[str, Any], waiting: Callable[[], None] = lambda: None, timeout_s: float = MEET_S
) -> RankGroup:
    """Find the other ranks that torch's launcher has started, from the environment variables.

    Args:
        says: plain values for all ranks; only rank 0's are used.
        waiting: called a few times a second during the wait.
        timeout_s: how long to wait.

    Raises:
        TimeoutError: some rank did not come in time; the message says which.
    """
    store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
    return find_ranks_in(store, rank, count, says, waiting, timeout_s)


def find_ranks_in(
    store: Store,
    rank: int,
    count: int,
    says: Mapping[str, Any],
    waiting: Callable[[], None] = lambda: None,
    timeout_s: float = MEET_S,
) -> RankGroup:
    """As `find_ranks`, in a given store, which may hold keys of earlier ranks."""
    deadline_s = time.monotonic() + timeout_s

    def look_again(missing: str) -> None:
        waiting()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{missing} did not come within {timeout_s:.0f} s")
        time.sleep(_LOOK_S)

    if rank == 0:
        prefix = _lead(store, count, json.dumps(says), look_again)
        heard = says
    else:
        prefix, heard = _follow(store, rank, look_again)
    return RankGroup(store=PrefixStore(prefix, store), rank=rank, count=count, said=heard)


def _lead(store: Store, count: int, says: str, look_again: Callable[[str], None]) -> str:
    prefix = f"ctrkit/{uuid.uuid4().hex}"
    missing, answered = set(range(1, count)), set()
    while missing:
        for rank in tuple(missing):
            if store.check([_request(rank)]):
                asked = store.get(_request(rank)).decode()
                if asked not in answered:  # the request may come from a rank that has died
                    answered.add(asked)
                    store.set(asked, json.dumps([prefix, says]))
            if store.check([f"{prefix}/{rank}"]):
                missing.discard(rank)
        if missing:
            look_again("rank " + ", ".join(map(str, sorted(missing))))
    return prefix


def _follow(
    store: Store, rank: int, look_again: Callable[[str], None]
) -> tuple[str, Mapping[str, Any]]:
    answer = f"ctrkit/{uuid.uuid4().hex}"
    store.set(_request(rank), answer)
    while not store.check([answer]):
        look_again("rank 0")
    prefix, says = json.loads(store.get(answer))
    store.set(f"{prefix}/{rank}", "here")
    return prefix, json.loads(says)


def _request(rank: int) -> str:
    return f"ctrkit/request-{rank}"
