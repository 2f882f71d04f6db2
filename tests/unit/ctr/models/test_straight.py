"""The step equals the straightforward one of the bench: same losses, same gradients."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ctrkit.ctr.models.mdaf import MDAF
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.training.objective import objective
from ctrkit.ctr.training.optimizers import clip_gradients, make_optimizer

BASELINE = Path(__file__).parents[4] / "bench" / "step_baseline.py"
VOCABULARY = {"item": 40, "category": 9, "user": 30, "history_item": 40, "history_category": 9}
LENGTH = 7
PHASE = load_phase("phase3")


@pytest.fixture(scope="module")
def baseline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_step_baseline", BASELINE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def batch(rows: int, seed: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)

    def ids(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, (rows, *shape), generator=random, dtype=torch.int32)

    return {
        "item": ids(40), "category": ids(9), "user": ids(30), "hour": ids(24), "weekday": ids(7),
        "history_item": ids(40, LENGTH), "history_category": ids(9, LENGTH),
        "history_length": ids(LENGTH + 1), "label": ids(2).double(),
    }  # fmt: skip


@pytest.mark.parametrize("scan", ["materialised", "loop"])
@pytest.mark.parametrize("clip", [1e-3, 1e3])
def test_losses_of_several_steps_are_the_same(baseline: ModuleType, scan: str, clip: float) -> None:
    torch.manual_seed(0)
    ours = MDAF(VOCABULARY, model="mamba", dropout=0.3, history_length=LENGTH)
    theirs = baseline.StraightMDAF(VOCABULARY, model="mamba", dropout=0.3, history_length=LENGTH)
    theirs.scan = baseline.SCANS[scan]
    theirs.load_state_dict(ours.state_dict())
    # Adam divides a gradient that is zero but for rounding by a root of the same size: only in
    # double precision is that nothing beside the 1e-8 which it adds
    ours, theirs = ours.double(), theirs.double()
    tables = ours.tables()
    fast = make_optimizer("adam", list(ours.parameters()), tables, PHASE)
    slow = torch.optim.Adam(theirs.parameters(), lr=PHASE.lr, weight_decay=PHASE.weight_decay)
    for group in (*fast.param_groups, *slow.param_groups):
        group["lr"] = 0.01
    for step in range(4):
        data, losses = batch(40, step), []
        for model, optimizer in ((ours, fast), (theirs, slow)):
            torch.manual_seed(step)
            optimizer.zero_grad()
            logits, _ = model(data)
            loss = objective(logits, data["label"], 0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
        norm = clip_gradients(list(ours.parameters()), clip, tables)
        other = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        torch.testing.assert_close(norm, other, rtol=1e-6, atol=1e-12)
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        if step == 0:
            for (name, one), two in zip(ours.named_parameters(), theirs.parameters(), strict=True):
                torch.testing.assert_close(one.grad, two.grad, rtol=1e-6, atol=1e-12, msg=name)
        for optimizer in (fast, slow):
            optimizer.step()
