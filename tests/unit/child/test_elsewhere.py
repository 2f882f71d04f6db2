import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from ctrkit.child.elsewhere import Elsewhere, batches_to_leave_out, elsewhere_of
from ctrkit.child.training.epoch_place import EpochPlace, place_of
from ctrkit.child.workloads.iterable_loader import IterableLoader


class Numbers(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        return index


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(range(400))

    def __len__(self):
        return 400


def firsts(loader):
    return [int(batch[0]) for batch in loader]


def left_out_once(loader, share=0.5, after=2):
    elsewhere = elsewhere_of(loader, share, after=after, steps=3)
    elsewhere.install()
    iterator = iter(loader)
    elsewhere.restore()
    return [int(batch[0]) for batch in iterator], elsewhere


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_one_epoch_leaves_batches_out_and_the_next_is_whole(workers, persistent):
    kept = persistent and workers > 0
    context = {"multiprocessing_context": "fork"} if workers else {}
    loader = DataLoader(
        Numbers(), batch_size=4, num_workers=workers, persistent_workers=kept, **context
    )
    whole = list(range(0, 400, 4))
    seen, elsewhere = left_out_once(loader)
    assert seen == [0, 4, *range(208, 400, 4)]
    assert elsewhere.left_out == 50
    assert len(loader) == 100
    assert loader.batch_sampler is elsewhere._own
    assert firsts(loader) == whole


def test_a_shuffled_epoch_has_the_order_that_it_would_have_had():
    def shuffled():
        torch.manual_seed(3)
        return DataLoader(Numbers(), batch_size=4, shuffle=True)

    as_written = firsts(shuffled())
    seen, elsewhere = left_out_once(shuffled(), share=0.9)
    assert seen == as_written[:2] + as_written[2 + elsewhere.left_out :]


def test_a_loader_without_automatic_batches_is_brought_forward_by_its_sampler():
    loader = DataLoader(Numbers(), batch_size=None)
    elsewhere = elsewhere_of(loader, 0.25, after=1, steps=3)
    elsewhere.install()
    iterator = iter(loader)
    elsewhere.restore()
    assert [next(iterator) for _ in range(3)] == [0, 101, 102]


class Slow(Sampler):
    """It looks at each row before it names it, as one that puts rows of equal length together."""

    def __len__(self):
        return 400

    def __iter__(self):
        for row in range(400):
            time.sleep(0.001)
            yield row


@pytest.mark.parametrize("workers", [0, 1])
def test_what_leaving_out_took_is_told_once(workers):
    context = {"multiprocessing_context": "fork"} if workers else {}
    loader = DataLoader(Numbers(), batch_size=4, sampler=Slow(), num_workers=workers, **context)
    told = []
    elsewhere = elsewhere_of(loader, 0.5, after=2, steps=3)
    elsewhere.took = told.append
    elsewhere.install()
    iterator = iter(loader)
    elsewhere.restore()
    assert [int(batch[0]) for batch in iterator] == [0, 4, *range(208, 400, 4)]
    assert firsts(loader)[:3] == [0, 4, 8]
    (seconds,) = told
    assert seconds >= 0.2


class OfItsOwnMind(DataLoader):
    @property
    def _index_sampler(self):
        return [[0, 1], [2, 3]] * 50


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(Streamed(), batch_size=4),
        OfItsOwnMind(Numbers(), batch_size=4),
        [torch.zeros(4)] * 100,
        (batch for batch in ()),
        DataLoader(Numbers(), batch_sampler=iter([[0, 1]] * 100)),
        DataLoader(Numbers(), batch_size=100),
    ],
    ids=["iterable", "own sampler", "list", "generator", "no length", "four batches"],
)
def test_what_cannot_begin_elsewhere_is_left_as_it_is(loader):
    assert elsewhere_of(loader, 0.5, after=1, steps=3) is None


def test_a_loader_whose_iterator_is_kept_is_left_alone():
    loader = DataLoader(
        Numbers(), batch_size=4, num_workers=1, persistent_workers=True,
        multiprocessing_context="fork",
    )  # fmt: skip
    next(iter(loader))
    assert elsewhere_of(loader, 0.5, after=1, steps=3) is None


@pytest.mark.parametrize(
    ("batches", "share", "left_out"),
    [(100, 0.0, 0), (100, 0.5, 50), (100, 0.9, 90), (100, 0.97, 91), (20, 0.9, 11), (8, 0.9, 0)],
)
def test_enough_is_left_to_measure(batches, share, left_out):
    assert batches_to_leave_out(batches, share, before=1, steps=3) == left_out


class Native:
    def __init__(self):
        self.told = None

    def set_epoch(self, epoch, first_batch=0):
        self.told = epoch, first_batch

    def __iter__(self):
        return iter(range(self.told[1], 100))

    def close(self):
        pass


class OldNative(Native):
    def set_epoch(self, epoch):
        self.told = epoch, 0


def test_a_loader_of_its_own_is_told_where_to_begin_if_it_can_be_told():
    native, old = Native(), OldNative()
    place = place_of(native, 100, 0.5, 2, 3)
    place.tell(native, 1)
    assert native.told == (1, 50)
    assert next(place.iterator_of(native, print)) == 50
    assert place_of(old, 100, 0.5, 2, 3) == EpochPlace()
    EpochPlace().tell(old, 1)
    assert old.told == (1, 0)


def test_a_wrapped_dataloader_begins_elsewhere_and_one_without_a_length_does_not():
    loader = IterableLoader(DataLoader(Numbers(), batch_size=4))
    place = place_of(loader, 100, 0.5, 2, 3)
    place.tell(loader, 1)
    assert [int(batch[0]) for batch in place.iterator_of(loader, print)][:3] == [0, 4, 208]
    assert place_of(loader, None, 0.5, 2, 3) == EpochPlace()
    assert place_of(loader, 100, 0.0, 2, 3) == EpochPlace()
    # a workload that is told to take less than the loader has never comes to nothing
    assert 0 < place_of(loader, 10, 0.9, 2, 3).left_out < 10
    assert isinstance(place.elsewhere, Elsewhere)
