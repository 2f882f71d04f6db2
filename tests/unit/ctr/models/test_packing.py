"""The packed layout holds every real step once, and reading from it is right."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ctrkit.ctr.models.packing import pack_histories

LENGTH = 6
lengths_of_rows = st.lists(st.integers(0, LENGTH), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(lengths_of_rows, st.integers(1, 4), st.booleans())
def test_every_real_step_lies_at_one_place(
    lengths: list[int], block_rows: int, skip_padding: bool
) -> None:
    packing = pack_histories(
        torch.tensor(lengths), LENGTH, block_rows=block_rows, skip_padding=skip_padding
    )
    real = packing.source[packing.real].tolist()
    assert sorted(real) == [
        row * LENGTH + step for row, steps in enumerate(lengths) for step in range(steps)
    ]
    for block in packing.blocks:
        place = packing.source[block.start : block.stop].view(block.steps, block.rows)
        steps = torch.arange(block.steps)[:, None].expand_as(place)
        assert torch.equal(place % LENGTH, steps)
        assert (place // LENGTH == place[:1] // LENGTH).all()
    assert sum(block.rows for block in packing.blocks) == len(lengths)
    assert packing.blocks[-1].stop == packing.source.numel()


@settings(max_examples=60, deadline=None)
@given(lengths_of_rows, st.integers(1, 4), st.booleans())
def test_mean_and_last_are_those_of_each_row(
    lengths: list[int], block_rows: int, skip_padding: bool
) -> None:
    padded = torch.randn(len(lengths), LENGTH, 3, dtype=torch.float64)
    packing = pack_histories(
        torch.tensor(lengths), LENGTH, block_rows=block_rows, skip_padding=skip_padding
    )
    packed = padded.view(-1, 3)[packing.source]
    rows = list(zip(padded, lengths, strict=True))
    mean = torch.stack(
        [row[:steps].mean(0) if steps else padded.new_zeros(3) for row, steps in rows]
    )
    torch.testing.assert_close(packing.mean(packed), mean)
    if min(lengths) > 0:
        last = torch.stack([row[steps - 1] for row, steps in rows])
        assert torch.equal(packing.last(packed), last)


def test_sorted_blocks_leave_padding_out() -> None:
    lengths = torch.arange(64) % 8
    assert pack_histories(lengths, 8, block_rows=8).source.numel() == lengths.sum()
    assert pack_histories(lengths, 8, block_rows=8, skip_padding=False).source.numel() == 64 * 8


def test_an_accelerator_is_not_asked_for_lengths() -> None:
    # reading a value of a meta tensor raises, as it would stall an accelerator
    packing = pack_histories(torch.zeros(300, dtype=torch.int32, device="meta"), 5)
    assert [(block.steps, block.rows) for block in packing.blocks] == [(5, 300)]


def test_steps_left_counts_down_to_the_last_real_step() -> None:
    packing = pack_histories(torch.tensor([3, 1]), 4, block_rows=2)
    left: Tensor = packing.steps_left().view(3, 2)
    assert left.tolist() == [[2, 0], [1, 0], [0, 0]]


@pytest.mark.parametrize("skip_padding", [True, False])
def test_padding_has_no_gradient_through_the_mean(skip_padding: bool) -> None:
    packing = pack_histories(torch.tensor([2, 0, 4]), 4, block_rows=3, skip_padding=skip_padding)
    packed = torch.randn(packing.source.numel(), 2, requires_grad=True)
    packing.mean(packed).sum().backward()
    assert packed.grad is not None
    assert torch.equal((packed.grad != 0).all(1), packing.real)
    assert torch.equal((packed.grad != 0).any(1), packing.real)
