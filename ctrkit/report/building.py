"""Shows progress while data is generated or ingested; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from ctrkit.report.live import stderr_console


@contextmanager
def build_display(*, quiet: bool = False) -> Iterator[Callable[[str, float], None]]:
    """Yields a function that shows what is done and the share of the whole: a bar, or lines."""
    console = stderr_console()
    if quiet or not console.is_terminal:
        said = ""

        def say(text: str, _share: float) -> None:
            nonlocal said
            if text != said and not quiet:
                console.print(text, soft_wrap=True)
            said = text

        yield say
        return
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda text, share: progress.update(task, description=text, completed=share)
