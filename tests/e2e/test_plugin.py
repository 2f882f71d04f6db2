"""A workload of another package, installed beside ctrkit: probed and trained by its name."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "example_plugin"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment that has what this one has, and the example package."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in here]
    (packages / "shared.pth").write_text("\n".join(lines) + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--disable-pip-version-check", "--target", packages, PACKAGE],
        check=True, timeout=120,
    )  # fmt: skip
    return folder / "bin" / "python"


def ctrkit(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "ctrkit", *words], cwd=folder, capture_output=True, text=True,
        timeout=200, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_it_is_probed_by_name(python: Path, tmp_path: Path) -> None:
    done = ctrkit(
        python, tmp_path, "probe", "--workload", "circles", "--workers", "0", "--budget", "15s",
        "--set", "epochs=7", "--out", "run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["cell"]["loader"], found["cell"]["batch_size"]) == ("custom", 100)
    assert found["projected_total_s"] > found["projected_epoch_s"] > 0
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (run["workload"]["target"], run["workload"]["phase"]["epochs"]) == ("circles", 7)
    assert (run["sizes"]["epochs"], run["workload_fingerprint"] != "") == (7, True)


def test_it_is_trained_by_name_with_its_own_metrics_and_watch(python: Path, tmp_path: Path) -> None:
    train = ["train", "--workload", "circles", "--out", "run"]
    done = ctrkit(python, tmp_path, *train, "--set", "epochs=3")
    assert done.returncode == 0, done.stderr
    assert "accuracy 0." in done.stderr
    with open(tmp_path / "run" / "epochs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "epoch", "rows", "wall_s", "learning_rate", "train_loss", "val_accuracy", "weight_norm"
    ]  # fmt: skip
    assert [row["rows"] for row in rows] == ["2000"] * 3
    assert (tmp_path / "run" / "checkpoints" / "best.pt").is_file()
    best = max(float(row["val_accuracy"]) for row in rows)
    shown = ctrkit(python, tmp_path, "report", "run").stdout
    assert f"accuracy {best:.3f} in epoch" in shown
    assert "weight_norm" in shown

    # its patience ends a run that cannot get better
    done = ctrkit(
        python, tmp_path, "train", "--workload", "circles", "--out", "still", "--set", "lr=0.0",
        "--set", "epochs=9",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "still" / "epochs.csv").read_text().splitlines()) == 1 + 3

    done = ctrkit(python, tmp_path, "train", "--resume", "run", "--set", "lr=0.5")
    assert done.returncode == 2
    assert "its lr is 0.05, not 0.5" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workload", "circle"], "there is no such workload; known are circles, mdaf"),
        (
            ["--workload", "circles", "--set", "lr=high"],
            "--set lr=high: lr: must be a number, not 'high'",
        ),
        (["--workload", "circles", "--set", "layers=3"], "unknown key 'layers'; known are epochs"),
        (["--workload", "circles", "--phase", "phase3"], "circles has none"),
        (["--workload", "circles", "--data", "."], "workload circles brings its own data"),
    ],
)
def test_what_it_does_not_know_is_exit_code_2(
    python: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    done = ctrkit(python, tmp_path, "probe", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
