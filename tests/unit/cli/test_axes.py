"""Each command that takes cells has an option for every axis of the table."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from ctrkit.cli.app import app
from ctrkit.core.cell import AXES


@pytest.mark.parametrize("name", ["probe", "train", "doctor"])
def test_every_axis_is_an_option_with_its_own_help(name: str) -> None:
    group: Any = typer.main.get_command(app)
    options = {option.opts[0]: option for option in group.commands[name].params}
    for axis in AXES.values():
        assert options[axis.option].help == axis.help
        assert options[axis.option].default is None


def test_what_is_typed_arrives_by_the_name_of_the_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("ctrkit.commands.probe.probe", lambda **values: seen.update(values))
    app(["probe", "--workers", "0,2", "--compile", "true"], standalone_mode=False)
    assert seen["axes"] == {"workers": (0, 2), "compile": (True,)}
