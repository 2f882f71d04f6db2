"""The GitHub action's script with a fake `ctrkit`: each exit code becomes a verdict."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAND_IN = """#!/usr/bin/env bash
echo "$@" >> calls
command=$1
while [ $# -gt 0 ]; do
  case $1 in
    --out) mkdir "$2"; touch "$2/fresh" ;;
    --markdown) echo "a table" > "$2" ;;
  esac
  shift
done
if [ "$command" = probe ]; then exit "${PROBE_CODE:-0}"; else exit "${REPORT_CODE:-0}"; fi
"""


def gate(folder: Path, **settings: str) -> tuple[int, str]:
    """Exit code and verdict of the script in a folder."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "ctrkit").write_text(STAND_IN)
    (folder / "bin" / "ctrkit").chmod(0o755)
    (folder / "output").write_text("")
    done = subprocess.run(
        ["bash", ROOT / ".github" / "gate.sh"], cwd=folder, timeout=30, check=False,
        capture_output=True, text=True,
        env={
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CTRKIT_BASELINE": "base",
            "GITHUB_OUTPUT": "output", "GITHUB_STEP_SUMMARY": "summary",
            "GITHUB_EVENT_NAME": "pull_request", **settings,
        },
    )  # fmt: skip
    return done.returncode, (folder / "output").read_text().strip().removeprefix("verdict=")


@pytest.mark.parametrize(
    ("code", "verdict", "ends_with"),
    [(0, "same", 0), (3, "unsure", 0), (5, "slower", 5), (2, "not-comparable", 2), (1, "error", 1)],
)
def test_a_comparison_becomes_a_verdict(
    tmp_path: Path, code: int, verdict: str, ends_with: int
) -> None:
    (tmp_path / "base").mkdir()
    assert gate(tmp_path, REPORT_CODE=str(code)) == (ends_with, verdict)
    assert (tmp_path / "summary").read_text() == "a table\n"
    assert not (tmp_path / "base" / "fresh").exists()  # a pull request changes no baseline


def test_unsure_fails_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert gate(tmp_path, REPORT_CODE="3", CTRKIT_ACCEPT_UNSURE="false") == (3, "unsure")


def test_the_first_probe_of_the_main_branch_is_the_baseline(tmp_path: Path) -> None:
    main = {"GITHUB_EVENT_NAME": "push", "GITHUB_REF_NAME": "main", "CTRKIT_DEFAULT_BRANCH": "main"}
    assert gate(tmp_path, **main) == (0, "baseline")
    assert (tmp_path / "base" / "fresh").exists()
    other = tmp_path / "other"
    other.mkdir()
    assert gate(other, **(main | {"GITHUB_REF_NAME": "topic"})) == (0, "baseline")
    assert not (other / "base").exists()


def test_a_command_and_options_reach_the_probe_as_they_were_quoted(tmp_path: Path) -> None:
    settings = {
        "CTRKIT_ARGUMENTS": "--workers 0,2",
        "CTRKIT_COMMAND": "python 'my train.py' --lr 1",
    }
    assert gate(tmp_path, CTRKIT_BUDGET="90s", **settings)[0] == 0
    assert (tmp_path / "calls").read_text().splitlines()[0] == (
        "probe --budget 90s --out ctrkit-new --quiet --workers 0,2 -- python my train.py --lr 1"
    )


def test_a_probe_that_fails_fails_the_gate(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert gate(tmp_path, PROBE_CODE="4") == (4, "")
