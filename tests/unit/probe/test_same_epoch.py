import pytest

from ctrkit.core.child_records import LoaderFacts, Measurement
from ctrkit.core.config import make_cell
from ctrkit.probe.same_epoch import (
    has_other_epoch,
    launches_of_the_same_epoch,
    other_content_finding,
    other_epochs,
    other_epochs_finding,
)
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult


def cell(workers, batch_size=64):
    return make_cell(loader="custom", workers=workers, threads=1, batch_size=batch_size)


def trial(workers, batches=0, rows=0, *, whole=True, hashes=(), drop_last=False, batch_size=64):
    facts = LoaderFacts(claimed_batches=100, iterable=True, batch_size=batch_size, workers=workers,
                        drop_last=drop_last)  # fmt: skip
    measured = Measurement(
        kind="full", loader=facts, epoch_batches=batches, epoch_rows=rows, epoch_complete=whole,
        batch_hashes=list(hashes), throughput_s=1.0, throughput_steps=10, throughput_rows=100,
    )  # fmt: skip
    request = TrialRequest(kind="full", cell=cell(workers, batch_size))
    return Trial(request=request, result=TrialResult(verdict="ok", measurement=measured), launch=1)


PLAIN = trial(0, 100, 6400, hashes="abcdefgh")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (trial(2, 200, 12_800), "every worker reads the whole data set"),
        (trial(4, 400, 25_600), "every worker reads the whole data set"),
        (trial(2, 50, 3200), "only one worker's rows come"),
        (trial(3, 90, 5760), "10 % of the rows are lost"),
        (trial(2, 150, 9600), "rows come more than once"),
        (trial(2, 130, 8320, whole=False), "goes on beyond the 100 batches"),
        (trial(2, 40, 2560, whole=False, hashes="aabbccdd"), "batches 1 and 2 of an epoch are the"),
        (trial(2, 200, 0), "200 batches, but it has 100 batches"),
    ],
)
def test_what_is_not_the_same_epoch_is_said(other, words):
    found = other_epochs([PLAIN, other])
    assert list(found) == [other.cell]
    finding = other_epochs_finding(list(found.values()), all_of_them=False)
    assert words in finding.text
    assert "is not recommended" in finding.text


@pytest.mark.parametrize(
    "other",
    [
        trial(2, 101, 6400),  # a last batch of each worker
        trial(4, 96, 6144, drop_last=True),  # that each worker leaves out
        trial(2, 40, 2560, whole=False, hashes="acegikmo"),
        trial(2, 200, 12_800, batch_size=32),  # of another batch size there is no plain one
        trial(0, 100, 6400),
    ],
)
def test_the_same_rows_in_other_batches_are_the_same_epoch(other):
    assert other_epochs([PLAIN, other]) == {}


def test_batches_that_are_all_alike_anyway_prove_nothing():
    constant = trial(0, 40, 2560, whole=False, hashes="aaaaaaaa")
    assert other_epochs([constant, trial(2, 40, 2560, whole=False, hashes="aaaaaaaa")]) == {}


def test_other_content_is_said_only_of_loaders_that_do_not_shuffle():
    steady = [PLAIN, PLAIN, trial(2, 100, 6400, hashes="xyz"), trial(2, 100, 6400, hashes="xyz")]
    assert "other content" in other_content_finding(cell(2), steady).text
    shuffled = [*steady[:2], trial(2, 100, 6400, hashes="pqr"), steady[3]]
    assert other_content_finding(cell(2), shuffled) is None
    assert other_content_finding(cell(2), [PLAIN, steady[2], steady[3]]) is None
    same = [PLAIN, PLAIN, trial(2, 100, 6400, hashes="abc"), trial(2, 100, 6400, hashes="abc")]
    assert other_content_finding(cell(2), same) is None


def test_only_cells_with_the_same_epoch_tell_each_other_its_length():
    same, other = trial(1, 101, 6400), trial(2, 200, 12_800)
    trials = [other, same, PLAIN, trial(0, 9, 9, batch_size=32)]
    assert launches_of_the_same_epoch(cell(1), trials) == [PLAIN.result.measurement]
    assert launches_of_the_same_epoch(other.cell, trials) == []


def test_a_cell_of_the_same_workers_has_the_same_other_epoch():
    others = other_epochs([PLAIN, trial(2, 200, 12_800)])
    twin = make_cell(loader="custom", workers=2, prefetch=4, threads=1, batch_size=64)
    assert has_other_epoch(twin, others)
    assert not has_other_epoch(cell(1), others)
    assert launches_of_the_same_epoch(twin, [PLAIN, trial(2, 200, 12_800)]) == []
