"""The whole model: fusion, parameter count, empty histories, padding, determinism."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrkit.ctr.models.mdaf import EMBEDDING_STD, MDAF, Model, parameter_count

VOCABULARY = {"item": 40, "category": 11, "user": 23, "history_item": 40, "history_category": 11}
BRANDS = VOCABULARY | {"history_item": 17}
LENGTH = 7
MODELS: tuple[Model, ...] = get_args(Model)
each_model = pytest.mark.parametrize("model", MODELS)


def make(model: Model, vocabulary: dict[str, int] = VOCABULARY, dropout: float = 0.3) -> MDAF:
    torch.manual_seed(0)
    return MDAF(vocabulary, model=model, dropout=dropout, history_length=LENGTH)


def make_batch(
    lengths: list[int], vocabulary: dict[str, int] = VOCABULARY, seed: int = 1
) -> dict[str, Tensor]:
    made = torch.Generator().manual_seed(seed)
    rows = len(lengths)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=made, dtype=torch.int32)

    batch = {name: draw(1, vocabulary[name], rows) for name in ("item", "category", "user")}
    batch["hour"], batch["weekday"] = draw(0, 24, rows), draw(0, 7, rows)
    batch["history_length"] = torch.tensor(lengths, dtype=torch.int32)
    real = torch.arange(LENGTH) < batch["history_length"][:, None]
    for name in ("history_item", "history_category"):
        batch[name] = draw(1, vocabulary[name], rows, LENGTH) * real
    batch["label"] = (torch.rand(rows, generator=made) < 0.5).float()
    return batch


def gradients(model: MDAF, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad(set_to_none=True)
    logits, gate = model(batch)
    F.binary_cross_entropy_with_logits(logits, batch["label"].to(logits)).backward()
    return torch.stack([logits, gate]), {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


@each_model
@pytest.mark.parametrize("vocabulary", [VOCABULARY, BRANDS])
def test_parameter_count_is_that_of_the_formula(model: Model, vocabulary: dict[str, int]) -> None:
    counted = sum(parameter.numel() for parameter in make(model, vocabulary).parameters())
    assert counted == parameter_count(vocabulary, model, LENGTH)


def test_parameter_count_of_the_reference_scale() -> None:
    # the tables, then 19,920 + 10,368 (DCNv3), 12,416 + 2 x 116,736 (Mamba), 33,025 + 24,833
    tables = 16 * (335_164 + 5_480 + 577_482 + 24 + 7) + 64 * 335_164 + 32 * 5_480
    vocabulary = {
        "item": 335_164,
        "category": 5_480,
        "user": 577_482,
        "history_item": 335_164,
        "history_category": 5_480,
    }
    assert parameter_count(vocabulary, "mamba", 50) == tables + 334_034


@each_model
def test_shapes_and_types(model: Model) -> None:
    logits, gate = make(model)(make_batch([3, 0, 7, 1]))
    assert logits.shape == gate.shape == (4,)
    assert logits.dtype == gate.dtype == torch.float32
    assert ((gate > 0) & (gate < 1)).all()


@each_model
def test_fusion_is_that_of_the_equations(model: Model) -> None:
    net = make(model).double().eval()
    batch = make_batch([3, 0, 7, 1])
    seen: dict[str, Tensor] = {}
    for name in ("static", "sequence"):
        getattr(net, name).register_forward_hook(
            lambda _module, _args, out, name=name: seen.__setitem__(name, out)
        )
    logits, gate = net(batch)

    def dense(x: Tensor, layers: nn.Sequential) -> Tensor:
        linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        for place, layer in enumerate(linears):
            x = x @ layer.weight.T + layer.bias
            x = x.clamp(min=0) if place + 1 < len(linears) else x
        return x

    static, sequence = seen["static"], seen["sequence"]
    assert static.shape == sequence.shape == (4, 128)
    g = 1 / (1 + torch.exp(-dense(torch.cat([static, sequence], dim=1), net.gate)))
    torch.testing.assert_close(gate, g[:, 0])
    torch.testing.assert_close(logits, dense(g * static + (1 - g) * sequence, net.head)[:, 0])


def test_static_fields_are_looked_up_by_name() -> None:
    net = make("mamba").eval()
    batch = make_batch([2, 2, 2])
    seen: list[Tensor] = []
    net.static.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    net(batch)
    fields = seen[0].view(3, 5, 16)
    for place, name in enumerate(("item", "category", "user", "hour", "weekday")):
        table = (net.fields if place < 3 else net.clock)[name]
        assert torch.equal(fields[:, place], table(batch[name]))


@each_model
@pytest.mark.parametrize("lengths", [[0, 4, 0], [0, 0, 0], [0]])
def test_empty_histories_are_finite(model: Model, lengths: list[int]) -> None:
    net = make(model)
    outputs, grads = gradients(net, make_batch(lengths))
    assert outputs.isfinite().all()
    assert set(grads) == {name for name, _ in net.named_parameters()}
    assert all(grad.isfinite().all() for grad in grads.values())


@each_model
def test_padding_has_no_influence(model: Model) -> None:
    net = make(model, dropout=0.0)
    for name in ("history_item", "history_category"):
        nn.init.normal_(getattr(net, name).weight)
    batch = make_batch([3, 0, 7, 1, 6, 2])
    noisy = dict(batch)
    padding = torch.arange(LENGTH) >= batch["history_length"][:, None]
    for name in ("history_item", "history_category"):
        noise = make_batch([LENGTH] * 6, seed=2)[name]
        assert (noise[padding] != 0).all()
        noisy[name] = torch.where(padding, noise, batch[name])
    outputs, grads = gradients(net, batch)
    noisy_outputs, noisy_grads = gradients(net, noisy)
    assert torch.equal(outputs, noisy_outputs)
    for name, grad in grads.items():
        torch.testing.assert_close(noisy_grads[name], grad, msg=name)


@each_model
def test_histories_do_influence(model: Model) -> None:
    net = make(model).eval()
    batch = make_batch([3, 7])
    for name in ("history_item", "history_category"):
        changed = batch | {name: batch[name].clone()}
        first = changed[name][:, 0]
        changed[name][:, 0] = torch.where(first > 1, first - 1, first + 1)
        assert (net(batch)[0] != net(changed)[0]).all()


@each_model
def test_a_row_does_not_depend_on_the_others(model: Model) -> None:
    net = make(model).double().eval()
    batch = make_batch([3, 0, 7, 1])
    together = torch.stack(net(batch))
    for row in range(4):
        alone = torch.stack(net({name: rows[row : row + 1] for name, rows in batch.items()}))
        torch.testing.assert_close(alone[:, 0], together[:, row])


@each_model
def test_one_seed_gives_one_result(model: Model) -> None:
    runs = []
    for _ in range(2):
        net = make(model)
        runs.append(gradients(net, make_batch([3, 0, 7, 1])))
    assert torch.equal(runs[0][0], runs[1][0])
    for name, grad in runs[0][1].items():
        assert torch.equal(grad, runs[1][1][name]), name


@each_model
def test_tables_start_small_with_a_zero_for_padding(model: Model) -> None:
    net = make(model, dict.fromkeys(VOCABULARY, 4000))
    tables = [module for module in net.modules() if isinstance(module, nn.Embedding)]
    padded = [table for table in tables if table.padding_idx is not None]
    assert len(padded) == 5
    assert all((table.weight[0] == 0).all() for table in padded)
    for table in padded:
        assert table.weight[1:].std().item() == pytest.approx(EMBEDDING_STD, rel=0.02)
    assert all((table.weight[0] != 0).any() for table in net.clock.values())


@each_model
def test_padding_rows_get_no_gradient(model: Model) -> None:
    _, grads = gradients(make(model), make_batch([3, 0, 7, 1]))
    for name in ("history_item", "history_category"):
        assert (grads[f"{name}.weight"][0] == 0).all()
        assert (grads[f"{name}.weight"] != 0).any()


def test_bst_reads_the_target_after_the_last_step() -> None:
    net = make("bst")
    batch = make_batch([2, 0, LENGTH])
    seen: list[tuple[Tensor, Tensor]] = []
    net.history_item.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    net(batch)
    ids = seen[0]
    assert isinstance(ids, Tensor)
    for row, steps in enumerate((2, 0, LENGTH)):
        expected = [*batch["history_item"][row, :steps].tolist(), batch["item"][row].item()]
        place = sorted((LENGTH, 2, 0), reverse=True).index(steps)  # rows lie by length
        assert ids.view(LENGTH + 1, 3)[: steps + 1, place].tolist() == expected


def test_bst_has_no_target_id_where_histories_hold_other_ids() -> None:
    net = make("bst", BRANDS).eval()
    batch = make_batch([2, 5], BRANDS)
    sequences: list[Tensor] = []
    net.sequence.register_forward_hook(lambda _module, _args, out: sequences.append(out))
    for item in (2, VOCABULARY["item"] - 1):  # the last one lies beyond the table of brands
        net(batch | {"item": torch.full_like(batch["item"], item)})
    assert torch.equal(*sequences)
    shared = make("bst").eval()
    shared.sequence.register_forward_hook(lambda _module, _args, out: sequences.append(out))
    for item in (2, 3):
        shared(batch | {"item": torch.full_like(batch["item"], item)})
    assert not torch.equal(*sequences[2:])


@each_model
def test_it_can_learn_what_histories_say(model: Model) -> None:
    torch.manual_seed(0)
    net = make(model, dropout=0.0)
    batch = make_batch([1 + row % LENGTH for row in range(64)])
    batch["label"] = (batch["history_item"][:, 0] % 2).float()
    for name in ("item", "category", "user", "hour", "weekday"):
        batch[name] = torch.ones_like(batch[name])  # the static branch knows nothing
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(net(batch)[0], batch["label"])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.3


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(AssertionError, match="lstm"):
        MDAF(VOCABULARY, model="lstm", dropout=0.0, history_length=LENGTH)  # type: ignore[arg-type]
