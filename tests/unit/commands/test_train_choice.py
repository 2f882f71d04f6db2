"""What `ctrkit train --auto-device` chooses if its brief probe has no result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands import train
from ctrkit.commands.options import read_common, read_time_limits
from ctrkit.commands.restarts import RestartRules
from ctrkit.commands.timekeeping import TimeRules
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import WorkloadSpec
from ctrkit.core.errors import InconclusiveError, NoViableCellError
from ctrkit.supervise.stop import StopRequest

INSPECTION = Inspection(
    devices=["cpu"], device_names={}, torch_version="2", workload_name="own",
    workload_fingerprint="w", data_fingerprint="d", axes=["device", "workers"],
    loaders=["custom"], default_batch_size=32, has_task=True, sizes=None,
)  # fmt: skip


def choose(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Any:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("ctrkit.commands.probe.brief_probe", fails)
    monkeypatch.setattr(train, "known_runs", list)
    options = train.TrainOptions(
        auto_device=True, config=None, epochs=None, max_steps=None, checkpoint_every_s=600,
        rules=RestartRules(), time_rules=TimeRules(), quiet=True,
    )  # fmt: skip
    common = read_common(None, None, None, None, read_time_limits(), None)
    return train._choose(common, {}, options, WorkloadSpec(), INSPECTION, StopRequest())


def test_a_machine_too_busy_to_measure_trains_in_the_default_cell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    choice = choose(monkeypatch, InconclusiveError("other processes took 0.9 of 2 cores"))
    assert choice.cell.loader == "custom"
    assert choice.projection is None
    assert "other processes took 0.9 of 2 cores" in choice.why


def test_a_loop_that_cannot_run_is_still_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoViableCellError):
        choose(monkeypatch, NoViableCellError("no configuration can run"))


def test_a_training_imports_nothing_of_a_search() -> None:
    code = (
        "import sys, ctrkit.commands.train, ctrkit.commands.script_train\n"
        "print(sorted({'ctrkit.commands.probe', 'numpy', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
