"""What every live display shares: its console, its lines, when it redraws."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from ctrkit.report.words import clean

Clock = Callable[[], float]

_REDRAW_S = 0.2


def stderr_console() -> Console:
    """The console for displays; rich honours NO_COLOR, FORCE_COLOR and TERM.

    FORCE_COLOR also colours a log file's lines, but must not make it redraw.
    """
    return Console(
        stderr=True, highlight=False, emoji=False, markup=False,
        force_interactive=sys.stderr.isatty() and os.environ.get("TERM") != "dumb",
    )  # fmt: skip


class Display:
    """A display that redraws at most every `_REDRAW_S`, when its caller calls it: it has no thread.

    `began_s` is when the shown work began, on the clock; None: when the display starts.
    """

    def __init__(
        self, *, quiet: bool, console: Console | None, clock: Clock, began_s: float | None = None
    ) -> None:
        self._console = console or stderr_console()
        self._quiet = quiet
        self._clock = clock
        self._given_began_s = began_s
        self._began_s = clock() if began_s is None else began_s
        self._drawn_s = -float("inf")
        self._live: Live | None = None
        self._width, self._lengths = self._console.width, [0]  # lengths of the drawn lines
        if self._console.is_interactive and not quiet:
            # leave stdout alone: `--json` writes its document there
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
            )

    def __enter__(self) -> Self:
        if self._given_began_s is None:
            self._began_s = self._clock()
        with self._while_it_is_there():
            if self._live is not None:
                self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._while_it_is_there():
            if self._live is not None:
                self._live.stop()

    def message(self, text: str) -> None:
        """Print a line that stays."""
        if not self._quiet:
            with self._while_it_is_there():
                self._follow_resize()
                self._console.print(Text(clean(text, 2000)), soft_wrap=self._live is None)

    @contextmanager
    def _while_it_is_there(self) -> Iterator[None]:
        """Write to the terminal within this context; if it was closed, only the display ends.

        The run continues without a message; the same for a full disk.
        """
        try:
            yield
        except OSError:
            self._quiet, self._live = True, None

    def _redraw(self, *, now: bool = False) -> None:
        if self._live is None or (not now and self._clock() - self._drawn_s < _REDRAW_S):
            return
        self._drawn_s = self._clock()
        with self._while_it_is_there():
            self._follow_resize()
            shown = self._renderable()
            self._lengths = [
                sum(segment.cell_length for segment in line)
                for line in self._console.render_lines(shown, pad=False)
            ]
            self._live.update(shown, refresh=True)

    def _follow_resize(self) -> None:
        """Erase lines that wrapped when the terminal became narrower, which rich ignores."""
        before, self._width = self._width, self._console.width
        if self._live is None or self._width >= before:
            return
        wrapped = sum(max(0, -(-length // self._width) - 1) for length in self._lengths)
        up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * wrapped
        if up:
            self._console.control(Control(*up))

    def _renderable(self) -> RenderableType:
        raise NotImplementedError
