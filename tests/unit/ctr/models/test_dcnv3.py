"""DCNv3 against its equations in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ctrkit.ctr.models.dcnv3 import CrossLayer, DCNv3


def factor(layer: nn.Module, x: Tensor) -> Tensor:
    """[c ; c * ReLU(LayerNorm(c))], element by element."""
    assert isinstance(layer, CrossLayer)
    weight, bias = layer.cross.weight, layer.cross.bias
    rows = []
    for row in x:
        c = weight @ row + bias
        centred = c - c.sum() / len(c)
        norm = centred / torch.sqrt((centred**2).sum() / len(c) + 1e-5)
        mask = (norm * layer.norm.weight + layer.norm.bias).clamp(min=0)
        rows.append(torch.cat([c, c * mask]))
    return torch.stack(rows)


def test_both_networks_and_their_mean() -> None:
    torch.manual_seed(0)
    model = DCNv3(8, 5, layers=3, dropout=0.5).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    x1 = torch.randn(4, 8, dtype=torch.float64)
    linear = exponential = x1
    for layer in model.linear:
        linear = x1 * factor(layer, linear) + linear
    for layer in model.exponential:
        exponential = exponential * factor(layer, exponential) + exponential
    project = model.out[0]
    assert isinstance(project, nn.Linear)
    expected = ((linear + exponential) / 2 @ project.weight.T + project.bias).clamp(min=0)
    torch.testing.assert_close(model(x1), expected)


def test_dropout_only_when_training() -> None:
    torch.manual_seed(0)
    model = DCNv3(8, 64, layers=1, dropout=0.5)
    x = torch.randn(3, 8)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))
