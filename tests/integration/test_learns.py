"""The loop learns what there is to learn: on generated data and on MovieLens-100k."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ctrkit.child.training.loop import run_training
from ctrkit.core.config import TrainPlan, make_cell
from ctrkit.core.epochs import EpochRow, read_epochs
from ctrkit.core.progress import ProgressWriter
from ctrkit.ctr.data.interactions import TableOptions, prepare_table
from ctrkit.ctr.data.synthetic import generate_store
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.workload import MdafWorkload


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def phase1(**changes: object) -> Phase:
    return load_phase("phase1", {key: str(value) for key, value in changes.items()})


def train(store: Path, run: Path, phase: Phase, epochs: int) -> list[EpochRow]:
    run.mkdir()
    plan = TrainPlan(run_folder=str(run), epochs=epochs)
    cell = make_cell(batch_size=phase.batch_size, threads=1)
    with ProgressWriter(run / "progress") as progress:
        outcome = run_training(
            MdafWorkload(store, phase), cell, plan, progress, stop_requested=lambda: False
        )
    assert outcome.finished
    return read_epochs(run / "epochs.csv")


@pytest.mark.parametrize(
    ("model", "rows", "users", "items", "history_length"),
    [
        ("bst", 10_000, 300, 150, 8),
        pytest.param("mamba", 40_000, 4000, 3000, 20, marks=pytest.mark.slow),
    ],
)
def test_generated_data(
    tmp_path: Path, model: str, rows: int, users: int, items: int, history_length: int
) -> None:
    """At least 60 % of what the true click probabilities would reach beyond chance."""
    meta = generate_store(tmp_path / "store", rows=rows, users=users, items=items)
    phase = phase1(model=model, batch_size=256, history_length=history_length)
    epochs = train(tmp_path / "store", tmp_path / "run", phase, epochs=2)
    possible = meta.oracle_auc["validation"] - 0.5
    assert possible > 0.2
    reached = max(row["val_auc"] for row in epochs if row["val_auc"] is not None) - 0.5
    assert 0.6 * possible <= reached <= possible + 0.02
    assert epochs[1]["train_loss"] < epochs[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "history_length", "epochs"), [("bst", 20, 2), ("mamba", 10, 1)])
def test_movielens_100k_beats_0_72(
    ratings: Path, tmp_path: Path, model: str, history_length: int, epochs: int
) -> None:
    prepare_table(
        ratings,
        tmp_path / "store",
        TableOptions.of(
            {"user": "user_id", "item": "item_id", "time": "timestamp", "label": "rating"},
            {},
            {"label_threshold": 4},
            split="random",
        ),
        memory_limit_bytes=10**9,
        threads=2,
    )
    phase = phase1(model=model, batch_size=512, history_length=history_length)
    history = train(tmp_path / "store", tmp_path / "run", phase, epochs)
    assert history[-1]["val_auc"] > 0.72
