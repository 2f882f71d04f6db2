"""A layer computed block by block is the layer computed over all tokens at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrkit.ctr.models.mamba import MambaLayer
from ctrkit.ctr.models.packing import PackedBlock, pack_histories

WIDTH = 6


def make_layer(dtype: torch.dtype = torch.float64) -> MambaLayer:
    torch.manual_seed(0)
    layer = MambaLayer(WIDTH).to(dtype)
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def gradients(out: Tensor, layer: MambaLayer, tokens: Tensor) -> tuple[Tensor, ...]:
    wanted = (tokens, *layer.parameters())
    return torch.autograd.grad(
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), wanted
    )


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=7),
    block_rows=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_the_whole(
    lengths: list[int], block_rows: int, seed: int
) -> None:
    layer = make_layer()
    packing = pack_histories(torch.tensor(lengths), 6, block_rows=block_rows)
    torch.manual_seed(seed)
    tokens = torch.randn(packing.source.numel(), WIDTH, dtype=torch.float64, requires_grad=True)
    got, want = layer(tokens, packing.blocks), layer.whole(tokens, packing.blocks)
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(
        gradients(got, layer, tokens), gradients(want, layer, tokens), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradcheck() -> None:
    layer = make_layer()
    tokens = torch.randn(6, WIDTH, dtype=torch.float64, requires_grad=True)
    blocks = (PackedBlock(0, 2, 2), PackedBlock(4, 1, 2))
    assert torch.autograd.gradcheck(lambda given: layer(given, blocks), (tokens,))


def test_the_number_of_threads_changes_no_bit() -> None:
    layer = make_layer(torch.float32)
    packing = pack_histories(torch.randint(0, 7, (40,)), 6, block_rows=4)
    tokens = torch.randn(packing.source.numel(), WIDTH, requires_grad=True)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            out = layer(tokens, packing.blocks)
            results.append((out, *gradients(out, layer, tokens)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_without_any_step_there_is_no_gradient() -> None:
    layer = make_layer()
    tokens = torch.randn(0, WIDTH, dtype=torch.float64, requires_grad=True)
    out = layer(tokens, (PackedBlock(0, 0, 3),))
    for gradient in gradients(out, layer, tokens):
        assert not gradient.any()


def test_nothing_but_the_input_is_kept_for_the_backward_pass() -> None:
    layer = make_layer(torch.float32)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        tokens = torch.randn(400, WIDTH, requires_grad=True)
        layer(tokens, (PackedBlock(0, 50, 8),))
    assert sum(kept) == tokens.numel() + sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("autocast", [False, True])
def test_autocast_goes_over_all_tokens(autocast: bool) -> None:
    layer = make_layer(torch.float32)
    tokens = torch.randn(12, WIDTH, requires_grad=True)
    blocks = (PackedBlock(0, 4, 3),)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = layer(tokens, blocks)
    assert out.dtype == torch.float32
    want = layer.whole(tokens, blocks)
    torch.testing.assert_close(
        out, want, rtol=0.1 if autocast else 1e-5, atol=0.3 if autocast else 1e-5
    )
    assert torch.equal(out, want) is False or not autocast
    assert all(gradient.isfinite().all() for gradient in gradients(out, layer, tokens))
