"""Adam only on the table rows that a step touched: not the same update as Adam, and less work.

A row's moments do not decay while it is not touched (as in `torch.optim.SparseAdam`). Weight decay
is decoupled (Loshchilov & Hutter 2019), so that the decay a row missed can be applied exactly
later: the factors (1 - lr weight_decay) of all steps since the row was last written, at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ctrkit.child.training.embedding_tables import EmbeddingTable

_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


def _float64_device(device: torch.device) -> torch.device:
    """The device for a table's float64 values: the table's own; the CPU for MPS, which has none."""
    return torch.device("cpu") if device.type == "mps" else device


class LazyAdam(Optimizer):
    """Adam (Kingma & Ba 2015) with decoupled decay on the touched rows of tables.

    A table's state: the moments `first` and `second`, shaped like the weight, and `decayed`,
    float64 (rows,): the sum of log(1 - lr weight_decay) already applied to each row. The step
    counter and the total sum belong to the group. It makes the tables keep no dense gradient.
    """

    def __init__(self, tables: Sequence[EmbeddingTable], *, lr: float, weight_decay: float) -> None:
        self.tables = list(tables)
        for table in self.tables:
            table.dense = False
        weights = [table.weight for table in self.tables]
        defaults = {"lr": lr, "weight_decay": weight_decay, "steps": 0, "decay": 0.0}
        super().__init__(weights, defaults)
        for weight in weights:
            self.state[weight] = {
                "first": torch.zeros_like(weight, requires_grad=False),
                "second": torch.zeros_like(weight, requires_grad=False),
                "decayed": torch.zeros(
                    len(weight), dtype=torch.float64, device=_float64_device(weight.device)
                ),
            }

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        for table in self.tables:
            table.forget()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the rows that the newest backward pass touched."""
        (group,) = self.param_groups
        group["steps"] += 1
        group["decay"] += math.log1p(-group["lr"] * group["weight_decay"])
        for table in self.tables:
            touched = table.touched()
            if touched is not None:
                self._update(table.weight, *touched, group)

    def _update(self, weight: Tensor, rows: Tensor, grad: Tensor, group: Mapping[str, Any]) -> None:
        state, steps = self.state[weight], group["steps"]
        first, second = (state[name].index_select(0, rows) for name in ("first", "second"))
        first.lerp_(grad, 1 - _BETAS[0])
        second.mul_(_BETAS[1]).addcmul_(grad, grad, value=1 - _BETAS[1])
        state["first"].index_copy_(0, rows, first)
        state["second"].index_copy_(0, rows, second)
        values = weight.index_select(0, rows).mul_(self._missed(state, rows, group["decay"]))
        spread = second.div_(1 - _BETAS[1] ** steps).sqrt_().add_(_EPSILON)
        values.addcdiv_(first, spread, value=-group["lr"] / (1 - _BETAS[0] ** steps))
        weight.index_copy_(0, rows, values)

    @staticmethod
    def _missed(state: Mapping[str, Tensor], rows: Tensor, decay: float) -> Tensor:
        """The factor of the decay that these rows have missed, (n, 1); marks it as applied."""
        decayed = state["decayed"]
        rows = rows.to(decayed.device)
        factor = torch.exp(decay - decayed.index_select(0, rows))
        decayed.index_fill_(0, rows, decay)
        return factor.to(state["first"]).unsqueeze(1)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As torch's method, which would round `decayed` to the weight's dtype."""
        super().load_state_dict(dict(state))
        for place, table in enumerate(self.tables):
            decayed = state["state"][place]["decayed"]
            device = _float64_device(table.weight.device)
            self.state[table.weight]["decayed"] = decayed.to(device, torch.float64).clone()

    @torch.no_grad()
    def settle(self) -> None:
        """Apply the missed decay of all rows, so that the tables can be read."""
        (group,) = self.param_groups
        for table in self.tables:
            decayed = self.state[table.weight]["decayed"]
            factor = torch.exp(group["decay"] - decayed).to(table.weight)
            table.weight.mul_(factor.unsqueeze(1))
            decayed.fill_(group["decay"])


class Together:
    """Several optimizers as one."""

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def settle(self) -> None:
        """See `LazyAdam.settle`."""
        for part in self.parts:
            if isinstance(part, LazyAdam):
                part.settle()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for part, of_part in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(of_part)
