import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrkit.child.training.distributed import (
    ALONE,
    SummedModel,
    checksum,
    current_ranks,
    in_global_order,
    is_sparse_less,
    joined,
)
from ctrkit.child.training.rendezvous import RankGroup
from ctrkit.core.errors import UsageError


def test_alone_nothing_is_communicated():
    assert current_ranks() is ALONE
    assert ALONE.sum(3, True, False) == (3, True, False)
    assert ALONE.gather("mine") == ["mine"]
    assert ALONE.share("mine") == "mine"
    ALONE.check_equal("position", 1)
    model = torch.nn.Linear(2, 1)
    summed = SummedModel(model, ALONE)
    assert summed.forward is model
    summed.reduce()


def test_mps_has_one_process():
    group = RankGroup(store=None, rank=0, count=2, said={})
    with (
        pytest.raises(UsageError, match="mps: cannot train in several"),
        joined("mps", None, group),
    ):
        pass


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", str(torch.cuda.device_count()))
    group = RankGroup(store=None, rank=0, count=99, said={})
    with (
        pytest.raises(UsageError, match="a process for each device"),
        joined("cuda", None, group),
    ):
        pass


def test_a_checksum_tells_a_bit_and_an_exchange():
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    other.load_state_dict(model.state_dict())
    assert checksum(model) == checksum(other)
    with torch.no_grad():
        other.bias[0] = torch.nextafter(other.bias[0], torch.tensor(2.0))
    assert checksum(model) != checksum(other)
    square = torch.nn.ParameterList([torch.ones(2), torch.zeros(2)])
    swapped = torch.nn.ParameterList([torch.zeros(2), torch.ones(2)])
    assert checksum(square) != checksum(swapped)


def test_few_touched_rows_are_exchanged_and_many_are_not():
    assert is_sparse_less(335_000, 64, 50_000, 2)
    assert not is_sparse_less(335_000, 64, 200_000, 2)
    assert not is_sparse_less(5_480, 32, 5_000, 2)
    assert not is_sparse_less(335_000, 64, 50_000, 16)  # each of them sends as many


@settings(deadline=None)
@given(
    batches=st.lists(st.integers(0, 5), max_size=6),
    before=st.integers(0, 4),
    ranks=st.integers(1, 4),
)
def test_columns_of_all_ranks_are_those_of_one(batches, before, ranks):
    """`before` is what rank 0 had loaded; each batch is split as the loaders split it."""
    total = before + sum(batches)
    whole = torch.arange(total)
    parts = [([], []) for _ in range(ranks)]
    if before:
        parts[0][0].append(whole[:before])
        parts[0][1].append(before)
    at = before
    for batch in batches:
        for rank, rows in enumerate(np.array_split(whole[at : at + batch].numpy(), ranks)):
            parts[rank][0].append(torch.from_numpy(rows))
            parts[rank][1].append(len(rows))
        at += batch
    columns = [
        ({"row": torch.cat(kept) if kept else torch.empty(0)}, pieces) for kept, pieces in parts
    ]
    assert in_global_order(columns)["row"].tolist() == whole.tolist()
