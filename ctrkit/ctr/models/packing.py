"""Packs right-padded histories, so that no work is spent on padding.

Rows are sorted by length and cut into blocks of about equal length. A block is as long as its
longest row and is stored time-major, and the blocks follow one another. So a layer that works step
by step reads and writes one contiguous slice per step, and a shift in time is a shift by `rows`
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CPU_BLOCK_ROWS = 32
"""A state of 32 x 16 x 256 float32 is 512 KB: with its scratch it fits a core's L2 cache."""

ACCELERATOR_BLOCK_ROWS = 1 << 20
"""All rows: an accelerator should do few large operations. A scan splits them up itself."""


@dataclass(frozen=True)
class PackedBlock:
    """A block of `steps` x `rows` tokens, time-major, beginning at token `start`."""

    start: int
    steps: int
    rows: int

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.steps * self.rows

    @property
    def stop(self) -> int:
        """Index of the token after the last one."""
        return self.start + self.size


@dataclass(frozen=True)
class Packing:
    """The packed layout: where each of its tokens comes from.

    Attributes:
        blocks: blocks in the order of the tokens; they cover all tokens and rows.
        source: int64 (tokens,), index of the token in a flattened (batch, length) tensor.
        real: bool (tokens,), false for padding.
        order: int64 (batch,), the row at each place of the packed order.
        lengths: int64 (batch,), real steps of each row, in the batch's order.
        length: length of the padded tensors.
    """

    blocks: tuple[PackedBlock, ...]
    source: Tensor
    real: Tensor
    order: Tensor
    lengths: Tensor
    length: int

    def pack(self, padded: Tensor) -> Tensor:
        """Pack (batch, length) to (tokens,)."""
        return padded.reshape(-1).index_select(0, self.source)

    def mean(self, packed: Tensor) -> Tensor:
        """Mean over each row's real steps, (tokens, width) to (batch, width); 0 without any."""
        real = packed * self.real.unsqueeze(1)
        sums = torch.cat(
            [
                part.view(block.steps, block.rows, packed.shape[1]).sum(0)
                for part, block in zip(self.split(real), self.blocks, strict=True)
            ]
        )
        in_batch_order = sums.index_select(0, torch.argsort(self.order))
        return in_batch_order / self.lengths.clamp(min=1).unsqueeze(1)

    def steps_left(self) -> Tensor:
        """Real steps of the row after each token, int64 (tokens,); 0 also for padding."""
        clock = torch.arange(self.length, device=self.lengths.device)
        return self.pack((self.lengths.unsqueeze(1) - 1 - clock).clamp(min=0))

    def last(self, packed: Tensor) -> Tensor:
        """Each row's last real step, (tokens, width) to (batch, width). No row may be empty."""
        place = self.source.new_zeros(self.lengths.numel() * self.length)
        place[self.source] = torch.arange(packed.shape[0], device=packed.device)
        rows = torch.arange(self.lengths.numel(), device=packed.device)
        return packed.index_select(0, place[rows * self.length + self.lengths - 1])

    def split(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Split (tokens, ...) into the tokens of each block."""
        return torch.split(packed, [block.size for block in self.blocks])


def pack_histories(
    lengths: Tensor,
    length: int,
    *,
    block_rows: int | None = None,
    skip_padding: bool | None = None,
) -> Packing:
    """Plan the layout of one or more histories.

    Args:
        lengths: integers (batch,), each in 0..length.
        length: length of the padded tensors.
        block_rows: rows per block; chosen by the device if left out.
        skip_padding: sort rows and leave padding out. By default not on an accelerator: reading the
            lengths would wait for the device in every step, and MPS compiles anew for shapes that
            change from batch to batch.
    """
    device, lengths = lengths.device, lengths.long()
    on_cpu = device.type == "cpu"
    rows = block_rows or (CPU_BLOCK_ROWS if on_cpu else ACCELERATOR_BLOCK_ROWS)
    if on_cpu if skip_padding is None else skip_padding:
        order = torch.argsort(lengths, descending=True, stable=True)
        longest = lengths[order[::rows]].tolist()
    else:
        order = torch.arange(lengths.numel(), device=device)
        longest = [length] * len(range(0, lengths.numel(), rows))
    clock = torch.arange(length, device=device).unsqueeze(1)
    blocks: list[PackedBlock] = []
    sources: list[Tensor] = []
    real: list[Tensor] = []
    for steps, members in zip(longest, torch.split(order, rows), strict=True):
        blocks.append(PackedBlock(blocks[-1].stop if blocks else 0, steps, members.numel()))
        sources.append((clock[:steps] + members * length).view(-1))
        real.append((clock[:steps] < lengths[members]).view(-1))
    return Packing(tuple(blocks), torch.cat(sources), torch.cat(real), order, lengths, length)
