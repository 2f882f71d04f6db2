"""Where a lock was made that a worker waits for, from the source."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ctrkit.supervise.explain.lock_origins import LockOrigin, lock_origins_of
from ctrkit.supervise.explain.scene import Process
from ctrkit.supervise.explain.stacks import Frame

OWN, BEFORE, UNKNOWN = LockOrigin.OWN, LockOrigin.BEFORE_FORK, LockOrigin.UNKNOWN
GET = "class D:\n    def __getitem__(self, i):\n"
MODULE = "L = threading.Lock()\n" + GET
# the line that waits ends with `#!`, a caller's with `#^`
SOURCES = {
    "fresh": (GET + "        l = threading.Lock()\n        l.acquire()\n"
              "        l.acquire()  #!", OWN),
    "fresh, one line": (GET + "        l = Lock(); l.acquire(); l.acquire()  #!", OWN),
    "fresh, with": (GET + "        l = mp.Lock()\n        with l:\n            with l:  #!\n"
                    "                pass", OWN),
    "module": (MODULE + "        with L:  #!\n            pass", BEFORE),
    "module, one line": (MODULE + "        with L: pass  #!", BEFORE),
    "held by the caller, one line": (MODULE + "        with L: help()  #^\n"
                                     "def help():\n    with L: pass  #!", OWN),
    "global": (MODULE + "        global L\n        L.acquire()  #!", BEFORE),
    "imported": ("from locks import L\n" + GET + "        with L:  #!\n            pass", BEFORE),
    "of a module": ("import locks\n" + GET + "        locks.L.acquire()  #!", BEFORE),
    "module, twice": (MODULE + "        L.acquire()\n        L.acquire()  #!",
                      OWN),
    "module, given back": ("L = Lock()\n" + GET + "        L.acquire()\n        L.release()\n"
                           "        L.acquire()  #!", BEFORE),
    "held by the caller": ("L = Lock()\n" + GET + "        with L:\n            help()  #^\n"
                           "def help():\n    with L:  #!\n        pass", OWN),
    "RLock of the caller": ("L = RLock()\n" + GET + "        with L:\n            help()  #^\n"
                            "def help():\n    with L:  #!\n        pass", BEFORE),
    "closure": ("def make():\n    l = Lock()\n    def f(b):\n        with l:  #!\n"
                "            pass\n    return f", BEFORE),
    "closure of a call": (GET + "        l = Lock()\n        def f():\n            l.acquire()\n"
                          "            l.acquire()  #!\n        f()  #^", OWN),
    "attribute": ("class D:\n    def __init__(self): self.l = Lock()\n"
                  "    def __getitem__(self, i):\n"
                  "        with self.l:  #!\n            pass", BEFORE),
    "lazy attribute": ("class D:\n    def __getitem__(self, i):\n        self.l = Lock()\n"
                       "        with self.l:  #!\n            pass", UNKNOWN),
    "class attribute": ("class D:\n    l = Lock()\n    def __getitem__(self, i):\n"
                        "        with self.l:  #!\n            pass", BEFORE),
    "argument": ("def f(l):\n    l.acquire()  #!", UNKNOWN),
    "from somewhere": ("def f():\n    l = get()\n    with l:  #!\n        pass", UNKNOWN),
    "library's": (GET + "        return h5py.File('x')  #!", UNKNOWN),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_where_a_lock_comes_from(tmp_path: Path, name: str) -> None:
    source, origin = SOURCES[name]
    file = tmp_path / "rows.py"
    file.write_text(textwrap.dedent(source))
    found: dict[str, int] = {}
    for number, line in enumerate(source.splitlines(), 1):
        found |= {mark: number for mark in ("#!", "#^") if line.endswith(mark)}
    stack = [Frame(str(file), found["#!"], _function(source, found["#!"]))]
    if "#^" in found:
        stack.append(Frame(str(file), found["#^"], "__getitem__"))
    process = Process(pid=7, threads=(tuple(stack),))
    assert lock_origins_of([process]).get(7, UNKNOWN) == origin


def _function(source: str, line: int) -> str:
    before = [one.strip() for one in source.splitlines()[:line] if one.strip().startswith("def ")]
    return before[-1].removeprefix("def ").partition("(")[0]


def test_a_source_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:")
    frames = [Frame(str(broken), 1, "f"), Frame(str(tmp_path / "gone.py"), 1, "f")]
    for frame in frames:
        assert lock_origins_of([Process(pid=7, threads=((frame,),))]) == {}
