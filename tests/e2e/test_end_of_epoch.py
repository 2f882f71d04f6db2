"""A workload whose parts sleep known times: the projection has each part; a NaN is reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Run

WORKLOAD = """
import time
import torch
from ctrkit.child.workloads.protocol import Task, Workload
from ctrkit.core.config import RunSizes

class Sleeps(Task):
    steps = 0
    def transfer(self, batch):
        return batch
    def train_step(self, batch, mark):
        time.sleep(0.05)
        self.steps += 1
    def validation_step(self, batch):
        time.sleep(0.05)
    def recent_loss(self):
        return float("nan") if self.steps >= 4 else 0.5
    def metrics(self):
        time.sleep(0.4)
        return {"loss": 0.5}
    def state_dict(self):
        time.sleep(0.3)
        return {"steps": self.steps}
    def load_state_dict(self, state):
        self.steps = state["steps"]

class Sleepy(Workload):
    name = "sleepy"
    def default_batch_size(self):
        return 4
    def sizes(self, batch_size):
        return RunSizes(epochs=2, train_batches=20, validation_batches=8)
    def train_loader(self, cell):
        return [torch.zeros(4)] * 20
    def validation_loader(self, cell):
        return [torch.zeros(4)] * 8
    def make_task(self, cell):
        return Sleeps()

def sleepy():
    return Sleepy()
"""


def test_each_part_of_an_epoch_is_projected_and_a_loss_that_is_nan_is_told(
    ctrkit: Run, tmp_path: Path
) -> None:
    (tmp_path / "sleepy.py").write_text(WORKLOAD)
    probed = ctrkit(
        "probe", "--workload", "sleepy.py:sleepy", "--device", "cpu", "--workers", "0",
        "--budget", "45s", "--json",
    )  # fmt: skip
    assert probed.returncode == 0, probed.stderr
    found = json.loads(probed.stdout)
    terms = found["projected_terms_s"]
    assert terms["training"] >= 19 * 0.05
    assert terms["validation"] >= 8 * 0.05
    assert terms["metrics"] >= 0.4
    assert terms["checkpoint"] >= 0.3
    assert found["projected_epoch_s"] == pytest.approx(sum(terms.values()), rel=0.01)
    (loss,) = [one["text"] for one in found["findings"] if one["stage"] == "loss"]
    assert "the training loss is nan at step 4 of a trial" in loss
    trained = ctrkit(
        "train", "--workload", "sleepy.py:sleepy", "--config",
        Path(found["run"]) / "recommendation.json", "--checkpoint-every", "0.2s", "--out", "run",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert "the training loss is nan at step 4 of epoch 1; the run continues" in trained.stderr
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    # an epoch of a second is saved every 0.2 s
    assert run["projection"]["projected_terms_s"]["within"] >= 4 * terms["checkpoint"]
    assert run["ending_s"] >= 8 * 0.05 + 0.4 + 0.3 - 0.2
