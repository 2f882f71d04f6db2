"""Nothing sent to a device is float64, which MPS lacks: every operation is checked."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctrkit.child.training import row_gradients
from ctrkit.core.config import LOADERS, make_cell
from ctrkit.ctr.data.synthetic import generate_store
from ctrkit.ctr.models.mamba import MambaLayer
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.workload import MdafWorkload


class Doubles(TorchDispatchMode):
    """Names of the operations that take or give a float64 tensor, one for each such tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for one in torch.utils._pytree.tree_leaves((args, kwargs, found)):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                self.names.append(str(func))
        return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "store"
    generate_store(folder, rows=300, users=40, items=60, seed=1)
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_float64_would_be_seen():
    with Doubles() as seen:
        torch.ones(2) * 2.0
        torch.ones(2, dtype=torch.float64)
    assert seen.names == ["aten.ones.default"]


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_have_none(data, loader):
    workload = MdafWorkload(data, Phase(history_length=4, batch_size=64))
    cell = make_cell(loader=loader, batch_size=64, threads=1)
    epoch = iter(workload.train_loader(cell))
    batch = next(epoch)
    assert {name for name, tensor in batch.items() if tensor.dtype == torch.float64} == set()


@pytest.mark.parametrize("model", ["mamba", "bst"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_step_a_validation_step_and_the_kept_figures_have_none(
    data, model, smoothing, monkeypatch
):
    monkeypatch.setattr(MambaLayer, "forward", MambaLayer.whole)  # as on an accelerator
    monkeypatch.setattr(row_gradients, "distinct", row_gradients.distinct_at_once)
    phase = Phase(model=model, history_length=4, batch_size=64, label_smoothing=smoothing, epochs=1)
    workload = MdafWorkload(data, phase)
    cell = make_cell(loader="resident", batch_size=64, threads=1)
    batch = next(iter(workload.train_loader(cell)))
    task = workload.make_task(cell)
    with Doubles() as seen:
        task.begin_epoch(0)
        for _ in range(2):
            task.train_step(task.transfer(batch), lambda _: None)
        task.begin_validation()
        task.validation_step(task.transfer(batch))
        task.train_scores.state_dict()
        task.recent_loss()
    assert seen.names == []
