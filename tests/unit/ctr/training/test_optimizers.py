import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.training.optimizers import clip_gradients, lr_at, make_adam, make_optimizer, set_lr


def test_constant_schedule():
    phase = Phase(lr=1e-3, schedule="constant")
    assert {lr_at(step, 10, phase, 5) for step in range(1, 51)} == {1e-3}


def test_phase3_warms_up_over_two_epochs_and_ends_at_zero():
    phase = load_phase("phase3")
    rates = [lr_at(step, 514, phase, 15) for step in range(1, 15 * 514 + 1)]
    assert rates[0] == pytest.approx(3e-4 / 1028)
    assert rates[513] == pytest.approx(1.5e-4)
    assert max(rates) == rates[1027] == 3e-4
    halfway = 1028 + (15 * 514 - 1028) // 2
    assert rates[halfway - 1] == pytest.approx(1.5e-4, rel=1e-3)
    assert rates[-1] == 0.0 < rates[-2]


@given(
    steps_per_epoch=st.integers(1, 40),
    horizon=st.integers(1, 12),
    warmup=st.floats(0, 5),
    data=st.data(),
)
def test_rate_stays_in_bounds_and_rises_then_falls(steps_per_epoch, horizon, warmup, data):
    phase = Phase(lr=0.01, schedule="warmup-cosine", warmup_epochs=warmup)
    step = data.draw(st.integers(1, horizon * steps_per_epoch))
    rate = lr_at(step, steps_per_epoch, phase, horizon)
    assert 0 <= rate <= 0.01
    after = lr_at(step + 1, steps_per_epoch, phase, horizon)
    assert after >= rate if step < round(warmup * steps_per_epoch) else after <= rate


def test_the_end_of_the_warm_up_is_not_above_the_rate_by_rounding():
    phase = Phase(lr=0.01, schedule="warmup-cosine", warmup_epochs=1.5)
    assert lr_at(57, 38, phase, 2) == 0.01


def test_a_longer_horizon_is_the_asked_for_one():
    phase = Phase(lr=1.0, warmup_epochs=0)
    assert lr_at(50, 10, phase, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert lr_at(51, 10, phase, 5) == 0.0


def test_adam_adds_the_decay_to_the_gradient():
    phase = Phase(lr=0.1, weight_decay=0.5)
    parameter = torch.nn.Parameter(torch.tensor([2.0, -4.0], dtype=torch.float64))
    optimizer = make_adam([parameter], phase)
    value, first, second = [2.0, -4.0], [0.0, 0.0], [0.0, 0.0]
    for step in range(1, 4):
        set_lr(optimizer, 0.1 * step)
        parameter.grad = torch.tensor([1.0, 0.25], dtype=torch.float64)
        optimizer.step()
        for i, gradient in enumerate((1.0, 0.25)):
            decayed = gradient + 0.5 * value[i]
            first[i] = 0.9 * first[i] + 0.1 * decayed
            second[i] = 0.999 * second[i] + 0.001 * decayed**2
            mean, spread = first[i] / (1 - 0.9**step), second[i] / (1 - 0.999**step)
            value[i] -= 0.1 * step * mean / (math.sqrt(spread) + 1e-8)
    assert parameter.tolist() == pytest.approx(value, rel=1e-9)


def test_adam_without_a_fused_kernel_takes_torchs_default():
    real, complex_ = (
        torch.nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype in (torch.float32, torch.cfloat)
    )
    complex_.grad = torch.ones_like(complex_)
    optimizer = make_adam([complex_], Phase())
    optimizer.step()
    assert not optimizer.defaults["fused"]
    assert make_adam([real], Phase()).defaults["fused"]


def test_clipping_keeps_the_direction():
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert clip_gradients(parameters, 1.0).item() == pytest.approx(5)
    assert [p.grad.item() for p in parameters] == pytest.approx([0.6, 0.8], rel=1e-5)
    clip_gradients(parameters, 10.0)
    assert [p.grad.item() for p in parameters] == pytest.approx([0.6, 0.8], rel=1e-5)


@pytest.mark.parametrize("max_norm", [0.1, 100.0])
@pytest.mark.parametrize("dense", [True, False])
def test_clipping_reads_only_the_touched_rows_of_tables(max_norm, dense):
    torch.manual_seed(0)
    table, plain = EmbeddingTable(50, 3), torch.nn.Embedding(50, 3)
    plain.load_state_dict(table.state_dict())
    table.dense = dense
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for embedding, weight in zip((table, plain), weights, strict=True):
        (embedding(torch.tensor([3, 7, 7])) * weight).sum().backward()
    norm = clip_gradients([table.weight, weights[0]], max_norm, [table])
    other = torch.nn.utils.clip_grad_norm_([plain.weight, weights[1]], max_norm)
    torch.testing.assert_close(norm, other)
    torch.testing.assert_close(weights[0].grad, weights[1].grad)
    rows, values = table.touched()
    torch.testing.assert_close(values, plain.weight.grad[rows])
    if dense:
        torch.testing.assert_close(table.weight.grad, plain.weight.grad)


def test_clipping_without_any_gradient_is_a_norm_of_zero():
    assert clip_gradients([torch.nn.Parameter(torch.ones(2))], 1.0).item() == 0.0


def test_sparse_adam_takes_the_tables_and_adam_the_rest():
    table, weight = EmbeddingTable(5, 2), torch.nn.Parameter(torch.ones(2))
    phase = Phase(lr=0.5, weight_decay=0.1)
    assert isinstance(
        make_optimizer("adam", [table.weight, weight], [table], phase), torch.optim.Adam
    )
    both = make_optimizer("sparse-adam", [table.weight, weight], [table], phase)
    held = [parameter for group in both.param_groups for parameter in group["params"]]
    assert {id(one) for one in held} == {id(table.weight), id(weight)}
    assert all(group["weight_decay"] == 0.1 for group in both.param_groups)
    set_lr(both, 0.25)
    assert {group["lr"] for group in both.param_groups} == {0.25}
