"""Every command that README and docs/ show is run as a reader would, on small data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import ROOT, ctrkit_commands
from support import COMMAND

SCRIPT = """
import argparse
import os
import time

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    options, _ = argparse.ArgumentParser().parse_known_args()
    if "WORLD_SIZE" in os.environ:
        torch.distributed.init_process_group("gloo")
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = TensorDataset(torch.randn(640, 8), torch.randint(0, 2, (640,)))
    for epoch in range(2):
        for rows, labels in DataLoader(data, batch_size=16):
            time.sleep(0.01)
            loss = torch.nn.functional.cross_entropy(model(rows), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
"""
#: what a reader does not have: other machines, a package of docs/workload.md (test_plugin runs it)
ELSEWHERE = ("/shared/store", "circles", "results/runs/NAME", "tianchi-csv-folder")
#: exit codes that are right here, where 0 is not the only one: no accelerator, a noisy machine
ALSO_RIGHT = {"--device": (2, 3, 4), "--compare": (3, 5), "probe": (3,), "run": (2,)}


@dataclass(frozen=True)
class Place:
    """A folder in which the commands find what they name."""

    path: Path
    environment: dict[str, str]

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *words], cwd=self.path, env=self.environment, capture_output=True, text=True,
            timeout=280, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip


def examples() -> dict[str, str]:
    """The Python files of docs/loader.md by name."""
    page = (ROOT / "docs" / "loader.md").read_text()
    return {
        name: text
        for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        for name in re.findall(r"^# (\w+\.py)\n", text)
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    path = tmp_path_factory.mktemp("reader")
    tools = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"
    here = Place(path, os.environ | {"CTRKIT_HOME": str(path / "home"), "PATH": tools})
    (path / "train.py").write_text(SCRIPT)
    for name, text in examples().items():
        (path / name).write_text(text)
    rows = [f"{n % 40},{n % 25},{1_494_000_000 + n * 60},{n % 5 + 1}" for n in range(800)]
    (path / "log.csv").write_text("\n".join(["u,i,t,rating", *rows, ""]))
    size = ["--rows", "6000", "--users", "200", "--items", "400"]
    for name in ("small", "store"):
        assert here.run(["data", "synth", "--out", name, *size]).returncode == 0
    for name in ("baseline", "new"):
        shutil.copytree(ROOT / "tests" / "unit" / "report" / "golden" / "probe", path / name)
    done = here.run(["probe", "--budget", "20s", "--out", "probed", "--", "python", "train.py"])
    assert done.returncode == 0, done.stderr
    shutil.copy(path / "probed" / "recommendation.json", path)
    return here


@pytest.fixture(scope="module")
def asleep() -> Iterator[int]:
    """A process that waits, to be explained."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"]) as process:
        yield process.pid
        process.kill()


def unique() -> list[tuple[str, ...]]:
    return list(dict.fromkeys(shown.words for shown in ctrkit_commands()))


def smaller(words: Sequence[str], pid: int) -> list[str]:
    """The command on small data, in little time, into a folder of its own."""
    end = list(words).index("--") if "--" in words else len(words)
    own, script = list(words[:end]), list(words[end:])
    # ci.md keeps the options of its one cell in a variable
    own = [part for word in own for part in (["--workers", "0"] if word == "$cell" else [word])]
    own = [str(pid) if word == "12345" else word for word in own]
    name = own[0]
    if "--out" in own and name != "data":
        del own[own.index("--out") : own.index("--out") + 2]
    if name == "data" and "--out" in own:
        own[own.index("--out") + 1] += "-again"
    if name == "probe":
        own += ["--budget", "25s"]
    builtin = not script and "--workload" not in own and name in ("probe", "train", "doctor")
    if builtin and "--data" not in own:
        own += ["--data", "small"]
    if builtin and "--batch-size" not in own:
        own += ["--batch-size", "256"]
    if name == "train" and not script:
        own += ["--max-steps", "3"]
    return own + script


@pytest.mark.slow
@pytest.mark.parametrize("words", unique(), ids=" ".join)
def test_a_command_that_is_shown_works(place: Place, asleep: int, words: tuple[str, ...]) -> None:
    if any(name in word for name in ELSEWHERE for word in words):
        pytest.skip("needs what is not here")
    started = words[words.index("--") + 1] if "--" in words else "python"
    if shutil.which(started, path=place.environment["PATH"]) is None:
        pytest.skip(f"there is no {started} here")
    if "ts" in words:
        pytest.skip("test_tables_page runs it")
    asked = smaller(words, asleep)
    done = place.run(asked)
    also = [code for name, codes in ALSO_RIGHT.items() if name in asked for code in codes]
    assert done.returncode in (0, *also), (asked, done.stdout[-2000:], done.stderr[-2000:])
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
