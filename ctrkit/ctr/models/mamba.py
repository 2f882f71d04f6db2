"""The sequence branch of selective state-space layers (Gu & Dao 2023, arXiv 2312.00752)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrkit.ctr.models import blockwise
from ctrkit.ctr.models.conv import causal_conv
from ctrkit.ctr.models.packing import PackedBlock, Packing
from ctrkit.ctr.models.scan_choice import scan_of

EXPAND = 2
TAPS = 4
STATE = 16
RANK = 8
DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4


class MambaBranch(nn.Module):
    """Maps packed, embedded histories to one vector per row: the mean over real steps, or 0.

    `forward(tokens (tokens, in_width), packing) -> (batch, width)`. Dropout applies only to this
    vector: the layers have none, as in the paper.
    """

    def __init__(self, in_width: int, width: int, *, layers: int, dropout: float) -> None:
        super().__init__()
        self.enter = nn.Linear(in_width, width)
        self.layers = nn.ModuleList(MambaLayer(width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, packing: Packing) -> Tensor:
        tokens = self.enter(tokens)
        for layer in self.layers:
            tokens = layer(tokens, packing.blocks)
        out: Tensor = self.dropout(packing.mean(tokens))
        return out


class MambaLayer(nn.Module):
    """A pre-norm residual block, (tokens, width) to the same; no step sees a later one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = EXPAND * width
        self.norm = nn.LayerNorm(width)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv_weight = nn.Parameter(
            torch.empty(TAPS, inner).uniform_(-(TAPS**-0.5), TAPS**-0.5)
        )
        self.conv_bias = nn.Parameter(torch.empty(inner).uniform_(-(TAPS**-0.5), TAPS**-0.5))
        self.x_proj = nn.Linear(inner, RANK + 2 * STATE, bias=False)
        self.dt_proj = nn.Linear(RANK, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, STATE + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, width, bias=False)
        self._init_dt()

    def _init_dt(self) -> None:
        """Initialise dt log-uniformly in [DT_MIN, DT_MAX] (paper, section 3.6, and its code)."""
        nn.init.uniform_(self.dt_proj.weight, -(RANK**-0.5), RANK**-0.5)
        low, high = math.log(DT_MIN), math.log(DT_MAX)
        dt = torch.empty_like(self.dt_proj.bias).uniform_(low, high).exp().clamp(min=DT_FLOOR)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def forward(self, tokens: Tensor, blocks: Sequence[PackedBlock]) -> Tensor:
        if tokens.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return blockwise.mamba_layer(tokens, self.weights(), tuple(blocks))
        return self.whole(tokens, blocks)

    def weights(self) -> blockwise.Weights:
        """The parameters, for `blockwise`."""
        return blockwise.Weights(
            self.norm.weight, self.norm.bias, self.in_proj.weight, self.conv_weight, self.conv_bias,
            self.x_proj.weight, self.dt_proj.weight, self.dt_proj.bias, self.A_log, self.D,
            self.out_proj.weight,
        )  # fmt: skip

    def whole(self, tokens: Tensor, blocks: Sequence[PackedBlock]) -> Tensor:
        """The same over all tokens at once, as suits an accelerator."""
        # under autocast, products are bfloat16, but conv and scan never are
        wide = self.A_log.dtype
        x, z = self.in_proj(self.norm(tokens)).chunk(2, dim=1)
        x = F.silu(causal_conv(x.to(wide), self.conv_weight, self.conv_bias, blocks))
        low, b, c = self.x_proj(x).to(wide).split([RANK, STATE, STATE], dim=1)
        dt = F.softplus(self.dt_proj(low).to(wide))
        y = scan_of(x, STATE)(x, dt, -self.A_log.exp(), b, c, self.D, blocks)
        out: Tensor = tokens + self.out_proj(y * F.silu(z))
        return out
