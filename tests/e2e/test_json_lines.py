"""`--json-lines`: the answers so far, and the document of `--json` as the last line."""

from __future__ import annotations

import json
from pathlib import Path

from support import Run

from ctrkit.core.records import AnswerSoFar
from ctrkit.core.values import decode


def test_each_line_is_an_answer_and_the_last_one_the_document(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text("def make_loader():\n    return [[1.0, 2.0]] * 64\n")
    done = ctrkit("probe", "--workload", "loader.py:make_loader", "--budget", "12s", "--json-lines")
    assert done.returncode == 0, done.stderr
    *answers, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers
    took_s = [answer.pop("wall_s") for answer in answers]
    assert took_s == sorted(took_s)
    newest = [decode(AnswerSoFar, answer, "a line") for answer in answers][-1]
    assert (newest.basis, newest.launches) == ("measured", last["launches"])
    assert newest.projected_epoch_s == last["projected_epoch_s"]
    assert {"run", "trials", "cell", "findings"} <= set(last)
    kept = json.loads((Path(last["run"]) / "recommendation.json").read_text())
    assert kept.items() <= last.items()
    assert "so far: an epoch" in done.stderr
