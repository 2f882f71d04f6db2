import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from ctrkit.child.training.batch_hash import batch_hash
from ctrkit.child.training.torch_warnings import TorchWarnings


@dataclass
class Own:
    rows: torch.Tensor


def rising(start, count=8):
    return torch.arange(start, start + count)


@pytest.mark.parametrize(
    "make",
    [
        lambda i: rising(i),
        lambda i: {"a": rising(0), "b": [rising(i), "text"]},
        lambda i: Own(rising(i).float()),
        lambda i: (np.arange(i, i + 4), i),
        lambda i: torch.zeros(200, 400).index_put((torch.tensor([199]), torch.tensor([399])),
                                                  torch.tensor(float(i))),
        lambda i: rising(i).to(torch.bfloat16)[::2],
        lambda i: ["a", f"b{i}"],
    ],
)  # fmt: skip
def test_equal_batches_have_equal_hashes_and_others_do_not(make):
    assert batch_hash(make(1)) == batch_hash(make(1)) != ""
    assert batch_hash(make(1)) != batch_hash(make(2))


def test_the_shape_counts():
    assert batch_hash(torch.zeros(4, 2)) != batch_hash(torch.zeros(2, 4))


def test_what_cannot_be_looked_at_has_no_hash():
    class Stubborn:
        @property
        def __dict__(self):
            raise RuntimeError

    assert batch_hash(Stubborn()) == batch_hash(object()) == batch_hash(None) == ""


def own_warning():
    warnings.warn("of the user's own tensors", stacklevel=1)


def test_warnings_that_torch_puts_on_a_line_of_the_users_are_counted(capsys):
    found = []
    kept = TorchWarnings(lambda counts: found.append(dict(counts)))
    try:
        with warnings.catch_warnings(record=False):
            warnings.showwarning = kept._showwarning
            kept._show = lambda *arguments, **named: print(arguments[0])
            warnings.simplefilter("always")
            for _ in range(3):
                torch.nn.functional.mse_loss(torch.zeros(3), torch.zeros(3, 1))
                torch.tensor(torch.zeros(1))
                own_warning()
    finally:
        kept.end()
    assert [text.split()[0] for text in kept.seen] == ["Using", "To"]
    assert list(kept.counts.values()) == [3, 3]
    assert len(found) == 2  # as soon as each is new
    assert len(capsys.readouterr().out.splitlines()) == 3  # and shown once for each place


def test_torchs_own_warnings_are_kept_and_no_others():
    kept = TorchWarnings()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = kept._showwarning
            kept._show = lambda *arguments, **named: None
            warnings.warn("of the user's own", stacklevel=1)
            DataLoader(TensorDataset(torch.zeros(2)), num_workers=999)
            DataLoader(TensorDataset(torch.zeros(2)), num_workers=999)
    finally:
        kept.end()
    assert len(kept.seen) == 1
    assert "999 worker processes" in kept.seen[0]
