import numpy as np
import pytest
import torch

from ctrkit.child.training.batches import batch_rows


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        (torch.zeros(7, 3), 7),
        (np.zeros((5, 2)), 5),
        ({"scale": torch.tensor(2.0), "x": torch.zeros(4, 1)}, 4),
        ([{"names": ["a", "b"]}, (torch.zeros(6), 1)], 6),
        (["a", "b", "c"], 3),
        ([], 0),
        ("a text", 1),
        (3.5, 1),
        (torch.tensor(1.0), 1),
    ],
)
def test_rows_of_a_batch(batch, rows):
    assert batch_rows(batch) == rows
