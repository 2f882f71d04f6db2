"""`ctrkit probe -- python train.py` on scripts that know nothing of ctrkit."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import COMMAND, Run

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A script in a folder of its own, where the command line runs."""
    shutil.copy(SCRIPTS / "waits.py", tmp_path / "waits.py")
    return "waits.py"


def test_workers_are_put_into_a_script_and_the_change_to_it_works(
    ctrkit: Run, tmp_path: Path, script: str
) -> None:
    done = ctrkit(
        "probe", "--workers", "0,4", "--budget", "60s", "--json", "--out", "probe",
        "--write-patch", "change.diff", "--", sys.executable, script,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    answer = found["script"]
    assert answer["as_written"]["workers"] == 0
    assert found["cell"]["workers"] == 4
    assert answer["faster_x_low"] > 1
    assert answer["experiment"] == "same batches"
    assert {t["verdict"] for t in found["trials"]} <= {"ok", "skipped"}
    (total,) = {t["projected_total_s"] > 0 for t in found["trials"] if t["projected_total_s"]}
    assert total
    run = json.loads((tmp_path / "probe" / "run.json").read_text())
    assert run["sizes"] == {**run["sizes"], "epochs": 3, "train_batches": 25}

    subprocess.run(["patch", "-p1", "-i", "change.diff"], cwd=tmp_path, check=True, timeout=60)
    assert "num_workers=4" in (tmp_path / script).read_text()

    done = ctrkit("report", "probe")
    assert "as fast as the script as written" in " ".join(done.stdout.split())


def test_a_flag_of_the_script_gets_the_value(ctrkit: Run, script: str) -> None:
    done = ctrkit(
        "probe", "--workers", "0,3", "--budget", "40s", "--json",
        "--", sys.executable, script, "-j", "{workers}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    launched = {t["cell"]["workers"] for t in found["trials"] if t["verdict"] == "ok"}
    assert launched == {0, 3}
    assert found["script"]["command"][-2:] == ["-j", str(found["cell"]["workers"])]
    assert found["script"]["change"] == ""


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("raise ValueError('no data here')", 4, "no data here"),
        ("print('hello')", 3, "no torch DataLoader"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--nope'])", 2, "exit code 2"),
    ],
)
def test_a_script_that_does_not_train_is_one_line(
    ctrkit: Run, tmp_path: Path, text: str, code: int, said: str
) -> None:
    (tmp_path / "bad.py").write_text(text)
    done = ctrkit("probe", "--budget", "30s", "--quiet", "--", sys.executable, "bad.py")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_probe_that_is_interrupted_ends_with_130_whatever_the_signal(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "train.py").write_text(
        "import time\nopen('ready', 'w').write('x')\ntime.sleep(600)\n"
    )
    probe = subprocess.Popen(
        [COMMAND, "probe", "--quiet", "--out", "run", "--", sys.executable, "train.py"],
        cwd=tmp_path, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(600):
        if (tmp_path / "ready").exists():
            break
        time.sleep(0.1)
    probe.send_signal(signal.Signals[name])
    _, said = probe.communicate(timeout=60)
    assert probe.returncode == 130, said
    assert "Traceback" not in said
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"
