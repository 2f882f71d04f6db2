"""What a plug-in's author gets for a few declarations: settings, metrics, differences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ctrkit.core.errors import UsageError
from ctrkit.core.plugins import Metric, Plugin, setting_differences


@dataclass(frozen=True, kw_only=True)
class Settings:
    name: str = ""
    epochs: int = 3
    lr: float = 0.1
    deep: bool = False


class Theirs(Plugin):
    name = "theirs"
    settings_type = Settings
    metrics = (Metric(name="loss", label="the loss", decimals=2), Metric(name="f1", live="F1"))

    def check_settings(self, settings: Settings, where: str) -> None:
        if settings.lr < 0:
            raise UsageError(f"{where}: lr is {settings.lr}")


def test_settings_are_read_from_defaults_a_file_and_overrides(tmp_path: Path) -> None:
    plugin = Theirs()
    assert plugin.read_settings(None, {}) == Settings()
    assert plugin.read_settings(None, {"lr": "1e-2", "deep": "true", "name": "x y"}) == Settings(
        lr=0.01, deep=True, name="x y"
    )
    file = tmp_path / "long.toml"
    file.write_text("epochs = 30\n")
    assert plugin.read_settings(str(file), {"lr": "1"}) == Settings(name="long", epochs=30, lr=1.0)
    assert plugin.title(plugin.read_settings(str(file), {})) == "long"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"lr": "high"}, "--set lr=high: lr: must be a number, not 'high'"),
        ({"depth": "3"}, "unknown key 'depth'; known are name, epochs, lr, deep"),
        ({"lr": "-1"}, "lr is -1"),
    ],
)
def test_bad_settings_are_a_line(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Theirs().read_settings(None, overrides)


def test_a_folder_of_phases_is_named_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "short.toml").write_text("epochs = 1\n")
    plugin = Theirs()
    plugin.phases, plugin.default_phase = tmp_path, "short"
    assert plugin.phase_names() == ["short"]
    assert plugin.read_settings(None, {}) == Settings(name="short", epochs=1)
    with pytest.raises(UsageError, match=r"'long' is neither a phase \(short\) nor a TOML file"):
        plugin.read_settings("long", {})


def test_without_settings_every_key_is_unknown() -> None:
    with pytest.raises(UsageError, match="unknown key 'lr'"):
        Plugin().read_settings(None, {"lr": "1"})


def test_settings_differ_in_what_changes_a_step_only() -> None:
    then = {"name": "a", "epochs": 3, "lr": 0.1}
    assert setting_differences(Theirs(), then, then | {"name": "b", "epochs": 9}) == ""
    assert setting_differences(Theirs(), then, then | {"lr": 0.2}) == "its lr is 0.1, not 0.2"


def test_metrics_are_shown_in_the_order_of_the_plugin_then_of_the_file() -> None:
    columns = ["epoch", "new", "f1", "rows", "loss", "wall_s", "learning_rate", "b", "c", "d"]
    found = Theirs().metrics_of(columns)
    assert [metric.name for metric in found] == ["loss", "f1", "new", "b", "c", "d"]
    assert [metric.left_out for metric in found] == [0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("decimals", "value", "text"),
    [
        (2, 0.567, "0.57"), (None, 0.5, "0.5000"), (None, 1e-9, "1e-09"),
        (None, 1e12, "1,000,000,000,000"), (None, None, ""), (None, 0.0, "0.0000"),
    ],
)  # fmt: skip
def test_numbers_show_as_many_digits_as_they_need(
    decimals: int | None, value: float | None, text: str
) -> None:
    assert Metric(name="x", decimals=decimals).text(value) == text


def test_whatever_a_stranger_raises_is_a_line() -> None:
    class Strange(Theirs):
        def check_settings(self, settings: Settings, where: str) -> None:
            raise KeyError("lr")

    with pytest.raises(UsageError, match="workload theirs: --set: KeyError: 'lr'"):
        Strange().read_settings(None, {})
    with pytest.raises(UsageError, match="its settings cannot be kept in run.json"):
        Theirs().plain(object())
