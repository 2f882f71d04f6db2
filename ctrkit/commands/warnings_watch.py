"""Shows torch's own warnings during a real run, and keeps them for its report."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json
from ctrkit.core.runs import WARNINGS_FILE, RunFolder
from ctrkit.report.words import clean


class WarningsWatch:
    """Watches the warnings that a run's children keep.

    Args:
        run: the run folder; its `run.json` gets the counts.
        child: the children's folder.
        tell: shows a line.
    """

    def __init__(self, run: RunFolder, child: Path, tell: Callable[[str], None]) -> None:
        self._run, self._path, self._tell = run, child / WARNINGS_FILE, tell
        self._before = dict(run.info.warnings)  # including earlier children
        self._told = set(self._before)
        self._looked: float | None = None

    def launched(self) -> None:
        """A new child starts, and counts from 0."""
        self._before, self._looked = dict(self._run.info.warnings), None
        self._path.unlink(missing_ok=True)

    def look(self) -> None:
        """Report new warnings."""
        try:
            changed = self._path.stat().st_mtime
        except OSError:
            return
        if changed == self._looked:
            return
        self._looked = changed
        counts: dict[str, int] = {}
        with suppress(UsageError):
            counts = {str(text): int(count) for text, count in read_json(self._path).items()}
        for text in counts:
            if text not in self._told:
                self._told.add(text)
                self._tell(f"torch warns: {clean(text)}")
        total = {text: self._before.get(text, 0) + count for text, count in counts.items()}
        self._run.update(warnings=self._before | total)
