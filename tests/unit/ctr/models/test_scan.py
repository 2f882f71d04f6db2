"""The blocked scan against a plain loop over time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ctrkit.ctr.models.packing import PackedBlock, pack_histories
from ctrkit.ctr.models.scan import selective_scan


@pytest.fixture(params=[1, 2])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def reference(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The recurrence for one row: x, dt (length, channels), b, c (length, state)."""
    h = torch.zeros_like(a)
    y = []
    for t in range(len(x)):
        h = torch.exp(dt[t, :, None] * a) * h + dt[t, :, None] * b[t] * x[t, :, None]
        y.append((c[t] * h).sum(1) + d * x[t])
    return torch.stack(y) if y else torch.zeros_like(x)


def inputs(
    tokens: int, channels: int, state: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    made = (
        torch.randn(tokens, channels, dtype=dtype),
        torch.rand(tokens, channels, dtype=dtype) * 0.5 + 0.01,
        -torch.rand(channels, state, dtype=dtype) * 3 - 0.1,
        torch.randn(tokens, state, dtype=dtype),
        torch.randn(tokens, state, dtype=dtype),
        torch.randn(channels, dtype=dtype),
    )
    return tuple(tensor.requires_grad_() for tensor in made)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=7),
    block_rows=st.integers(1, 4),
    channels=st.integers(1, 4),
    state=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_values_and_gradients_are_those_of_a_loop_over_time(
    lengths: list[int], block_rows: int, channels: int, state: int, seed: int
) -> None:
    torch.manual_seed(seed)
    packing = pack_histories(torch.tensor(lengths), 5, block_rows=block_rows)
    terms = inputs(packing.source.numel(), channels, state)
    x, dt, a, b, c, d = terms
    y = selective_scan(*terms, packing.blocks)
    weight = torch.randn_like(y) * packing.real[:, None]
    expected = torch.zeros_like(y) + 0 * sum(term.sum() for term in terms)
    for row in range(len(lengths)):
        own = (packing.source // 5 == row) & packing.real
        place = own.nonzero().squeeze(1)
        expected = expected.index_add(
            0, place, reference(x[place], dt[place], a, b[place], c[place], d)
        )
    torch.testing.assert_close(y[packing.real], expected[packing.real])
    got = torch.autograd.grad((y * weight).sum(), terms, allow_unused=True)
    want = torch.autograd.grad((expected * weight).sum(), terms, allow_unused=True)
    for ours, theirs, term in zip(got, want, terms, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(term) if theirs is None else theirs)


@pytest.mark.usefixtures("_threads")
def test_gradcheck() -> None:
    torch.manual_seed(0)
    packing = pack_histories(torch.tensor([3, 1, 0, 4, 2]), 4, block_rows=2)
    terms = inputs(packing.source.numel(), 3, 2)
    assert torch.autograd.gradcheck(lambda *t: selective_scan(*t, packing.blocks), terms)


def test_inputs_need_not_be_contiguous() -> None:
    torch.manual_seed(0)
    x, dt, a, b, c, d = (term.detach() for term in inputs(6, 4, 3))
    blocks = (PackedBlock(0, 3, 2),)
    wide = torch.cat([b, c, x, dt], dim=1)
    parts = wide.split([3, 3, 4, 4], dim=1)
    y = selective_scan(parts[2], parts[3], a, parts[0], parts[1], d, blocks)
    assert torch.equal(y, selective_scan(x, dt, a, b, c, d, blocks))


def test_the_number_of_threads_changes_no_bit() -> None:
    torch.manual_seed(0)
    packing = pack_histories(torch.randint(0, 7, (40,)), 6, block_rows=4)
    terms = inputs(packing.source.numel(), 8, 4, torch.float32)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        y = selective_scan(*terms, packing.blocks)
        results.append((y, *torch.autograd.grad(y.square().sum(), terms)))
    torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


def test_float32_is_close_to_float64_over_a_long_row() -> None:
    torch.manual_seed(0)
    terms = inputs(50 * 4, 32, 16)
    blocks = (PackedBlock(0, 50, 4),)
    exact = selective_scan(*terms, blocks)
    exact_grads = torch.autograd.grad(exact.square().mean(), terms)
    short = tuple(term.detach().float().requires_grad_() for term in terms)
    y = selective_scan(*short, blocks)
    torch.testing.assert_close(y.double(), exact, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(
        torch.autograd.grad(y.square().mean(), short), exact_grads, strict=True
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-5)


def test_a_change_reaches_no_earlier_step_and_no_other_row() -> None:
    torch.manual_seed(0)
    x, dt, a, b, c, d = (term.detach() for term in inputs(5 * 3, 4, 2))
    blocks = (PackedBlock(0, 5, 3),)
    y = selective_scan(x, dt, a, b, c, d, blocks).view(5, 3, 4)
    for term in (x, dt, b, c):
        changed = term.clone()
        changed.view(5, 3, -1)[3, 1] += 0.5
        parts = [changed if other is term else other for other in (x, dt, a, b, c, d)]
        moved = selective_scan(*parts, blocks).view(5, 3, 4) != y
        assert not moved[:3].any()
        assert not moved[:, [0, 2]].any()
        assert moved[3, 1].any()
        assert moved[4, 1].any() == (term is not c)


class _Largest(TorchDispatchMode):
    """The most elements that any operation's result had, and the most of its storage."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                held = leaf.untyped_storage().nbytes() // leaf.element_size()
                self.elements = max(self.elements, leaf.numel(), held)
        return out


def test_no_tensor_holds_the_states_of_more_than_a_block() -> None:
    batch, length, channels, state, rows = 64, 10, 16, 8, 4
    packing = pack_histories(torch.full((batch,), length), length, block_rows=rows)
    terms = inputs(batch * length, channels, state, torch.float32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # a dispatch mode sees its own thread only
    try:
        with _Largest() as largest:
            selective_scan(*terms, packing.blocks).sum().backward()
    finally:
        torch.set_num_threads(before)
    block = rows * (length + 1) * channels * state
    assert largest.elements == max(block, batch * length * channels)
    assert largest.elements < batch * length * channels * state / 5
