"""Several processes that train together compute what one would, whatever happens to them."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import COMMAND

from ctrkit.core.progress import Progress, read_progress, read_ranks
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.data.synthetic import generate_store

LOOPS = Path(__file__).parent / "children" / "ranked.py"
SIZE = {"rows": 2500, "users": 150, "items": 3000}
ROWS, BATCH = 2059, 147  # of training: the last batch has a single one
EPOCHS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a store, and runs of one and of two ranks that nobody interrupted."""
    made = tmp_path_factory.mktemp("ranks")
    generate_store(made / "store", **SIZE)
    assert len(Store.open(made / "store").rows("train")) == ROWS
    assert ROWS % BATCH == 1
    for name, ranks in (("one", 1), ("two", 2)):
        done = ctrkit(made, name, *train(name, ranks))
        assert done.returncode == 0, done.stderr
    return made


def train(out: str, ranks: int) -> list[str]:
    return [
        "train", "--workload", f"{LOOPS}:recorded", "--batch-size", str(BATCH), "--threads", "1",
        "--epochs", str(EPOCHS), "--checkpoint-every", "0.3s", "--quiet", "--out", out,
        *(["--nproc", str(ranks)] if ranks > 1 else []),
    ]  # fmt: skip


def environment(folder: Path, name: str, dropout: float = 0.0) -> dict[str, str]:
    return os.environ | {
        "CTRKIT_HOME": str(folder / "home"),
        "RANKED_STORE": str(folder / "store"),
        "RANKED_ROWS": str(folder / f"{name}.rows"),
        "RANKED_DROPOUT": str(dropout),
    }


def ctrkit(
    folder: Path, name: str, *arguments: str, dropout: float = 0.0
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, env=environment(folder, name, dropout),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250,
    )  # fmt: skip


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts commands; what is left of them at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(name: str, *argv: str | Path, dropout: float = 0.0) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [str(word) for word in argv], cwd=folder, env=environment(folder, name, dropout),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for_step(path: Path, step: int, *processes: subprocess.Popen[str]) -> Progress:
    end_s = time.monotonic() + 120
    while True:
        progress = read_progress(path)
        if progress is not None and (progress.epoch, progress.step) >= (1, step):
            return progress
        for process in processes:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.002)


def pid_of(run: Path, rank: int) -> int:
    return {one.worker: one.pid for one in read_ranks(run / "child")}[rank]


def parameters(run: Path) -> dict[str, Any]:
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    return dict(state["task"]["model"])


def epochs(run: Path) -> list[dict[str, float]]:
    with open(run / "epochs.csv", newline="", encoding="utf-8") as file:
        return [
            {name: float(text) for name, text in row.items() if name != "wall_s"}
            for row in csv.DictReader(file)
        ]


def taken(folder: Path, name: str) -> dict[tuple[int, int], dict[int, list[int]]]:
    """For each epoch and batch the rows of each rank, of the last launch that took them."""
    found: dict[tuple[int, int], dict[int, list[int]]] = defaultdict(dict)
    for line in (folder / f"{name}.rows").read_text().splitlines():
        epoch, batch, rank, rows = json.loads(line)
        found[epoch, batch][rank] = rows
    return found


def assert_each_row_once(folder: Path, name: str) -> None:
    rows = Store.open(folder / "store").rows("train")
    parts = taken(folder, name)
    for epoch in range(1, EPOCHS + 1):
        seen = [
            row
            for (of_epoch, _), ranks in parts.items()
            if of_epoch == epoch
            for part in ranks.values()
            for row in part
        ]
        assert sorted(seen) == list(rows)


def assert_equal_bits(run: Path, other: Path) -> None:
    mine, others = parameters(run), parameters(other)
    for name, tensor in mine.items():
        assert torch.equal(tensor, others[name]), name
    assert epochs(run) == epochs(other)


# Sums in another order differ by rounding alone: a gradient, whose terms add up to about 1, by some
# hundred units of 2**-53. Adam divides it by its root plus 1e-8, so that a step is off by at most
# that share of the learning rate, which is 3e-4 at most.
STEPS = math.ceil(ROWS / BATCH) * EPOCHS
ROUNDING = STEPS * 3e-4 * 100 * 2.0**-53 / 1e-8


def assert_alike(run: Path, other: Path) -> None:
    mine, others = parameters(run), parameters(other)
    for name, tensor in mine.items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor, others[name], rtol=0, atol=ROUNDING, msg=name)
    # of the two classes' pairs, of which training has some 10**5, one may stand the other way round
    for row, other_row in zip(epochs(run), epochs(other), strict=True):
        assert row == pytest.approx(other_row, rel=1e-6, abs=1e-5)


def test_gradients_are_summed_exactly_in_every_way(tmp_path: Path) -> None:
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, LOOPS.with_name("exchange.py")], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | {
                "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            },
        )
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        ended = [process.communicate(timeout=100) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for rank, (out, err) in enumerate(ended):
        assert ranks[rank].returncode == 0, err
        found = json.loads(out)
        for way in ("sparse", "dense", "unknowing sparse", "unknowing dense"):
            assert found[way] < 1e-6, way
        assert (found["sum"], found["shared"]) == ([3, 2], "of rank 0")
        assert found["gathered"] == (None if rank else [0, 1])
        assert "the data of rank 1 is d1, but that of rank 0 is d0" in found["refused"]


def free_port() -> int:
    """Of those that no outgoing connection is given, which could take it before it is used."""
    while True:
        port = random.randrange(20_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def test_two_ranks_compute_what_one_does(folder: Path) -> None:
    # a mean of the ranks' AUCs would be off by some percent
    assert_alike(folder / "two", folder / "one")
    run = json.loads((folder / "two" / "run.json").read_text())
    assert run["status"] == "done"
    assert run["cell"]["nproc"] == 2
    assert not (folder / "two" / "incidents.jsonl").exists()


def test_each_rank_takes_its_part_of_the_same_order(folder: Path) -> None:
    assert_each_row_once(folder, "two")
    alone, together = taken(folder, "one"), taken(folder, "two")
    assert alone.keys() == together.keys()
    for place, whole in alone.items():
        parts = together[place]
        assert parts[0] + parts[1] == whole[0]
    sizes = {tuple(len(parts[rank]) for rank in (0, 1)) for parts in together.values()}
    assert sizes == {(74, 73), (1, 0)}


def test_a_rank_that_is_killed_costs_a_restart_and_no_row(folder: Path, start: Start) -> None:
    process = start("killed", COMMAND, *train("killed", 2))
    wait_for_step(folder / "killed" / "child" / "progress.bin", 7, process)
    pid = pid_of(folder / "killed", 1)
    os.kill(pid, signal.SIGKILL)
    words, _ = process.communicate(timeout=200)
    assert process.returncode == 0, words
    assert_equal_bits(folder / "killed", folder / "two")
    assert_each_row_once(folder, "killed")
    (line,) = (folder / "killed" / "incidents.jsonl").read_text().splitlines()
    incident = json.loads(line)
    assert incident["verdict"] == "worker-died"
    assert incident["reason"].startswith(f"rank 1 (pid {pid}) was killed by SIGKILL")
    assert (incident["epoch"], incident["action"]) == (1, "restarted")
    assert incident["cell_after"] == incident["cell_before"]


def test_ctrl_c_saves_and_other_numbers_of_ranks_go_on(folder: Path, start: Start) -> None:
    process = start("cut", COMMAND, *train("cut", 2))
    wait_for_step(folder / "cut" / "child" / "progress.bin", 6, process)
    process.send_signal(signal.SIGINT)
    words, _ = process.communicate(timeout=100)
    assert process.returncode == 130, words
    assert "continue with: ctrkit train --resume" in words
    outcome = json.loads((folder / "cut" / "child" / "outcome.json").read_text())
    assert outcome["interrupted"]
    done = ctrkit(folder, "cut", "train", "--resume", "cut", "--nproc", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    assert_alike(folder / "cut", folder / "one")
    resumed = json.loads((folder / "cut" / "child" / "outcome.json").read_text())
    assert outcome["steps_run"] + resumed["steps_run"] == STEPS


@pytest.mark.slow
def test_with_dropout_a_resumed_run_is_the_same_bit_for_bit(folder: Path, start: Start) -> None:
    done = ctrkit(folder, "wet", *train("wet", 2), dropout=0.3)
    assert done.returncode == 0, done.stderr
    process = start("wet-cut", COMMAND, *train("wet-cut", 2), dropout=0.3)
    wait_for_step(folder / "wet-cut" / "child" / "progress.bin", 10, process)
    process.send_signal(signal.SIGINT)
    words, _ = process.communicate(timeout=100)
    assert process.returncode == 130, words
    done = ctrkit(folder, "wet-cut", "train", "--resume", "wet-cut", "--quiet", dropout=0.3)
    assert done.returncode == 0, done.stderr
    assert_equal_bits(folder / "wet-cut", folder / "wet")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "waits"])
def test_a_rank_that_hangs_is_named(
    folder: Path, start: Start, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "waits":
        monkeypatch.setenv("RANKED_HANGS_ONCE", str(folder / "hung-once"))
    process = start(how, COMMAND, *train(how, 2), "--stall-timeout", "10s")
    if how == "stopped":
        wait_for_step(folder / how / "child" / "progress.bin", 12, process)
        os.kill(pid_of(folder / how, 1), signal.SIGSTOP)
    words, _ = process.communicate(timeout=200)
    assert process.returncode == 0, words
    assert_equal_bits(folder / how, folder / "two")
    lines = (folder / how / "incidents.jsonl").read_text().splitlines()
    (incident,) = [one for one in map(json.loads, lines) if one["action"] == "restarted"]
    assert incident["verdict"] == {"stopped": "stalled", "waits": "deadlock"}[how]
    assert re.match(r"rank 1 (\(pid \d+\) )?at \S+\.py:\d+ in ", incident["cause"])
    if how == "waits":
        assert "ranked.py" in incident["cause"]


TORCHRUN = Path(sys.executable).with_name("torchrun")


def torchrun(name: str, *options: str) -> list[str | Path]:
    return [TORCHRUN, *options, "-m", "ctrkit", *train(name, 1)]


@pytest.mark.slow
def test_torchrun_on_one_machine(folder: Path, start: Start) -> None:
    process = start("alone", *torchrun("alone", "--standalone", "--nproc-per-node", "2"))
    words, _ = process.communicate(timeout=200)
    assert process.returncode == 0, words
    assert_equal_bits(folder / "alone", folder / "two")


@pytest.mark.slow
def test_two_agents_of_torchrun_go_on_after_a_death(folder: Path, start: Start) -> None:
    options = (
        "--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "2", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--rdzv-id", "two-machines",
    )  # fmt: skip
    agents = [start("agents", *torchrun("agents", *options)) for _ in range(2)]
    progress = wait_for_step(folder / "agents/child/rank-1/progress.bin", 10, *agents)
    os.kill(progress.pid, signal.SIGKILL)
    for agent in agents:
        words, _ = agent.communicate(timeout=200)
        assert agent.returncode == 0, words
    assert_equal_bits(folder / "agents", folder / "two")
    assert_each_row_once(folder, "agents")
    (line,) = (folder / "agents" / "incidents.jsonl").read_text().splitlines()
    assert "torchrun started all 2 again" in json.loads(line)["reason"]
