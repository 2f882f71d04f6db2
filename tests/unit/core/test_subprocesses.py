"""What another program prints, or nothing."""

from __future__ import annotations

from ctrkit.core.subprocesses import output_of


def test_a_command_that_is_missing_fails_or_takes_too_long_says_nothing() -> None:
    assert output_of(["no-such-command-anywhere"]) == ""
    assert output_of(["sh", "-c", "echo half; exit 1"]) == ""
    assert output_of(["sh", "-c", "echo half; exec sleep 30"], wait_s=0.2) == ""
    assert output_of(["echo", "word"]) == "word\n"
