"""The smallest probe: what it prints with `--json-lines`, and what its parent imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.core.records import AnswerSoFar
from ctrkit.core.values import decode

RUN = """
import json, os, sys
from ctrkit.cli.app import run_command
sys.argv = ["ctrkit", *json.loads(sys.argv[1])]
code = run_command()
sys.stdout.flush()
print("torch" in sys.modules, code, file=sys.stderr, flush=True)
os._exit(0)  # as the command does
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command whose last line on stderr says whether torch was imported, and its exit code."""
    return subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(words)], cwd=folder, capture_output=True, text=True,
        timeout=240, env=os.environ | {"CTRKIT_HOME": str(folder / "home")}, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    folder = tmp_path_factory.mktemp("probed")
    (folder / "loader.py").write_text("def make_loader():\n    return [[1.0, 2.0]] * 64\n")
    options = ("--budget", "30s", "--out", "run", "--json-lines")
    return run(folder, "probe", "--workload", "loader.py:make_loader", *options)


def test_each_line_is_an_answer_and_the_last_one_the_document(
    probed: subprocess.CompletedProcess[str],
) -> None:
    *answers, last = [json.loads(line) for line in probed.stdout.splitlines()]
    assert answers
    took_s = [answer.pop("wall_s") for answer in answers]
    assert took_s == sorted(took_s)
    newest = [decode(AnswerSoFar, answer, "a line") for answer in answers][-1]
    assert (newest.basis, newest.launches) == ("measured", last["launches"])
    assert newest.projected_epoch_s == last["projected_epoch_s"]
    assert {"run", "trials", "cell", "findings"} <= set(last)
    kept = json.loads((Path(last["run"]) / "recommendation.json").read_text())
    assert kept.items() <= last.items()
    assert "so far: an epoch" in probed.stderr


def test_the_parent_never_imports_torch(probed: subprocess.CompletedProcess[str]) -> None:
    assert probed.stderr.splitlines()[-1] == "False 0", probed.stderr
    folder = Path(json.loads(probed.stdout.splitlines()[-1])["run"])
    for words in (["--help"], ["report", str(folder)]):
        done = run(folder.parent, *words)
        assert done.stderr.splitlines()[-1] == "False 0", done.stderr
