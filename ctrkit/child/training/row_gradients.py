"""The gradient of a table by the rows that a batch touched, and where it is kept so.

A dense gradient is passed over four times in a step: made, its norm taken, and scaled (read and
written). By rows none of it is. Finding the rows costs sorting, which a CPU does not notice. On an
accelerator it is some 30 launches, so it must be worth them.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor

#: Of a table on an accelerator. Four passes over so much take as long at 1 TB/s (0.13 ms) as 30
#: launches of about 5 us. Nobody has measured it on a device.
WORTH_BYTES = 32 << 20


def is_by_rows(device: torch.device, table_bytes: int, *, has_padding: bool) -> bool:
    """Whether the gradient of a table is found by rows.

    Without padding an accelerator would have to tell the host how many rows there are.
    """
    if device.type == "cpu":
        return True
    return has_padding and table_bytes >= WORTH_BYTES and works_on(device.type)


@lru_cache(maxsize=8)
def works_on(device: str) -> bool:
    """Whether this process's device has the operations and finds the right rows with them.

    It is tried once on a few rows: MPS lacks some operations, which ones depends on the version.
    """
    if device == "meta":  # of tests: it has shapes without values
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
    """Rows int64 (n,), and their gradients (n, width); see `distinct`.

    Args:
        ids: int64 (m,).
        grad: of what was looked up, (m, width).
        padding: a row whose gradient is 0; negative without one.
    """
    rows, places = distinct(ids, padding)
    values: Tensor = torch.ops.aten.embedding_dense_backward(grad, places, len(rows), -1, False)
    if padding >= 0:
        values.masked_fill_((rows == padding).unsqueeze(1), 0)
    return rows, values


def distinct(ids: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """The rows of these ids, int64 (n,), and the place of each id among them.

    `padding` is a row of which it does no harm to be there several times; negative without one.
    """
    if ids.device.type == "cpu" or padding < 0:
        rows, places = torch.unique(ids, return_inverse=True)
        return rows, places
    return distinct_at_once(ids, padding)


def distinct_at_once(ids: Tensor, padding: int) -> tuple[Tensor, Tensor]:
    """The same without waiting for an accelerator, which `torch.unique` does to learn how many.

    There are as many rows as ids: those that are left over are `padding`.
    """
    ordered, origin = ids.sort()
    is_new = torch.ones_like(ordered, dtype=torch.bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    slot = is_new.cumsum(0) - 1
    rows = torch.full_like(ids, padding).scatter_(0, slot, ordered)
    return rows, torch.empty_like(ids).scatter_(0, origin, slot)
