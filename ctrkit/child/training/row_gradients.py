"""Computes a table's gradient only for the rows that a batch touched, and says where that pays.

A step passes over a dense gradient four times: it is made, its norm is taken, and scaling reads and
writes it. By rows, none of this happens. Finding the rows takes a sort, which costs little on a
CPU. On an accelerator it takes some 30 kernel launches, so the table must be large enough to be
worth them.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor

#: The smallest table on an accelerator that is worth it. Four passes over so many bytes take as
#: long at 1 TB/s (0.13 ms) as 30 launches of about 5 us. This was not measured on a device.
WORTH_BYTES = 32 << 20


def is_by_rows(device: torch.device, table_bytes: int, *, has_padding: bool) -> bool:
    """Whether to compute the gradient of a table by rows.

    Without padding, an accelerator would have to tell the host how many rows there are.
    """
    if device.type == "cpu":
        return True
    return has_padding and table_bytes >= WORTH_BYTES and works_on(device.type)


@lru_cache(maxsize=8)
def works_on(device: str) -> bool:
    """Whether this process's device has the operations, and finds the right rows with them.

    It is tried once on a few rows: MPS lacks some operations, depending on the version.
    """
    if device == "meta":  # used in tests: it has shapes without values
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an operation that moves to the CPU warns
            return _is_right_on(torch.device(device))
    except Exception:  # not implemented, a driver's error: the dense gradient works everywhere
        return False


def _is_right_on(device: torch.device) -> bool:
    ids = torch.tensor([3, 0, 5, 3, 0, 7])
    grad = torch.arange(12, dtype=torch.float32).view(6, 2)
    wanted = torch.ops.aten.embedding_dense_backward(grad, ids, 9, 0, False)
    kept = torch.zeros(9, 2, device=device)
    rows, values = gradient_by_rows(ids.to(device), grad.to(device), 0)
    kept.index_copy_(0, rows, values)
    is_right = torch.equal(kept.cpu(), wanted)
    return is_right and not kept.index_fill_(0, rows, 0).any().item()


def gradient_by_rows(ids: Tensor, grad: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """The rows that were looked up, int64 (n,), and their gradients, (n, width); see `distinct`.

    Args:
        ids: the ids that were looked up, int64 (m,).
        grad: gradient of each lookup, (m, width).
        padding: a row whose gradient is 0; negative without one.
    """
    rows, places = distinct(ids, padding)
    values: Tensor = torch.ops.aten.embedding_dense_backward(grad, places, len(rows), -1, False)
    if padding >= 0:
        values.masked_fill_((rows == padding).unsqueeze(1), 0)
    return rows, values


def distinct(ids: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """The distinct rows of these ids, int64 (n,), and the index of each id among them.

    `padding` is a row that may occur several times without harm; negative if there is none.
    """
    if ids.device.type == "cpu" or padding < 0:
        rows, places = torch.unique(ids, return_inverse=True)
        return rows, places
    return distinct_at_once(ids, padding)


def distinct_at_once(ids: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """As `distinct`, without the wait of `torch.unique`, which reads the number of rows back.

    Returns as many rows as there are ids; the surplus rows are `padding`.
    """
    ordered, origin = ids.sort()
    is_new = torch.ones_like(ordered, dtype=torch.bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    slot = is_new.cumsum(0) - 1
    rows = torch.full_like(ids, padding).scatter_(0, slot, ordered)
    return rows, torch.empty_like(ids).scatter_(0, origin, slot)
