"""Users' own loops: the examples of docs/loader.md, a loader that deadlocks, leftovers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import Run, running_in

LOADER_PAGE = Path(__file__).parents[2] / "docs" / "loader.md"
ENDINGS = Path(__file__).parents[1] / "integration" / "children" / "endings.py"

DEADLOCK = """
import threading
import torch
from torch.utils.data import DataLoader, Dataset

LOCK = threading.Lock()

class Rows(Dataset):
    def __len__(self):
        return 4000
    def __getitem__(self, index):
        with LOCK:
            return torch.tensor(float(index))

def make_loader(*, workers, start_method, batch_size):
    if workers and start_method == "fork":
        # a thread that holds the lock at the moment of the fork, as a logger or a pool may
        release = threading.Event()
        def hold():
            with LOCK:
                release.wait(1.0)
        threading.Thread(target=hold, daemon=True).start()
    return DataLoader(Rows(), batch_size=batch_size, num_workers=workers,
                      multiprocessing_context=start_method if workers else None)
"""


def test_a_deadlock_in_one_cell_does_not_stop_the_matrix(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "locked.py").write_text(DEADLOCK)
    done = ctrkit(
        "probe", "--workload", "locked.py:make_loader", "--workers", "0,1", "--start-method",
        "fork,spawn", "--batch-size", "64", "--budget", "60s", "--stall-timeout", "5s", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    verdicts = {
        (trial["cell"]["workers"], trial["cell"]["start_method"]): trial["verdict"]
        for trial in found["trials"]
        if trial["launch"] <= 1
    }
    assert verdicts == {(0, None): "ok", (1, "fork"): "deadlock", (1, "spawn"): "ok"}
    (hung,) = [trial for trial in found["trials"] if trial["verdict"] == "deadlock"]
    evidence = Path(found["run"]) / hung["evidence"]
    assert list(evidence.glob("*stack*"))
    assert "locked.py" in "".join(
        path.read_text(errors="replace") for path in evidence.rglob("*") if path.is_file()
    )
    assert running_in(tmp_path) == []


def test_nothing_viable_is_exit_code_4(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "def make_loader(*, workers):\n    raise RuntimeError('no such bucket')\n"
    )
    done = ctrkit("probe", "--workload", "broken.py:make_loader", "--workers", "0", "--json")
    assert done.returncode == 4, done.stderr
    assert "no such bucket" in done.stderr
    (trial,) = json.loads(done.stdout)["trials"]
    assert trial["verdict"] == "setup-failed"
    assert "no such bucket" in trial["reason"]


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("return lambda: 1", 2, "returned the function <lambda> itself"),
        ("raise SystemExit(3)", 4, "SystemExit: 3 (at all.py:3 in make_loader)"),
        ("os._exit(0)", 4, "os._exit(0) was called at all.py:3 in make_loader"),
    ],
)
def test_what_fails_in_every_cell_is_one_line_after_two_trials(
    ctrkit: Run, tmp_path: Path, body: str, code: int, words: str
) -> None:
    (tmp_path / "all.py").write_text(f"import os\ndef make_loader(*, workers):\n    {body}\n")
    done = ctrkit(
        "probe", "--workload", "all.py:make_loader", "--workers", "0,1,2,3", "--budget", "120s",
        "--json", "--quiet",
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    (last,) = done.stderr.splitlines()
    assert words in last
    assert "the other 2 configurations were not tried" in last
    launched = [trial for trial in json.loads(done.stdout)["trials"] if trial["launch"]]
    assert len(launched) == 2


def test_an_endless_loader_is_ranked_but_not_projected(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(
        "import itertools\n"
        "def make_loader(*, batch_size):\n"
        "    return ([0.0] * batch_size for _ in itertools.count())\n"
    )
    done = ctrkit(
        "probe", "--workload", "endless.py:make_loader", "--batch-size", "8", "--budget", "15s",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["projected_total_s"] is None
    assert any("endless" in f["text"] or "length" in f["text"] for f in found["findings"])


def test_a_training_run_that_fails_is_exit_code_6(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "boom.py").write_text(
        "class Loader:\n"
        "    def __iter__(self):\n"
        "        yield [0.0]\n"
        "        raise RuntimeError('disk on fire')\n"
        "def make_loader(*, batch_size):\n"
        "    return Loader()\n"
    )
    done = ctrkit("train", "--workload", "boom.py:make_loader", "--out", "run")
    assert done.returncode == 6, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "crashed: the main process raised: RuntimeError: disk on fire" in last
    assert "(in stage 'step')" in last
    assert (tmp_path / "run" / "evidence" / "train-1").is_dir()
    assert len((tmp_path / "run" / "incidents.jsonl").read_text().splitlines()) == 1
    assert "disk on fire" in ctrkit("report", "run").stdout


def test_a_run_that_loses_a_worker_ends_or_goes_on_as_asked(ctrkit: Run, tmp_path: Path) -> None:
    own = ["--workload", f"{ENDINGS}:loses_a_worker", "--workers", "1", "--start-method", "fork"]
    done = ctrkit("train", *own, "--epochs", "2", "--no-fallback", "--out", "run")
    assert done.returncode == 6, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "worker-died" in last
    assert f"evidence in {tmp_path / 'run' / 'evidence' / 'train-1'}" in last
    assert f"continue with: ctrkit train --resume {tmp_path / 'run'}" in last
    text = " ".join(ctrkit("report", "run").stdout.split())
    assert "done The run was stopped. why --no-fallback." in text

    # in its second epoch, the third of the run, it loses a worker again
    done = ctrkit("train", "--resume", "run", "--epochs", "3")
    assert done.returncode == 0, done.stderr
    assert "with cpu-custom-w1-fork" in done.stderr
    assert "restarted from epoch 3, batch 0 in another cell" in done.stderr
    (found,) = json.loads(ctrkit("report", "run", "--json").stdout)["runs"]
    assert [row["rows"] for row in found["epochs"]] == [1000] * 3
    assert [incident["action"] for incident in found["incidents"]] == ["stopped", "restarted"]
    assert [incident["evidence"] for incident in found["incidents"]] == [
        "evidence/train-1", "evidence/train-2",
    ]  # fmt: skip

    done = ctrkit("train", "--resume", "run", "--epochs", "4")
    assert done.returncode == 0, done.stderr
    assert "with cpu-custom-w0" in done.stderr


def examples() -> list[tuple[str, str]]:
    """(file name, text) of the Python examples of the page that say which file they are."""
    blocks = re.findall(r"```python\n(.*?)```", LOADER_PAGE.read_text(), flags=re.DOTALL)
    named = [(re.match(r"# (\w+\.py)", block), block) for block in blocks]
    return [(match[1], block) for match, block in named if match]


@pytest.mark.parametrize(("name", "text"), examples(), ids=[name for name, _ in examples()])
def test_the_examples_of_the_readme(ctrkit: Run, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    entry = re.findall(rf"--workload {name}:(\w+)", LOADER_PAGE.read_text())
    assert entry
    done = ctrkit(
        "probe", "--workload", f"{name}:{entry[0]}", "--workers", "0,1", "--batch-size", "64",
        "--budget", "30s", "--epochs", "3", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["projected_total_s"] > found["projected_epoch_s"] > 0
    assert sum(trial["verdict"] == "ok" for trial in found["trials"]) >= 2


def test_there_is_an_example_of_each_kind() -> None:
    texts = [text for _, text in examples()]
    assert any("def make_loader" in text for text in texts)
    assert any("Workload" in text for text in texts)
