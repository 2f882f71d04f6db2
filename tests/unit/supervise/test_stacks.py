from __future__ import annotations

import threading
from pathlib import Path

import ctrkit
from ctrkit.supervise.stacks import Frame, parse_dump, waiting_place

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
STUCK = f"""Current thread 0x00007f01d9e64b80 (most recent call first):
  File "/home/me/rows.py", line 9 in __getitem__
  File "/v/site-packages/torch/utils/data/_utils/worker.py", line 374 in _worker_loop
  File "{STDLIB}/multiprocessing/process.py", line 314 in _bootstrap
  File "{STDLIB}/multiprocessing/popen_fork.py", line 71 in _launch
  File "/home/me/train.py", line 17 in main
"""
IDLE = f"""Current thread 0x00007f01d9e64b80 (most recent call first):
  File "{STDLIB}/multiprocessing/queues.py", line 113 in get
  File "/v/site-packages/torch/utils/data/_utils/worker.py", line 340 in _worker_loop
  File "{STDLIB}/multiprocessing/process.py", line 314 in _bootstrap
  File "/home/me/train.py", line 17 in main
"""
OUR_WORKER = STUCK.replace("/home/me/rows.py", f"{OURS}/data/store.py")


def test_threads_and_frames_are_read_in_order() -> None:
    feeder, main = parse_dump(MAIN)
    assert feeder[0] == Frame(f"{STDLIB}/threading.py", 327, "wait")
    assert [frame.line for frame in main] == [415, 725, 17]
    assert parse_dump("Fatal Python error\nnonsense") == []


def test_a_worker_in_user_code_is_named_before_the_main_process() -> None:
    place = waiting_place({1: MAIN, 2: IDLE, 3: STUCK}, root_pid=1)
    assert place == "worker 3 is at rows.py:9 in __getitem__"


def test_an_idle_forked_worker_does_not_inherit_its_parents_frames() -> None:
    place = waiting_place({1: MAIN, 2: IDLE}, root_pid=1)
    assert place == "the main process is at train.py:17 in main (inside selectors.py:415 in select)"


def test_code_of_ctrkit_counts_where_there_is_no_users() -> None:
    main = MAIN.replace("/home/me/train.py", f"{OURS}/training/loop.py")
    assert waiting_place({1: main, 3: OUR_WORKER}, root_pid=1) == (
        "worker 3 is at store.py:9 in __getitem__"
    )


def test_without_known_frames_it_is_the_innermost_one() -> None:
    main = MAIN.replace("/home/me", "/v/site-packages")
    assert (
        waiting_place({1: main}, root_pid=1) == "the main process is at selectors.py:415 in select"
    )
    assert waiting_place({}, root_pid=1) is None
    assert waiting_place({1: ""}, root_pid=1) is None
