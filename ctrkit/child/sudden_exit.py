"""Notes who called `os._exit`: such an exit leaves neither a traceback nor a message."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

#: begins the line on stderr
SAID = "os._exit"


def tell_sudden_exits() -> None:
    """From now on, a call of `os._exit` in this process says on stderr where it was made.

    Processes that are forked from this one end by such a call as they should: they say nothing.
    """
    pid, ends = os.getpid(), os._exit

    def tell_and_end(status: int) -> NoReturn:
        if os.getpid() == pid:
            with suppress(Exception):
                frame = sys._getframe(1)
                if not frame.f_globals.get("__name__", "").startswith("ctrkit."):
                    said = f"{SAID}({status}) was called {_place(frame)}"
                    print(said, file=sys.stderr, flush=True)
        ends(status)

    os._exit = tell_and_end


def _place(frame: FrameType) -> str:
    """`at loader.py:3 in make_loader`."""
    code = frame.f_code
    return f"at {Path(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"
