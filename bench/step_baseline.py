"""MDAF in its simplest form: padded tensors, dense gradients, a scan on big tensors.

The parameters and the mathematics are those of `ctrkit.ctr.models.mdaf`, computed differently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrkit.ctr.models.mamba import RANK, STATE, TAPS, MambaBranch, MambaLayer
from ctrkit.ctr.models.mdaf import MDAF

Scan = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""`scan(x, dt, a, b, c)`: x, dt (batch, length, channels), a (channels, state), b, c (batch,
length, state) to y (batch, length, channels), without the skip connection."""


def materialised_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Compute all of exp(dt A) and dt B x at once, then the recurrence over slices of them.

    Both are (batch, length, channels, state). Minimal implementations work like this.
    """
    decay = torch.exp(dt.unsqueeze(-1) * a)
    inputs = (dt * x).unsqueeze(-1) * b.unsqueeze(2)
    h = x.new_zeros(len(x), *a.shape)
    y = []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + inputs[:, t]
        y.append((h * c[:, t].unsqueeze(1)).sum(-1))
    return torch.stack(y, 1)


def plain_loop_scan(x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Compute the recurrence in a loop over time, through which autograd goes back."""
    h = x.new_zeros(len(x), *a.shape)
    y = []
    for x_t, dt_t, b_t, c_t in zip(*(term.unbind(1) for term in (x, dt, b, c)), strict=True):
        h = torch.exp(dt_t.unsqueeze(-1) * a) * h + (dt_t * x_t).unsqueeze(-1) * b_t.unsqueeze(1)
        y.append((h * c_t.unsqueeze(1)).sum(-1))
    return torch.stack(y, 1)


SCANS: dict[str, Scan] = {"materialised": materialised_scan, "loop": plain_loop_scan}


class StraightMDAF(MDAF):
    """`MDAF` with the mamba branch, in the straightforward way; equal seeds give equal models."""

    scan: Scan = staticmethod(materialised_scan)

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        fields = [
            self._look_up(tables[name], batch[name])
            for tables in (self.fields, self.clock)
            for name in tables
        ]
        static = self.static(torch.cat(fields, dim=1))
        sequence = self._sequence(batch)
        gate = torch.sigmoid(self.gate(torch.cat([static, sequence], dim=1)))
        logits: Tensor = self.head(gate * static + (1 - gate) * sequence).squeeze(1)
        return logits, gate.squeeze(1)

    @staticmethod
    def _look_up(table: nn.Module, ids: Tensor) -> Tensor:
        assert isinstance(table, nn.Embedding)
        return F.embedding(ids.long(), table.weight, table.padding_idx)

    def _sequence(self, batch: Mapping[str, Tensor]) -> Tensor:
        branch = self.sequence
        assert isinstance(branch, MambaBranch)
        steps = torch.cat(
            [
                self._look_up(self.history_item, batch["history_item"]),
                self._look_up(self.history_category, batch["history_category"]),
            ],
            dim=2,
        )
        tokens = branch.enter(steps)
        for layer in branch.layers:
            assert isinstance(layer, MambaLayer)
            tokens = self._layer(layer, tokens)
        lengths = batch["history_length"].long().unsqueeze(1)
        real = torch.arange(tokens.shape[1]) < lengths
        mean = (tokens * real.unsqueeze(2)).sum(1) / lengths.clamp(min=1)
        out: Tensor = branch.dropout(mean)
        return out

    def _layer(self, layer: MambaLayer, tokens: Tensor) -> Tensor:
        x, z = layer.in_proj(layer.norm(tokens)).chunk(2, dim=2)
        taps = layer.conv_weight.t().unsqueeze(1)
        padded = F.conv1d(x.mT, taps, layer.conv_bias, padding=TAPS - 1, groups=len(taps))
        x = F.silu(padded[..., : tokens.shape[1]].mT)
        low, b, c = layer.x_proj(x).split([RANK, STATE, STATE], dim=2)
        dt = F.softplus(layer.dt_proj(low))
        y = self.scan(x, dt, -layer.A_log.exp(), b, c) + layer.D * x
        out: Tensor = tokens + layer.out_proj(y * F.silu(z))
        return out
