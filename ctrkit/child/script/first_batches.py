"""Hashes rows and contents of a loader's first batches, by which trials are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctrkit.child.script import hashes
from ctrkit.child.script.seen_loaders import HASHED_BATCHES, Seen
from ctrkit.child.script.trouble import note_trouble

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer

_MOST_ROWS = 256


class FirstBatches:
    """The hashes of this process; a real run makes none, since nothing is compared with it."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer

    def wanted(self, seen: Seen) -> bool:
        """Whether to hash the first batches of this loader."""
        observer = self.observer
        return observer.is_trial and observer.train_number in (None, seen.number)

    def rows_named(self, seen: Seen, index: Any) -> None:
        """The sampler has drawn the rows of a batch."""
        if seen.rows_full or not self.wanted(seen):
            return
        seen.drawn += 1
        if seen.left_out and seen.drawn > seen.as_written:
            seen.rows_full = True
            return
        try:
            if index is None:
                seen.rows_full = True
            else:
                seen.note_rows(hashes.row_marks(index), _MOST_ROWS)
        except Exception as error:
            seen.rows_full = True
            note_trouble("rows could not be marked", error)

    def delivered(self, seen: Seen, batch: Any) -> None:
        """The loop has a batch."""
        if seen.left_out and seen.in_pass > seen.as_written:
            seen.hashes_full = True  # no other launch begins with these batches
        enough = seen.hashes_full or len(seen.hashes) >= HASHED_BATCHES
        if enough or not self.wanted(seen):
            return
        observer = self.observer
        began_s = observer.clock()
        seen.hashes.append(hashes.batch_hash(batch))
        if observer.driver is not None and seen is observer.train:
            observer.driver.leave_out(observer.clock() - began_s)
