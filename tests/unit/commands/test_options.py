"""Checks of the options that commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.cli.options import as_written_today
from ctrkit.commands.options import cell_axes, read_common, read_time_limits, single_axes
from ctrkit.core.config import SCRIPT_TARGET, ScriptSpec, WorkloadSpec
from ctrkit.core.errors import UsageError
from ctrkit.core.runs import RunFolder
from ctrkit.supervise.time_limits import TimeLimits


def test_lists_become_checked_values_in_the_order_given() -> None:
    axes = cell_axes({"workers": "2, 0,2", "device": "auto", "pin": "true,false", "loader": None})
    assert axes == {"workers": (2, 0), "device": ("auto",), "pin": (True, False)}


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"workers": "-1"}, "--workers: is -1"),
        ({"batch_size": "0"}, "--batch-size: is 0"),
        ({"threads": "1.5"}, "--threads: '1.5' is not a whole number"),
        ({"start_method": "vfork"}, "--start-method: unknown 'vfork'; known are fork"),
        ({"pin": "maybe"}, "--pin: 'maybe' is neither true nor false"),
        ({"workers": ""}, "--workers: '' is not a whole number"),
    ],
)
def test_bad_values(axes: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        cell_axes(axes)


def test_training_takes_one_value() -> None:
    assert single_axes({"workers": (2,), "device": ("auto",)}) == {"workers": 2}
    with pytest.raises(UsageError, match="--workers 0,2: training takes one value"):
        single_axes({"workers": (0, 2)})


def test_a_workload_of_ones_own_is_named_absolutely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("")
    common = read_common(None, None, "mine.py:make", None, read_time_limits("5s"), None)
    assert common.target == f"{tmp_path}/mine.py:make"
    assert common.settings == {}
    sized = read_common(None, None, "mine.py:make", ["epochs=3", "batch_size=64"],
                        read_time_limits("5s"), None)  # fmt: skip
    assert sized.settings == {"epochs": 3, "batch_size": 64}
    with pytest.raises(UsageError, match="--set epochs=no: must be a whole number"):
        read_common(None, None, "mine.py:make", ["epochs=no"], read_time_limits("5s"), None)
    assert common.time_limits.stall_timeout_s == 5
    for data, phase, set_, named in (
        (tmp_path, None, None, "--data"),
        (None, "phase1", None, "--phase phase1"),
        (None, None, ["lr=0.5"], "--set lr=0.5"),
    ):
        with pytest.raises(UsageError, match=f"{named}.*mine.py:make has its .*settings"):
            read_common(data, phase, "mine.py:make", set_, TimeLimits(), None)


def test_a_workload_is_named_as_it_is_registered() -> None:
    common = read_common(None, "phase1", "mdaf", ["lr=0.5"], TimeLimits(), None)
    assert (common.target, common.settings["lr"]) == ("mdaf", 0.5)
    assert read_common(None, None, None, None, TimeLimits(), None).settings["name"] == "phase3"
    with pytest.raises(UsageError, match=r"no such workload; known are .*mdaf.*FILE.py:NAME"):
        read_common(None, None, "mdafs", None, TimeLimits(), None)


def test_time_limits_come_from_a_file_and_two_options(tmp_path: Path) -> None:
    path = tmp_path / "time-limits.toml"
    path.write_text('first_batch = "5m"\nvalidation = 90\nsteady_factor = 40\nmax_step = "1h"\n')
    time_limits = read_time_limits(file=path)
    assert (time_limits.first_batch_s, time_limits.validation_s) == (300, 90)
    assert (time_limits.steady_factor, time_limits.max_step_s) == (40, 3600)
    assert read_time_limits(max_step="20m", file=path).max_step_s == 1200
    assert read_time_limits() == TimeLimits()


def test_the_old_name_of_time_limits_still_works_but_not_for_a_script():
    given = ["probe", "--budgets", "a", "--budgets=b", "--budget", "5s", "--", "x", "--budgets"]
    assert as_written_today(given) == [
        "probe", "--time-limits", "a", "--time-limits=b", "--budget", "5s", "--", "x", "--budgets",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("first_batch = 'soon'", "first_batch: 'soon' is not a duration"),
        ("firstbatch = 5", "firstbatch: unknown key; known are startup, first_batch, "),
        ("steady_factor = 0", "steady_factor: is 0, but must be a number of at least 1"),
        ("= 5", "not valid TOML"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_bad_time_limits_file(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "time-limits.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_time_limits(file=path)


def test_numerics_are_lists_like_other_axes():
    assert cell_axes(
        {"optimizer": "adam,sparse-adam", "precision": "bf16", "compile": "false,true"}
    ) == {
        "optimizer": ("adam", "sparse-adam"), "precision": ("bf16",), "compile": (False, True),
    }  # fmt: skip
    with pytest.raises(UsageError, match="--precision: unknown 'int8'; known are float32, bf16"):
        cell_axes({"precision": "int8"})


def test_the_run_of_a_script_is_started_again_not_resumed(tmp_path: Path) -> None:
    script = ScriptSpec(command=["python", "t.py", "--name", "a b"], folder=str(tmp_path))
    spec = WorkloadSpec(target=SCRIPT_TARGET, script=script)
    run = RunFolder.create("train", ["train"], spec, tmp_path / "run")
    with pytest.raises(UsageError, match="ctrkit train -- python t.py --name 'a b'"):
        read_common(None, None, None, None, TimeLimits(), None, run.path)
