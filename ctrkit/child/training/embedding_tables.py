"""An embedding table that remembers which of its rows a step touched.

A step touches some thousand rows of a million, and the dense gradient is zero in all others. So the
gradient's memory is kept, and only the rows of the previous step are cleared. The gradient's norm
is computed from the touched rows, and an optimizer that updates only touched rows need not search
for them. On an accelerator this holds for large tables only (`row_gradients.py`); small tables use
torch's gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ctrkit.child.training.row_gradients import gradient_by_rows, is_by_rows


class EmbeddingTable(nn.Embedding):
    """Like `torch.nn.Embedding`: takes integers of any shape, returns (..., width).

    Attributes:
        dense: if false, `weight.grad` stays None, and only `touched()` has the gradient.
    """

    def __init__(self, size: int, width: int, *, padding_idx: int | None = None) -> None:
        super().__init__(size, width, padding_idx=padding_idx)
        self.dense = True
        self._lookups = 0
        self._rows: Tensor | None = None
        self._values: Tensor | None = None
        self._kept: Tensor | None = None
        self._kept_version = -1

    def forward(self, ids: Tensor) -> Tensor:
        has_gradient = self.weight.requires_grad and torch.is_grad_enabled()
        if not has_gradient or (self.dense and not self._is_by_rows()):
            return super().forward(ids)
        self._lookups += 1
        found: Tensor = _Lookup.apply(self.weight, ids, self, self._lookups)  # type: ignore[no-untyped-call]
        return found

    def _is_by_rows(self) -> bool:
        return is_by_rows(
            self.weight.device, self.weight.nbytes, has_padding=self.padding_idx is not None
        )

    def touched(self) -> tuple[Tensor, Tensor] | None:
        """The rows that the newest backward pass touched, and their gradients.

        Rows are int64 (n,), gradients (n, width). On the CPU the rows are ascending. On an
        accelerator copies of the padding row, with a gradient of 0, may follow them: see
        `row_gradients.distinct_at_once`.

        None if they are unknown: for a small table on an accelerator, or if something other than
        this table and `scale_` wrote to `weight.grad`.
        """
        if self._rows is None or self._values is None:
            return None
        if self.dense and not self._is_own(self.weight.grad):
            return None
        return self._rows, self._values

    def scale_(self, factor: Tensor) -> None:
        """Multiply the touched rows of the gradient by a scalar tensor."""
        assert self._rows is not None
        assert self._values is not None
        self._values.mul_(factor)
        if self.dense:
            self._write()

    def replace(self, own: Tensor, rows: Tensor, values: Tensor) -> None:
        """Replace this rank's gradient by that of all ranks.

        Args:
            own: rows that this rank touched, int64 (m,).
            rows: rows that any rank touched, ascending, int64 (n,).
            values: their gradients, (n, width).
        """
        known = self.touched() is not None
        self._rows, self._values = rows, values
        if known and self.dense:
            self._clear(own)
            self._write()
        elif self.dense:
            assert self.weight.grad is not None
            self.weight.grad.index_fill_(0, own, 0).index_copy_(0, rows, values)
            self.forget()

    def forget(self) -> None:
        """Forget which rows were touched."""
        self._rows = self._values = None

    def _is_own(self, grad: Tensor | None) -> bool:
        kept = self._kept
        return (
            grad is not None
            and kept is not None
            and grad.data_ptr() == kept.data_ptr()
            and kept._version == self._kept_version
        )

    def _take(self, ids: Tensor, grad: Tensor, lookup: int) -> Tensor | None:
        """Keep the gradient of one lookup; returns the dense gradient if it is wanted."""
        ids, grad = ids.reshape(-1).long(), grad.reshape(-1, self.embedding_dim)
        padding = -1 if self.padding_idx is None else self.padding_idx
        if self.dense and (lookup != self._lookups or self.weight.grad is not None):
            # One of several lookups: autograd adds their gradients up, so they must not share
            # memory.
            self.forget()
            whole: Tensor = torch.ops.aten.embedding_dense_backward(
                grad, ids, self.num_embeddings, padding, False
            )
            return whole
        before, values = self._rows, self._values
        if not self.dense and before is not None and values is not None:
            ids, grad = torch.cat([before, ids]), torch.cat([values, grad])
        self._rows, self._values = gradient_by_rows(ids, grad, padding)
        if not self.dense:
            return None
        self._clear(before)
        return self._write().detach()  # an alias: autograd keeps it as `weight.grad` uncopied

    def _clear(self, rows: Tensor | None) -> None:
        kept = self._kept
        if kept is None or kept.shape != self.weight.shape or kept.dtype != self.weight.dtype:
            self._kept = torch.zeros_like(self.weight, requires_grad=False)
        elif rows is None or kept._version != self._kept_version:
            kept.zero_()
        else:
            kept.index_fill_(0, rows, 0)

    def _write(self) -> Tensor:
        assert self._kept is not None
        assert self._rows is not None
        assert self._values is not None
        self._kept.index_copy_(0, self._rows, self._values)
        self._kept_version = self._kept._version
        return self._kept


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, ids: Tensor, table: EmbeddingTable, lookup: int
    ) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.table, ctx.lookup = table, lookup
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        return ctx.table._take(ids, grad, ctx.lookup), None, None, None
