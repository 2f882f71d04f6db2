"""Who holds a multiprocessing lock that a worker waits for, from the source."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ctrkit.supervise.explain.lock_holders import lock_holders_of
from ctrkit.supervise.explain.scene import Process
from ctrkit.supervise.explain.stacks import Frame

BODY = """
class D:
    def __getitem__(self, i):
        with {lock}:
            work(i)

    def held(self):
        {lock}.acquire()
        work(0)

    def plain(self):
        work(1)
"""
WAITS, INSIDE, ACQUIRED, PLAIN = ("__getitem__", 0), ("__getitem__", 1), ("held", 1), ("plain", 0)
MAKERS = {
    "import multiprocessing as mp\nL = mp.Lock()": True,
    "import multiprocessing\nL = multiprocessing.RLock()": True,
    "from multiprocessing import Lock\nL = Lock()": True,
    "import torch.multiprocessing as tmp\nL = tmp.Lock()": True,
    "import threading\nL = threading.Lock()": False,
    "from threading import Lock\nL = Lock()": False,
}


def process(pid: int, file: Path, place: tuple[str, int]) -> Process:
    lines = file.read_text().splitlines()
    begin = next(n for n, line in enumerate(lines, 1) if f"def {place[0]}" in line)
    frame = Frame(file=str(file), line=begin + 1 + place[1], function=place[0])
    return Process(pid=pid, threads=((frame,),))


def source(tmp_path: Path, maker: str) -> Path:
    file = tmp_path / "rows.py"
    file.write_text(maker + textwrap.dedent(BODY.format(lock="L")))
    return file


@pytest.mark.parametrize("maker", MAKERS)
def test_a_lock_of_processes_is_told_from_one_of_threads(tmp_path: Path, maker: str) -> None:
    file = source(tmp_path, maker)
    found = lock_holders_of([process(1, file, WAITS), process(2, file, INSIDE)])
    assert found == ({1: 2} if MAKERS[maker] else {})


def test_who_took_it_by_acquire_holds_it_too(tmp_path: Path) -> None:
    file = source(tmp_path, next(iter(MAKERS)))
    assert lock_holders_of([process(1, file, WAITS), process(2, file, ACQUIRED)]) == {1: 2}


def test_where_none_or_several_may_hold_it_nobody_is_named(tmp_path: Path) -> None:
    file = source(tmp_path, next(iter(MAKERS)))
    waits, inside = process(1, file, WAITS), process(2, file, INSIDE)
    assert lock_holders_of([waits, process(2, file, PLAIN)]) == {1: None}
    assert lock_holders_of([waits, inside, process(3, file, ACQUIRED)]) == {1: None}
    assert lock_holders_of([waits]) == {1: None}


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone.py"
    frame = Frame(file=str(gone), line=3, function="f")
    assert lock_holders_of([Process(pid=1, threads=((frame,),)), Process(pid=2)]) == {}
