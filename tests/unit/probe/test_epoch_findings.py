"""Torch's warnings, in words for the reader."""

from __future__ import annotations

from ctrkit.probe.epoch_findings import _warning_words

FALLBACK = (
    "The operator 'aten::unique_dim' is not currently supported on the MPS backend and will fall "
    "back to run on the CPU. This may have performance implications."
)


def test_an_operation_that_mps_lacks_is_named_with_what_it_costs() -> None:
    words = _warning_words(FALLBACK, "")
    assert words.startswith("MPS has no aten::unique_dim: torch computes it on the CPU")
    assert "copies its data there and back" in words
    assert "in cpu-rows" in _warning_words(FALLBACK, " in cpu-rows")


def test_any_other_warning_is_told_as_it_is() -> None:
    assert _warning_words("Length of split", "") == "a warning of torch's own: Length of split"
