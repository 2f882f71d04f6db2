"""When a run must be over."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime

import pytest

from ctrkit.core.errors import UsageError
from ctrkit.supervise.walltime import end_of_job, read_ends_by

NOW = datetime(2027, 1, 31, 12, 0, 0).timestamp()


def at(*parts: int) -> float:
    return datetime(*parts).timestamp()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6h", NOW + 6 * 3600),
        ("90", NOW + 90),
        ("17:30", at(2027, 1, 31, 17, 30)),
        ("07:30", at(2027, 2, 1, 7, 30)),  # tomorrow
        ("2027-02-03T04:05", at(2027, 2, 3, 4, 5)),
        ("2027-02-03 04:05:06", at(2027, 2, 3, 4, 5, 6)),
    ],
)
def test_what_the_user_says(text: str, expected: float) -> None:
    found = read_ends_by(text, NOW)
    assert found.at_unix_s == expected
    assert found.said_by == f"--ends-by {text}"


@pytest.mark.parametrize(
    "text", ["soon", "25:00", "12:60", "-3h", "2020-01-01T00:00", "", "20270101"]
)
def test_what_says_nothing_is_refused(text: str) -> None:
    if text == "20270101":  # a number of seconds, however many
        assert read_ends_by(text, NOW).at_unix_s > NOW
        return
    with pytest.raises(UsageError, match="--ends-by"):
        read_ends_by(text, NOW)


def nobody(argv: list[str]) -> str:
    raise AssertionError(f"{argv} was asked")


def test_slurm_says_it_itself_or_is_asked() -> None:
    job = {"SLURM_JOB_ID": "77"}
    found = end_of_job(job | {"SLURM_JOB_END_TIME": "1800000000"}, nobody)
    assert found is not None
    assert (found.at_unix_s, found.said_by) == (1_800_000_000.0, "the end of Slurm job 77")

    def scontrol(argv: list[str]) -> str:
        assert argv == ["scontrol", "show", "job", "-o", "77"]
        return "JobId=77 StartTime=2027-01-31T00:00:00 EndTime=2027-02-01T12:00:00 Deadline=N/A"

    found = end_of_job(job, scontrol)
    assert found is not None
    assert found.at_unix_s == at(2027, 2, 1, 12, 0)
    assert end_of_job(job, lambda argv: "JobId=77 EndTime=Unknown") is None
    assert end_of_job({"SLURM_JOB_ID": "77; rm"}, nobody) is None


def test_pbs_counts_from_the_jobs_begin() -> None:
    job = {"PBS_JOBID": "12.server", "PBS_WALLTIME": "7200"}
    found = end_of_job(job, nobody, lambda: NOW)
    assert found is not None
    assert (found.at_unix_s, found.said_by) == (NOW + 7200, "the walltime of PBS job 12")
    found = end_of_job(job | {"PBS_WALLTIME": "1-02:03:04"}, nobody, lambda: NOW)
    assert found is not None
    assert found.at_unix_s == NOW + 86400 + 2 * 3600 + 3 * 60 + 4
    assert end_of_job(job | {"PBS_WALLTIME": "?"}, nobody, lambda: NOW) is None
    assert end_of_job(job, nobody, lambda: None) is None


def test_outside_of_a_job_nothing_says_it() -> None:
    assert end_of_job({}, nobody, lambda: NOW) is None


#: Its session's leader ends at once; the child that is left asks when the job began.
ORPHAN = """
import os, sys, time
os.setsid()
if os.fork():
    os._exit(0)
while os.getppid() == int(sys.argv[1]):
    time.sleep(0.01)
from ctrkit.supervise.walltime import end_of_job
found = end_of_job({"PBS_JOBID": "12.server", "PBS_WALLTIME": "100"})
left_s = -1 if found is None else found.at_unix_s - time.time()
print(0 < left_s <= 100, flush=True)
"""


def test_a_pbs_job_whose_script_has_ended_or_is_hidden_is_timed_all_the_same() -> None:
    code = f"import os, sys; sys.argv.append(str(os.getpid()))\n{ORPHAN}"
    parent = f"import os, sys\nif os.fork():\n    os.wait()\nelse:\n    exec({code!r})"
    done = subprocess.run(
        [sys.executable, "-c", parent], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == "True", done.stderr
