import math

import pytest
import torch

from ctrkit.ctr.training.objective import objective, smooth_labels


def test_labels_move_towards_one_half():
    labels = torch.tensor([0.0, 1.0])
    assert smooth_labels(labels, 0.1).tolist() == pytest.approx([0.05, 0.95])
    assert smooth_labels(labels, 0.0) is labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_objective_is_the_mean_cross_entropy_written_out(smoothing):
    logits, labels = [-2.0, 0.3, 4.0], [0.0, 1.0, 0.0]
    expected = 0.0
    for z, y in zip(logits, labels, strict=True):
        p, target = 1 / (1 + math.exp(-z)), y * (1 - smoothing) + smoothing / 2
        expected -= (target * math.log(p) + (1 - target) * math.log(1 - p)) / 3
    found = objective(torch.tensor(logits), torch.tensor(labels), smoothing)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_smoothed_gradient_vanishes_at_the_smoothed_label():
    logit = torch.tensor([math.log(0.95 / 0.05)], requires_grad=True)
    objective(logit, torch.ones(1), 0.1).backward()
    assert logit.grad.item() == pytest.approx(0, abs=1e-7)
