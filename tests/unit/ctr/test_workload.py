import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctrkit.child.training.checkpoint import load_checkpoint
from ctrkit.child.training.loop import run_training
from ctrkit.child.training.stamps import STAMPS_VARIABLE
from ctrkit.child.training.trial import run_trial
from ctrkit.core.config import ChildSpec, TrainPlan, WindowPlan, WorkloadSpec, make_cell
from ctrkit.core.epochs import read_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import ProgressWriter
from ctrkit.ctr.data.synthetic import generate_store
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.training.optimizers import lr_at
from ctrkit.ctr.workload import MdafTask, MdafWorkload
from ctrkit.measure.steps import stage_means_s

CELL = make_cell(batch_size=128, threads=1)
VOCABULARY = {"item": 9, "category": 5, "user": 7, "history_item": 9, "history_category": 5}
# dropout is on, and the schedule moves: both must come back exactly
PHASE = Phase(model="bst", batch_size=128, history_length=6, epochs=2, warmup_epochs=0.5)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "store"
    generate_store(folder, rows=900, users=60, items=80, seed=1)
    return folder


def make_batch(rows, seed=0):
    random = torch.Generator().manual_seed(seed)

    def ids(high, *shape):
        return torch.randint(0, high, (rows, *shape), generator=random, dtype=torch.int32)

    return {
        "user": ids(7), "item": ids(9), "category": ids(5), "hour": ids(24), "weekday": ids(7),
        "label": ids(2).float(), "history_item": ids(9, 6), "history_category": ids(5, 6),
        "history_length": ids(7),
    }  # fmt: skip


def make_task(**changes):
    phase = Phase(**{"model": "bst", "history_length": 6, "epochs": 2, **changes})
    return MdafTask(VOCABULARY, phase, steps_per_epoch=10, device=torch.device("cpu"))


def parameters(task):
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def train(folder, data, phase=PHASE, stop=lambda: False, cell=CELL, **plan):
    folder.mkdir(exist_ok=True)
    plan = TrainPlan(run_folder=str(folder), **{"epochs": 2, **plan})
    with ProgressWriter(folder / "progress") as progress:
        return run_training(MdafWorkload(data, phase), cell, plan, progress, stop_requested=stop)


def test_parameters_depend_on_the_seed_alone():
    torch.rand(7)
    first = parameters(make_task())
    torch.rand(3)
    assert torch.equal(parameters(make_task()), first)
    assert not torch.equal(parameters(make_task(seed=43)), first)


def test_a_step_marks_its_stages_and_follows_the_schedule():
    task, marks = make_task(), []
    assert task.recent_loss() is None
    task.begin_epoch(1)
    for step in (1, 2, 3):
        before = parameters(task)
        task.train_step(make_batch(16, step), marks.append)
        assert not torch.equal(parameters(task), before)
        assert task.optimizer.param_groups[0]["lr"] == lr_at(step, 10, task.phase, 2)
    assert marks == ["forward", "backward", "optimizer"] * 3
    assert 0 < task.recent_loss() < 2


def test_the_last_step_of_the_horizon_changes_nothing():
    task = make_task(warmup_epochs=0)
    task.begin_epoch(1)
    task.step = 19
    before = parameters(task)
    task.train_step(make_batch(16), lambda stage: None)
    assert torch.equal(parameters(task), before)


def test_gradients_are_clipped():
    task = make_task(grad_clip=1e-3)
    task.begin_epoch(1)
    task.train_step(make_batch(64), lambda stage: None)
    norm = torch.cat([p.grad.flatten() for p in task.model.parameters()]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-2)


def test_metrics_are_those_of_the_predictions():
    from sklearn.metrics import log_loss, roc_auc_score

    task = make_task(label_smoothing=0.1)
    task.begin_epoch(1)
    train_batches = [make_batch(32, seed) for seed in range(3)]
    for batch in train_batches:
        task.train_step(batch, lambda stage: None)
    task.begin_validation()
    batch = make_batch(100, 9)
    task.validation_step(batch)
    found = task.metrics()

    with torch.no_grad():
        logits, gate = task.model(batch)
    label, chance = batch["label"].numpy(), torch.sigmoid(logits.double()).numpy()
    assert found["val_auc"] == pytest.approx(roc_auc_score(label, chance))
    assert found["val_logloss"] == pytest.approx(log_loss(label, chance))
    target = label * 0.9 + 0.05
    smoothed = -np.mean(target * np.log(chance) + (1 - target) * np.log(1 - chance))
    assert found["val_loss"] == pytest.approx(smoothed)
    assert found["gate_mean"] == pytest.approx(gate.mean().item(), rel=1e-5)
    assert found["gate_std"] == pytest.approx(gate.std(correction=0).item(), rel=1e-4)
    assert found["train_val_gap"] == found["train_auc"] - found["val_auc"]
    assert found["learning_rate"] == lr_at(3, 10, task.phase, 2)
    assert len(task.train_scores.arrays()["label"]) == 96
    assert 0 < found["val_gauc"] < 1


def test_the_training_loss_is_the_mean_of_what_was_optimised():
    task, losses = make_task(label_smoothing=0.1), []
    task.begin_epoch(1)
    for seed, rows in ((0, 32), (1, 32), (2, 8)):
        task.train_step(make_batch(rows, seed), lambda stage: None)
        losses.append((task.recent_loss(), rows))
    expected = sum(loss * rows for loss, rows in losses) / 72
    assert task.metrics()["train_loss"] == pytest.approx(expected, rel=1e-6)


def test_without_validation_rows_there_are_no_validation_figures():
    task = make_task()
    task.begin_epoch(1)
    task.train_step(make_batch(32), lambda stage: None)
    assert set(task.metrics()) == {
        "train_loss", "train_auc", "train_logloss", "train_gauc", "learning_rate",
    }  # fmt: skip


def test_validation_leaves_model_and_random_streams_alone():
    task = make_task()
    task.begin_epoch(1)
    task.train_step(make_batch(32), lambda stage: None)
    before, stream = parameters(task), torch.get_rng_state()
    task.begin_validation()
    task.validation_step(make_batch(32, 5))
    assert torch.equal(parameters(task), before)
    assert torch.equal(torch.get_rng_state(), stream)


def test_sizes_and_fingerprints(data):
    workload = MdafWorkload(data, PHASE)
    sizes = workload.sizes(100)
    assert sizes.train_rows + sizes.validation_rows == 900
    assert sizes.train_batches == math.ceil(sizes.train_rows / 100)
    assert (sizes.epochs, sizes.patience) == (2, 5)
    assert len(workload.train_loader(CELL)) == workload.sizes(128).train_batches
    assert len(workload.validation_loader(CELL)) == workload.sizes(128).validation_batches
    same = MdafWorkload(data, replace(PHASE, name="x", epochs=9, patience=1))
    other = MdafWorkload(data, replace(PHASE, dropout=0.1))
    assert same.fingerprint() == workload.fingerprint() != other.fingerprint()
    assert workload.data_fingerprint() == workload.store.meta.fingerprint


def test_a_block_shuffle_is_another_experiment(data):
    phases = PHASE, replace(PHASE, shuffle="block", block_rows=32)
    full, block = (MdafWorkload(data, phase) for phase in phases)
    assert full.fingerprint() != block.fingerprint()
    rows = [torch.cat([b["item"] for b in w.train_loader(CELL)]).tolist() for w in (full, block)]
    assert rows[0] != rows[1]
    assert sorted(rows[0]) == sorted(rows[1])


@pytest.mark.parametrize(
    ("model", "calls", "epoch", "batch"),
    [("bst", 2, 1, 2), ("bst", 6, 1, 6), ("bst", 12, 2, 3), ("mamba", 12, 2, 3)],
    ids=["in the first epoch", "in a validation", "in the second epoch", "mamba"],
)
def test_interrupted_and_resumed_is_the_same_run_bit_for_bit(
    data, tmp_path, model, calls, epoch, batch
):
    whole, cut, phase = tmp_path / "whole", tmp_path / "cut", replace(PHASE, model=model)
    train(whole, data, phase)
    left = iter([False] * calls)
    first = train(cut, data, phase, stop=lambda: next(left, True))
    assert first.interrupted
    position = load_checkpoint(cut / "checkpoints/last.pt")["position"]
    assert (position["epoch"], position["batch"]) == (epoch, batch)
    second = train(cut, data, phase, resume=True)
    assert second.finished
    assert first.steps_run + second.steps_run == 2 * math.ceil(741 / 128)
    states = [load_checkpoint(folder / "checkpoints/last.pt") for folder in (whole, cut)]
    for name, tensor in states[0]["task"]["model"].items():
        assert torch.equal(tensor, states[1]["task"]["model"][name]), name
    for a, b in zip(*(read_epochs(folder / "epochs.csv") for folder in (whole, cut)), strict=True):
        assert {**a, "wall_s": 0} == {**b, "wall_s": 0}


def test_the_loader_does_not_change_the_experiment(data, tmp_path):
    for loader in ("thread", "rows"):
        cell = make_cell(batch_size=128, threads=1, loader=loader)
        train(tmp_path / loader, data, cell=cell, epochs=1)
    rows = [read_epochs(tmp_path / loader / "epochs.csv")[0] for loader in ("thread", "rows")]
    assert {**rows[0], "wall_s": 0} == {**rows[1], "wall_s": 0}


def test_a_changed_phase_is_not_continued(data, tmp_path):
    train(tmp_path, data, max_steps=2)
    changed = replace(PHASE, dropout=0.1)
    with pytest.raises(UsageError, match=r"its dropout is 0\.3, but this run's is 0\.1"):
        train(tmp_path, data, changed, resume=True)
    with pytest.raises(UsageError, match="batch size is 128, but this run's is 64"):
        train(tmp_path, data, resume=True, cell=make_cell(batch_size=64, threads=1))
    longer = replace(PHASE, epochs=5)
    with pytest.raises(UsageError, match="scheduled for 2 epochs, now for 5"):
        train(tmp_path, data, longer, resume=True)


def test_phase3_of_the_package_makes_a_task_of_mamba():
    phase = load_phase("phase3", {"history_length": "6"})
    task = MdafTask(VOCABULARY, phase, steps_per_epoch=10, device=torch.device("cpu"))
    task.begin_epoch(1)
    task.train_step(make_batch(8), lambda stage: None)
    assert task.learning_rate() == pytest.approx(3e-4 / 20)


def numerics_task(**numerics):
    phase = Phase(
        model="mamba", history_length=6, epochs=2, dropout=0.0, lr=0.01, schedule="constant",
        weight_decay=0.1,
    )  # fmt: skip
    device = torch.device("cpu")
    return MdafTask(VOCABULARY, phase, steps_per_epoch=10, device=device, **numerics)


def trained(task, steps=4):
    task.begin_epoch(1)
    for step in range(steps):
        task.train_step(make_batch(64, seed=step), lambda _stage: None)
    return task.losses()


def test_losses_of_the_epoch_are_those_shown(capsys):
    task = numerics_task()
    shown = []
    task.begin_epoch(1)
    for step in range(3):
        task.train_step(make_batch(64, seed=step), lambda _stage: None)
        shown.append(task.recent_loss())
    assert task.losses() == pytest.approx(shown, rel=1e-6)
    assert task.notes() == []


@pytest.mark.parametrize(
    "numerics", [{"optimizer": "sparse-adam"}, {"precision": "bf16"}], ids=["lazy", "bf16"]
)
def test_other_numerics_are_near_the_phases_own_but_not_equal(numerics):
    plain, other = trained(numerics_task()), trained(numerics_task(**numerics))
    assert other == pytest.approx(plain, rel=0.02)
    assert other != plain
    task = numerics_task(**numerics)
    trained(task)
    task.begin_validation()
    task.validation_step(make_batch(50, seed=9))
    assert math.isfinite(task.metrics()["val_logloss"])


def test_a_device_without_autocast_trains_in_float32(monkeypatch):
    """As MPS with torch 2.4."""

    def unsupported(*_):
        raise RuntimeError("User specified an unsupported autocast device_type 'mps'")

    monkeypatch.setattr(torch, "autocast", unsupported)
    task = make_task()
    task.begin_epoch(0)
    task.train_step(make_batch(8), lambda _: None)
    task.begin_validation()
    task.validation_step(make_batch(8))


def test_what_cannot_be_compiled_is_trained_as_it_is_and_said(monkeypatch, capsys):
    def fail(self, *args, **kwargs):
        raise RuntimeError("backend='inductor' raised:\nno compiler was found\nadvice")

    monkeypatch.setattr(torch.nn.Module, "compile", fail)
    task = numerics_task(compile_rows=64)
    assert len(task.notes()) == 1
    assert task.notes()[0].startswith("not compiled: ")
    assert "not compiled" in capsys.readouterr().err
    assert trained(task) == trained(numerics_task())


def test_compiling_leaves_parameters_and_random_streams_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: calls.append(self))
    task = numerics_task(compile_rows=64)
    state = torch.get_rng_state()
    plain = numerics_task()
    assert len(calls) == 3
    assert torch.equal(state, torch.get_rng_state())
    assert list(task.model.state_dict()) == list(plain.model.state_dict())
    assert trained(task) == trained(plain)


@pytest.mark.parametrize("stop_at", [3, 9])
def test_a_sparse_adam_run_is_resumed_bit_for_bit(data, tmp_path, stop_at):
    cell = replace(CELL, optimizer="sparse-adam")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(whole, data, cell=cell)
    train(cut, data, cell=cell, max_steps=stop_at)
    train(cut, data, cell=cell, resume=True)
    one, two = (load_checkpoint(folder / "checkpoints/last.pt")["task"] for folder in (whole, cut))
    for name, tensor in one["model"].items():
        assert torch.equal(tensor, two["model"][name]), name
    lazy, again = (state["optimizer"]["parts"][1]["state"] for state in (one, two))
    assert lazy
    for table, state in lazy.items():
        for name, tensor in state.items():
            assert torch.equal(tensor, again[table][name]), name


@pytest.mark.parametrize(
    ("axis", "value"), [("optimizer", "sparse-adam"), ("precision", "bf16"), ("compile", True)]
)
def test_other_numerics_do_not_continue_a_run(data, tmp_path, axis, value):
    train(tmp_path, data, max_steps=2)
    other = replace(CELL, **{axis: value})
    with pytest.raises(UsageError, match=f"its {axis} is .*, but this run's is {value}"):
        train(tmp_path, data, cell=other, resume=True)


@pytest.mark.parametrize("prefetch", [None, 3], ids=["all in one block", "three in a block"])
def test_the_thread_loaders_batches_are_stamped_where_they_are_gathered(
    data, tmp_path, prefetch, monkeypatch
):
    monkeypatch.setenv(STAMPS_VARIABLE, "1")
    cell = make_cell(batch_size=64, threads=1, prefetch=prefetch)
    plan = WindowPlan(window_s=0.0, min_steps=4, max_steps=4, boundary_steps=2)
    spec = ChildSpec(
        kind="loader", folder=str(tmp_path), workload=WorkloadSpec(), cell=cell, windows=plan,
        spawned_at_s=time.monotonic(),
    )  # fmt: skip
    with ProgressWriter(tmp_path / "progress") as progress:
        measured = run_trial(spec, MdafWorkload(data, PHASE), progress, lambda _: None)
    stamps = measured.stamps
    # where the second epoch looks slower, as on a crowded machine, more of it is measured
    assert set(stamps.window) - {"second"} == {"warmup", "throughput", "boundary"}
    assert set(stamps.worker) == {None}
    for start_s, made_s, delivered_s in zip(
        stamps.fetch_start_s, stamps.collate_end_s, stamps.delivered_s, strict=True
    ):
        assert 0 < start_s < made_s <= delivered_s
    assert stage_means_s([measured])["fetch"] > 0
