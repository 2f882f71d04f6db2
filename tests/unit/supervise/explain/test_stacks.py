from __future__ import annotations

import threading
from pathlib import Path

import ctrkit
from ctrkit.supervise.explain.stacks import (
    Frame,
    find_frame,
    our_frame,
    own_part,
    parse_dump,
    parse_traceback,
    user_frame,
)

STDLIB = Path(threading.__file__).parent
OURS = Path(ctrkit.__file__).parent

MAIN = f"""Thread 0x00007f01b76286c0 (most recent call first):
  File "{STDLIB}/threading.py", line 327 in wait
  File "{STDLIB}/multiprocessing/queues.py", line 231 in _feed

Current thread 0x00007f01d9e64b80 [MainThread] (most recent call first):
  File "{STDLIB}/selectors.py", line 415 in select
  File "/v/site-packages/torch/utils/data/dataloader.py", line 725 in __next__
  File "/home/me/train.py", line 17 in main
"""
WORKER = f"""Current thread 0x00007f01d9e64b80 (most recent call first):
  File "{OURS}/data/store.py", line 9 in gather
  File "/v/site-packages/torch/utils/data/_utils/worker.py", line 374 in _worker_loop
  File "{STDLIB}/multiprocessing/process.py", line 314 in _bootstrap
  File "{STDLIB}/multiprocessing/popen_fork.py", line 71 in _launch
  File "/home/me/train.py", line 17 in main
"""
TRACEBACK = """Traceback (most recent call last):
  File "/home/me/train.py", line 17, in main
    for batch in loader:
  File "/usr/lib/python3.11/multiprocessing/spawn.py", line 122, in spawn_main
    exitcode = _main(fd, parent_sentinel)
"""


def test_threads_and_frames_are_read_in_order() -> None:
    feeder, main = parse_dump(MAIN)
    assert feeder[0] == Frame(f"{STDLIB}/threading.py", 327, "wait")
    assert [frame.line for frame in main] == [415, 725, 17]
    assert parse_dump("Fatal Python error\nnonsense") == ()


def test_a_traceback_is_read_from_its_end() -> None:
    frames = parse_traceback(TRACEBACK)
    assert [frame.function for frame in frames] == ["spawn_main", "main"]
    assert user_frame(frames) == Frame("/home/me/train.py", 17, "main")


def test_a_forked_worker_does_not_inherit_its_parents_frames() -> None:
    (worker,) = parse_dump(WORKER)
    assert user_frame(worker) == Frame("/home/me/train.py", 17, "main")
    assert user_frame(own_part(worker)) is None
    assert our_frame(own_part(worker)) == Frame(f"{OURS}/data/store.py", 9, "gather")


def test_libraries_are_not_the_users_on_any_machine() -> None:
    for path in (
        f"{STDLIB}/queue.py",
        "/opt/conda/lib/python3.12/threading.py",
        "/usr/lib/python3/dist-packages/numpy/core.py",
        "<frozen importlib._bootstrap>",
        "<string>",
        f"{OURS}/child.py",
    ):
        assert user_frame((Frame(path, 1, "f"),)) is None, path
    assert user_frame((Frame("/home/me/lib/python/rows.py", 1, "f"),)) is not None


def test_a_frame_is_found_by_the_end_of_its_path() -> None:
    _, main = parse_dump(MAIN)
    assert find_frame(main, "torch/utils/data/dataloader.py", "__next__") == main[1]
    assert find_frame(main, "torch/utils/data/dataloader.py", "_get_data") is None
    assert str(main[2]) == "train.py:17 in main"
