import subprocess
import sys

from ctrkit.supervise import trial_input

READS_TWICE = """
import subprocess, sys
from ctrkit.supervise.trial_input import missing_input, trial_input
sys.stdin.buffer.raw.read(2)
for _ in range(2):
    subprocess.run(["cat"], stdin=trial_input(), check=True)
print(missing_input()[:9])
"""


def run(**stdin):
    return subprocess.run(
        [sys.executable, "-c", READS_TWICE], capture_output=True, text=True, check=True, timeout=60,
        **stdin,
    ).stdout  # fmt: skip


def test_each_trial_reads_the_file_from_where_ours_began(tmp_path):
    (tmp_path / "settings").write_text("12three.")
    with (tmp_path / "settings").open() as file:
        assert run(stdin=file) == "three.three.\n"


def test_a_pipe_is_read_by_no_trial_and_that_is_said():
    assert run(input="12three.") == "; a trial\n"


def test_without_any_input_nothing_is_said(monkeypatch):
    monkeypatch.setattr(trial_input, "_is", lambda kind: False)
    assert trial_input.trial_input() == subprocess.DEVNULL
    assert trial_input.missing_input() == ""
