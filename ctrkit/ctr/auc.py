"""The area under the ROC curve of numpy arrays, in little memory and without scikit-learn.

Importing scikit-learn takes a second, and its own function 70 bytes a row beside the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

#: rows to rank at a time; more only if one user or one tie has more
ROWS_AT_ONCE = 1 << 20


def auc(labels: Array, scores: Array) -> float:
    """Area under the ROC curve; NaN if a class is missing or a score is not finite.

    The Mann-Whitney statistic, tied scores counting half; 9 bytes a row beside the arguments.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), any monotone function of the probability, such as logits.
    """
    if len(labels) == 0 or labels.min() == labels.max() or not np.isfinite(scores).all():
        return float("nan")
    order = np.argsort(scores)
    wins, positives, negatives = 0.0, 0, 0
    for part in whole_groups(scores, order):
        score, positive = scores[part], labels[part].astype(bool)
        tie = np.cumsum(np.r_[False, score[1:] != score[:-1]])
        of_tie = np.bincount(tie)
        positives_of_tie = np.bincount(tie, weights=positive)
        negatives_of_tie = of_tie - positives_of_tie
        below = negatives + np.cumsum(negatives_of_tie) - negatives_of_tie
        wins += float(np.sum(positives_of_tie * (below + negatives_of_tie / 2)))
        positives += int(positives_of_tie.sum())
        negatives += int(negatives_of_tie.sum())
    return wins / (positives * negatives)


def whole_groups(values: Array, order: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Parts of `order`, which sorts `values`; equal values are in the same part."""
    start = 0
    while start < len(order):
        end = min(start + ROWS_AT_ONCE, len(order))
        while end < len(order):
            following = values[order[end : end + ROWS_AT_ONCE]]
            more = int(np.searchsorted(following, values[order[end - 1]], side="right"))
            end += more
            if more < len(following):
                break
        yield order[start:end]
        start = end
