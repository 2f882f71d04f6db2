import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler, TensorDataset

from ctrkit.child.training.loader_facts import facts_of, no_batch_words
from ctrkit.child.workloads.iterable_loader import IterableLoader

ROWS = TensorDataset(torch.arange(500))


class Stream(IterableDataset):
    def __init__(self, rows=500):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __iter__(self):
        return iter(range(self.rows))


class Odd(Sampler):
    def __len__(self):
        return 250

    def __iter__(self):
        return iter(range(1, 500, 2))


class Pairs:
    """A sampler of batches that promises more than it gives."""

    batch_size, drop_last = 2, False

    def __len__(self):
        return 9

    def __iter__(self):
        return iter([[0, 1], [2, 3]])


class Wrapper:
    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return 7

    def __iter__(self):
        return iter(self.loader)


@pytest.mark.parametrize(
    ("loader", "claimed", "exact"),
    [
        (DataLoader(ROWS, 64), 8, True),
        (DataLoader(ROWS, 64, shuffle=True, drop_last=True), 7, True),
        (DataLoader(ROWS, batch_sampler=BatchSampler(range(500), 50, False)), 10, False),
        (DataLoader(ROWS, 64, sampler=Odd()), 4, False),
        (DataLoader(ROWS, batch_sampler=Pairs()), 9, False),
        (DataLoader(Stream(), 64), 8, False),
        (DataLoader(Stream(), batch_size=None), 500, False),
        (Wrapper(DataLoader(ROWS, 64)), 7, False),
        (IterableLoader(DataLoader(ROWS, 64)), 8, True),
        ((batch for batch in [1]), None, False),
    ],
)
def test_len_is_exact_only_where_it_follows_from_what_is_asked_for(loader, claimed, exact):
    facts = facts_of(loader)
    assert (facts.claimed_batches, facts.length_is_exact) == (claimed, exact)


def test_the_facts_of_a_stream():
    facts = facts_of(DataLoader(Stream(), 64, drop_last=True))
    assert facts.iterable
    assert (facts.dataset, facts.dataset_rows, facts.batch_size) == ("Stream", 500, 64)
    assert facts.drop_last
    assert facts_of(DataLoader(Stream(), batch_size=None)).batch_size is None


@pytest.mark.parametrize(
    ("loader", "heeds", "words"),
    [
        (DataLoader(ROWS, 2048, drop_last=True), True, "give --batch-size 500 or less"),
        (DataLoader(ROWS, 2048, drop_last=True), False, "make_loader takes no batch_size"),
        (DataLoader(ROWS, 2048, drop_last=True, sampler=Odd()), True, "250 rows of 500 to take"),
        (DataLoader(Stream(), 2048, drop_last=True), True, "give --batch-size 500 or less"),
        (DataLoader(ROWS, batch_sampler=BatchSampler(range(30), 64, True)), True, "30 or less"),
        (DataLoader(Stream(0), 64), True, "data set Stream is empty"),
        ([], True, "it must hold data"),
        (Wrapper([]), True, "none came"),
    ],
)
def test_no_batch_is_explained_with_the_largest_batch_size_that_gives_one(loader, heeds, words):
    text = no_batch_words(loader, 2048, heeds)
    assert words in text
    assert "\n" not in text
