"""Notes who called `os._exit`: such an exit leaves neither a traceback nor a message."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

#: the first words of the line on stderr
SAID = "os._exit"


def tell_sudden_exits() -> None:
    """From now on, `os._exit` in this process prints to stderr where it was called.

    Forked processes print nothing: calling `os._exit` is the normal way for them to end.
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
