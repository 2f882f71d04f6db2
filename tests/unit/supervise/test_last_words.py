from __future__ import annotations

import pytest

from ctrkit.supervise.last_words import last_words

UNCAUGHT = """Traceback (most recent call last):
  File "/s/train.py", line 9, in <module>
    main()
    ^^^^
ValueError: boom
"""
IGNORED = """Exception ignored in: <function D.__del__ at 0x7f>
Traceback (most recent call last):
  File "/s/train.py", line 3, in __del__
RuntimeError: in del
"""
FILE_LEFT = """Exception ignored in: <_io.FileIO name='/s/x' mode='rb' closefd=True>
ResourceWarning: unclosed file <_io.BufferedReader name='/s/x'>
"""
IN_THREAD = """Exception in thread Thread-1:
Traceback (most recent call last):
  File "/s/threading.py", line 9, in run
    self._target()
KeyError: 'no'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/s/threading.py", line 19, in run
    self._target()
KeyError: 'never'
"""
LOGGED = """ERROR:root:retry
Traceback (most recent call last):
  File "/s/train.py", line 4, in step
    1/0
ZeroDivisionError: division by zero
"""
LOGGING_ERROR = """--- Logging error ---
Traceback (most recent call last):
  File "/usr/lib/python3/logging/__init__.py", line 1110, in emit
    msg = self.format(record)
TypeError: %d format: a real number is required, not str
Call stack:
  File "/s/train.py", line 4, in <module>
    logging.warning("%d", "x")
Message: '%d'
Arguments: ('x',)
"""
CHAINED = (
    """Traceback (most recent call last):
  File "/s/train.py", line 3, in <module>
    {}[1]
KeyError: 1

The above exception was the direct cause of the following exception:

"""
    + UNCAUGHT
)
OF_WORKER = """Traceback (most recent call last):
  File "/s/train.py", line 6, in <module>
    for x in loader: pass
KeyError: Caught KeyError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/v/torch/utils/data/_utils/worker.py", line 349, in _worker_loop
    data = fetcher.fetch(index)
KeyError: 'nokey'
"""
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "/s/train.py", line 1, in <module>
  |     raise ExceptionGroup("many", [ValueError("x")])
  | ExceptionGroup: many (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: x
    +------------------------------------
"""
SYNTAX = """  File "/s/train.py", line 2
    def f(:
          ^
SyntaxError: invalid syntax
"""
WARNED = "/s/train.py:3: UserWarning: slow\n  warnings.warn('slow')\n"
LEFT = "sys:1: ResourceWarning: unclosed socket\n"


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("", ""),
        ("a\nloss diverged\n\n", "loss diverged"),
        (UNCAUGHT, "ValueError: boom"),
        (UNCAUGHT + IGNORED + IGNORED, "ValueError: boom"),
        (UNCAUGHT + FILE_LEFT + LEFT, "ValueError: boom"),
        (UNCAUGHT + WARNED, "ValueError: boom"),
        (WARNED + IN_THREAD + UNCAUGHT + IN_THREAD, "ValueError: boom"),
        (CHAINED + FILE_LEFT, "ValueError: boom"),
        (LOGGED + UNCAUGHT + LOGGING_ERROR, "ValueError: boom"),
        (LOGGED + "loss diverged\n" + LEFT, "loss diverged"),
        (LOGGED, "ZeroDivisionError: division by zero"),
        (OF_WORKER + IGNORED, "KeyError: 'nokey'"),
        (GROUP, "ExceptionGroup: many (1 sub-exception)"),
        (SYNTAX, "SyntaxError: invalid syntax (/s/train.py, line 2)"),
        (UNCAUGHT.replace("ValueError: boom\n", SYNTAX) + IGNORED,
         "SyntaxError: invalid syntax (/s/train.py, line 2)"),
        (UNCAUGHT.replace("ValueError: boom", "UserWarning: made an error") + LEFT,
         "UserWarning: made an error"),
        (UNCAUGHT + "size mismatch for w\n", "ValueError: boom [...] size mismatch for w"),
        (IGNORED, "RuntimeError: in del"),
    ],
)  # fmt: skip
def test_the_exception_that_nobody_caught_comes_before_what_python_writes_after_it(
    stderr: str, words: str
) -> None:
    assert last_words(stderr) == words


def test_long_words_are_shortened() -> None:
    assert len(last_words("x" * 9000)) == 500
