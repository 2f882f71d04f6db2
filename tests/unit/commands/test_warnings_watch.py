"""torch's warnings reach the user and the run's report, over restarts, too."""

from __future__ import annotations

import os
from pathlib import Path

from ctrkit.commands.warnings_watch import WarningsWatch
from ctrkit.core.config import WorkloadSpec
from ctrkit.core.files import write_json
from ctrkit.core.runs import WARNINGS_FILE, RunFolder


def test_each_is_told_once_and_counts_add_up_over_restarts(tmp_path: Path) -> None:
    run = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    child, said = run.path / "child", list[str]()
    child.mkdir(exist_ok=True)
    watch = WarningsWatch(run, child, said.append)

    def write(counts: dict[str, int], moment: int) -> None:
        write_json(child / WARNINGS_FILE, counts)
        os.utime(child / WARNINGS_FILE, (moment, moment))
        watch.look()
        watch.look()

    watch.look()
    assert said == []
    watch.launched()
    write({"a": 1}, 10)
    write({"a": 5, "b": 1}, 20)
    watch.launched()
    write({"a": 2}, 30)
    assert said == ["torch warns: a", "torch warns: b"]
    assert run.info.warnings == {"a": 7, "b": 1}
    assert RunFolder.open(run.path).info.warnings == {"a": 7, "b": 1}


def test_a_file_that_is_damaged_says_nothing(tmp_path: Path) -> None:
    run = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    (run.path / WARNINGS_FILE).write_text("{")
    WarningsWatch(run, run.path, lambda _: None).look()
    assert run.info.warnings == {}
