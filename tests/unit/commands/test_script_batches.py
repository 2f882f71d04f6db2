"""The largest batch with which a script fits, by made-up launches."""

from __future__ import annotations

import pytest

from ctrkit.commands.script_batches import first_request, fitting_batch_words


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (300, "; batch 256 fits, and 384 does not (--batch-size 256): another batch size is"),
        (400, "; batch 384 fits, and 512 does not (--batch-size 384)"),
        (0, ""),
    ],
)
def test_the_largest_that_fits_is_offered(most: int, words: str) -> None:
    asked = []

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= most

    found = fitting_batch_words(1024, fits)
    assert found.startswith(words)
    assert bool(found) == bool(words)
    assert len(asked) <= 5


def test_a_script_that_fails_otherwise_ends_the_search() -> None:
    assert fitting_batch_words(1024, lambda size: False if size > 600 else None) == ""
    answers = {512: True, 768: None}
    assert fitting_batch_words(1024, lambda size: answers[size]).startswith(
        "; batch 512 fits, and 1,024 does not"
    )


def test_a_launch_has_the_values_of_the_placeholders() -> None:
    request = first_request({"batch_size": 64, "workers": 2}, "batch 64")
    assert (request.cell.batch_size, request.cell.workers, request.label) == (64, 2, "batch 64")
