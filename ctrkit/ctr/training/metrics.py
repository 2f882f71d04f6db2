"""gAUC and log loss of an epoch, and the predictions that metrics are computed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ctrkit.ctr.auc import ROWS_AT_ONCE, Array, whole_groups


def grouped_auc(labels: Array, scores: Array, users: Array) -> float:
    """gAUC: AUC within each user, averaged by impressions; users with one class are left out.

    Source: Zhu et al. 2017 (arXiv 1706.02093, section 5.1). A user's AUC is the Mann-Whitney
    statistic (R - p (p + 1) / 2) / (p n), where R is the sum of the ranks of the p positives among
    the user's p + n scores; tied scores share their mean rank. NaN if no user is left, or a score
    is not finite.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), monotone in the probability within a user.
        users: (N,), the user of each impression.
    """
    if len(labels) == 0 or not np.isfinite(scores).all():
        return float("nan")
    found = [
        _users_auc(labels[part], scores[part], users[part])
        for part in whole_groups(users, np.lexsort((scores, users)))
    ]
    per_user, impressions = (np.concatenate(column) for column in zip(*found, strict=True))
    return float(np.average(per_user, weights=impressions)) if len(per_user) else float("nan")


def _users_auc(label: Array, score: Array, user: Array) -> tuple[Array, Array]:
    """AUC and impressions of each user with both classes; rows are sorted by user and score."""
    label = label.astype(np.float64)
    place = np.arange(len(user), dtype=np.float64)
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_tie = new_user | np.r_[True, score[1:] != score[:-1]]
    first_of_tie = np.flatnonzero(new_tie)
    last_of_tie = np.r_[first_of_tie[1:], len(user)] - 1
    mean_place = (place[first_of_tie] + place[last_of_tie]) / 2
    first_of_user = np.flatnonzero(new_user)
    of_user, of_tie = np.cumsum(new_user) - 1, np.cumsum(new_tie) - 1
    rank = mean_place[of_tie] - place[first_of_user][of_user] + 1

    impressions = np.bincount(of_user).astype(np.float64)
    positives = np.bincount(of_user, weights=label)
    rank_sum = np.bincount(of_user, weights=label * rank)
    negatives = impressions - positives
    both = (positives > 0) & (negatives > 0)
    wins = rank_sum - positives * (positives + 1) / 2
    return wins[both] / (positives * negatives)[both], impressions[both]


def log_loss(labels: Array, logits: Array, smoothing: float = 0.0) -> float:
    """Mean binary cross-entropy in nats, in float64, of logits (N,) and labels (N,).

    With `smoothing` e, the labels become y (1 - e) + e / 2. It is computed from logits, so nothing
    has to be clipped. NaN without rows.
    """
    if len(labels) == 0:
        return float("nan")
    total = 0.0
    for start in range(0, len(labels), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        z = logits[part].astype(np.float64)
        y = labels[part].astype(np.float64) * (1 - smoothing) + smoothing / 2
        total += float(np.sum(np.logaddexp(0, z) - y * z))
    return total / len(labels)


class Scores:
    """Columns that grow by a batch at a time and never make the training step wait.

    Tensors stay on their device until `arrays` is called. They are copied, because a slice of a
    batch would keep the whole batch alive: its memory, and for batches of worker processes a file
    descriptor each. They are copied into large blocks, because the objects of 100,000 small tensors
    would take more memory than the rows.
    """

    def __init__(self, *names: str) -> None:
        self._columns: dict[str, list[Tensor]] = {name: [] for name in names}
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        for blocks in self._columns.values():
            blocks.clear()
        self._pieces: list[int] = []
        self._used, self._room = 0, -1  # no block yet

    def append(self, *columns: Tensor) -> None:
        """Append a batch: a tensor (B,) for each name, in the order of the names."""
        rows = len(columns[0])
        if self._used + rows > self._room:
            self._begin_block(columns, max(rows, ROWS_AT_ONCE))
        end = self._used + rows
        for blocks, column in zip(self._columns.values(), columns, strict=True):
            blocks[-1][self._used : end].copy_(column.detach())
        self._used = end
        self._pieces.append(rows)

    def _begin_block(self, columns: tuple[Tensor, ...], room: int) -> None:
        for blocks, column in zip(self._columns.values(), columns, strict=True):
            blocks[-1:] = [block[: self._used] for block in blocks[-1:]]
            blocks.append(column.detach().new_empty(room))
        self._used, self._room = 0, room

    def pieces(self) -> list[int]:
        """The number of rows of each appended batch, and of the rows loaded before them."""
        return self._pieces.copy()

    def batches(self, *names: str) -> Iterator[tuple[Tensor, ...]]:
        """These columns, one batch at a time, as appended."""
        return zip(
            *(self._rows(name).split_with_sizes(self._pieces) for name in names), strict=True
        )

    def arrays(self) -> dict[str, Array]:
        """All rows as arrays (N,), by name. Waits for the device."""
        return {name: column.numpy() for name, column in self.state_dict().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """All rows as tensors (N,) in CPU memory, by name."""
        return {name: self._rows(name).cpu() for name in self._columns}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Continue from a `state_dict`, with the rows on `device`."""
        self.clear()
        rows = len(next(iter(state.values())))
        if rows:
            self._columns = {name: [state[name].to(device)] for name in self._columns}
            self._pieces, self._used, self._room = [rows], rows, rows

    def _rows(self, name: str) -> Tensor:
        """A copy of all rows (N,) of a column, on its device."""
        blocks = self._columns[name]
        if not blocks:
            return torch.empty(0)
        return torch.cat([*blocks[:-1], blocks[-1][: self._used]])
