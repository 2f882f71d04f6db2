"""The training objective: binary cross-entropy on smoothed labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def smooth_labels(labels: Tensor, smoothing: float) -> Tensor:
    """Labels y moved towards 1/2: y (1 - e) + e / 2 (Szegedy et al.

    2016, section 7, two classes).
    """
    return labels * (1 - smoothing) + smoothing / 2 if smoothing else labels


def objective(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean binary cross-entropy, in nats, of logits (B,) to smoothed labels (B,); a scalar.

    With `smoothing` 0 it is the plain log loss. The two are not comparable with each other: the
    smoothed one has a positive minimum.
    """
    return functional.binary_cross_entropy_with_logits(logits, smooth_labels(labels, smoothing))
