"""Placeholders of a command, their values, and hidden secrets."""

from __future__ import annotations

import pytest

from ctrkit.core.command_line import HIDDEN, filled, placeholders_of, without_secrets
from ctrkit.core.config import make_cell


def test_placeholders_are_found_within_words_and_named_once() -> None:
    command = ["python", "train.py", "-j{workers}", "--b={batch_size}", "{workers}", "{run}.pt"]
    assert placeholders_of(command) == ("workers", "batch_size")


def test_values_replace_placeholders_and_nothing_else() -> None:
    cell = make_cell(workers=3, start_method="fork", batch_size=64, device="cpu")
    command = ["t", "-j", "{workers}", "--opt={start_method},{batch_size}", '{"a": 1}', "{name}"]
    assert filled(command, cell) == ["t", "-j", "3", "--opt=fork,64", '{"a": 1}', "{name}"]


def test_without_workers_a_flag_still_gets_a_value() -> None:
    cell = make_cell(workers=0)
    assert filled(["{prefetch}", "{start_method}", "{workers}"], cell) == ["2", "spawn", "0"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--lr", "3e-4"], ["--lr", "3e-4"]),
        (["--api-key", "abc"], ["--api-key", HIDDEN]),
        (["--hub_token=abc"], [f"--hub_token={HIDDEN}"]),
        (["WANDB_API_KEY=abc", "python"], [f"WANDB_API_KEY={HIDDEN}", "python"]),
        (["--use-token", "--lr", "1"], ["--use-token", "--lr", "1"]),
        (["--password"], ["--password"]),
    ],
)
def test_values_of_secrets_are_not_shown(words: list[str], shown: list[str]) -> None:
    assert without_secrets(words) == shown
