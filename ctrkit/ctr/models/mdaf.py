"""MDAF: a static branch and a sequence branch, fused by a gate, to the logit of a click."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.ctr.models import mamba
from ctrkit.ctr.models.bst import BSTBranch
from ctrkit.ctr.models.compiling import compile_parts
from ctrkit.ctr.models.dcnv3 import DCNv3
from ctrkit.ctr.models.mamba import MambaBranch
from ctrkit.ctr.models.packing import Packing, pack_histories

Model = Literal["mamba", "bst"]

FIELDS = ("item", "category", "user")
CLOCK = {"hour": 24, "weekday": 7}
FIELD_WIDTH = 16
ITEM_WIDTH = 64
CATEGORY_WIDTH = 32
WIDTH = 128
CROSS_LAYERS = 3
SEQUENCE_LAYERS = 2
HEADS = 4
FEED_WIDTH = 256
EMBEDDING_STD = 0.01
UNKNOWN = 1


class MDAF(nn.Module):
    """A DCNv3 branch on the static fields, a sequence branch on the history, and a gate.

    `forward(batch)` takes integers `item`, `category`, `user`, `hour`, `weekday`, `history_length`
    (batch,) and `history_item`, `history_category` (batch, length), oldest first, padded on the
    right; the padding's values have no influence. It returns logits (batch,) and gate (batch,): the
    static branch's share, in 0..1.

    Args:
        vocabulary: table sizes, with padding (0) and unknown (1), of `item`, `category`, `user`,
            `history_item`, `history_category`.
        model: the sequence branch.
        dropout: probability.
        history_length: the longest history; `bst` has a position for each step.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], *, model: Model, dropout: float, history_length: int
    ) -> None:
        super().__init__()
        self.fields = nn.ModuleDict(
            {name: EmbeddingTable(vocabulary[name], FIELD_WIDTH, padding_idx=0) for name in FIELDS}
        )
        self.clock = nn.ModuleDict(
            {name: nn.Embedding(size, FIELD_WIDTH) for name, size in CLOCK.items()}
        )
        self.history_item = EmbeddingTable(vocabulary["history_item"], ITEM_WIDTH, padding_idx=0)
        self.history_category = EmbeddingTable(
            vocabulary["history_category"], CATEGORY_WIDTH, padding_idx=0
        )
        # If histories hold ids of another kind (brands for items), the target has no such id.
        self.shared = {
            name: vocabulary[name] == vocabulary[f"history_{name}"] for name in ("item", "category")
        }
        self.static = DCNv3(
            FIELD_WIDTH * (len(FIELDS) + len(CLOCK)), WIDTH, layers=CROSS_LAYERS, dropout=dropout
        )
        step_width = ITEM_WIDTH + CATEGORY_WIDTH
        self.sequence: MambaBranch | BSTBranch
        if model == "mamba":
            self.sequence = MambaBranch(step_width, WIDTH, layers=SEQUENCE_LAYERS, dropout=dropout)
        elif model == "bst":
            self.sequence = BSTBranch(
                step_width,
                WIDTH,
                layers=SEQUENCE_LAYERS,
                heads=HEADS,
                hidden=FEED_WIDTH,
                longest=history_length + 1,
                dropout=dropout,
            )
        else:
            assert_never(model)
        self.gate = nn.Sequential(*_hidden(2 * WIDTH, WIDTH, dropout), nn.Linear(WIDTH, 1))
        self.head = nn.Sequential(
            *_hidden(WIDTH, WIDTH, dropout),
            *_hidden(WIDTH, WIDTH // 2, dropout),
            nn.Linear(WIDTH // 2, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=EMBEDDING_STD)
                if module.padding_idx is not None:
                    module._fill_padding_idx_with_zero()

    def tables(self) -> list[EmbeddingTable]:
        """The large tables; a step touches few of their rows."""
        return [module for module in self.modules() if isinstance(module, EmbeddingTable)]

    def compile_dense(self, rows: int) -> str:
        """Compile everything except tables and history, for batches of so many rows.

        See `compile_parts`.
        """
        like = next(self.head.parameters())
        widths = {self.static: FIELD_WIDTH * (len(FIELDS) + len(CLOCK)), self.gate: 2 * WIDTH,
                  self.head: WIDTH}  # fmt: skip
        return compile_parts({part: like.new_zeros(rows, width) for part, width in widths.items()})

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        static = self.static(
            torch.cat(
                [
                    table(batch[name])
                    for tables in (self.fields, self.clock)
                    for name, table in tables.items()
                ],
                dim=1,
            )
        )
        sequence = self.sequence(*self._steps(batch))
        gate = torch.sigmoid(self.gate(torch.cat([static, sequence], dim=1)))
        logits: Tensor = self.head(gate * static + (1 - gate) * sequence).squeeze(1)
        return logits, gate.squeeze(1)

    def _steps(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Packing]:
        """The embedded steps of the histories, packed: (tokens, 96)."""
        items, categories = batch["history_item"], batch["history_category"]
        lengths = batch["history_length"].long()
        if isinstance(self.sequence, BSTBranch):
            items = self._append(items, lengths, batch["item"], self.shared["item"])
            categories = self._append(
                categories, lengths, batch["category"], self.shared["category"]
            )
            lengths = lengths + 1
        packing = pack_histories(lengths, items.shape[1])
        embedded = (
            self.history_item(packing.pack(items)),
            self.history_category(packing.pack(categories)),
        )
        return torch.cat(embedded, dim=1), packing

    @staticmethod
    def _append(history: Tensor, lengths: Tensor, target: Tensor, shared: bool) -> Tensor:
        """Append the target to each row's real steps: (batch, length) to (batch, length + 1)."""
        ids = (target if shared else torch.full_like(target, UNKNOWN)).to(history.dtype)
        return F.pad(history, (0, 1)).scatter(1, lengths.unsqueeze(1), ids.unsqueeze(1))


def _hidden(in_width: int, out_width: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Linear(in_width, out_width), nn.ReLU(), nn.Dropout(dropout)


def parameter_count(vocabulary: Mapping[str, int], model: Model, history_length: int) -> int:
    """The number of parameters of `MDAF`, by formula."""

    def linear(rows: int, columns: int, bias: bool = True) -> int:
        return rows * columns + (columns if bias else 0)

    rows = sum(vocabulary[name] for name in FIELDS) + sum(CLOCK.values())
    tables = (
        FIELD_WIDTH * rows
        + ITEM_WIDTH * vocabulary["history_item"]
        + CATEGORY_WIDTH * vocabulary["history_category"]
    )
    x = FIELD_WIDTH * (len(FIELDS) + len(CLOCK))
    half = x // 2
    static = 2 * CROSS_LAYERS * (linear(x, half) + 2 * half) + linear(x, WIDTH)
    sequence = linear(ITEM_WIDTH + CATEGORY_WIDTH, WIDTH)
    if model == "mamba":
        inner, state, rank = mamba.EXPAND * WIDTH, mamba.STATE, mamba.RANK
        sequence += SEQUENCE_LAYERS * (
            2 * WIDTH  # norm
            + linear(WIDTH, 2 * inner, bias=False)
            + linear(mamba.TAPS, inner)  # depthwise
            + linear(inner, rank + 2 * state, bias=False)
            + linear(rank, inner)
            + inner * state  # A
            + inner  # D
            + linear(inner, WIDTH, bias=False)
        )
    else:
        sequence += (history_length + 1) * WIDTH + SEQUENCE_LAYERS * (
            linear(WIDTH, 3 * WIDTH)
            + linear(WIDTH, WIDTH)
            + linear(WIDTH, FEED_WIDTH)
            + linear(FEED_WIDTH, WIDTH)
            + 4 * WIDTH  # two norms
        )
    gate = linear(2 * WIDTH, WIDTH) + linear(WIDTH, 1)
    head = linear(WIDTH, WIDTH) + linear(WIDTH, WIDTH // 2) + linear(WIDTH // 2, 1)
    return tables + static + sequence + gate + head
