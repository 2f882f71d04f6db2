from dataclasses import replace

import pytest

from ctrkit.core.child_records import LoaderFacts, Measurement
from ctrkit.core.config import RunSizes
from ctrkit.measure.epoch_length import epoch_length, length_finding, length_in, with_length

SHUFFLED = LoaderFacts(claimed_batches=100, dataset="Rows", dataset_rows=6400, batch_size=64,
                       workers=0, length_is_exact=True)  # fmt: skip
STREAM = LoaderFacts(claimed_batches=100, dataset="Stream", dataset_rows=6400, iterable=True,
                     batch_size=64, workers=2)  # fmt: skip
BLOCKS = LoaderFacts(claimed_batches=32_000, dataset="Blocks", dataset_rows=32_000, iterable=True,
                     workers=0)  # fmt: skip


def launch(facts=None, batches=0, rows=0, *, whole=False, sizes=None):
    return Measurement(kind="full", loader=facts, epoch_batches=batches, epoch_rows=rows,
                       epoch_complete=whole, sizes=sizes)  # fmt: skip


@pytest.mark.parametrize(
    ("measurement", "batches", "basis"),
    [
        (launch(SHUFFLED, 20, 1280), 100, "exact"),
        (launch(STREAM, 20, 1280), 100, "claimed"),
        (launch(STREAM, 200, 12_800, whole=True), 200, "counted"),
        (launch(STREAM, 101, 6464), None, "beyond"),
        (launch(BLOCKS, 500, 32_000, whole=True), 500, "counted"),
        (launch(BLOCKS, 70, 70 * 64), 500, "rows"),
        (launch(BLOCKS, 70, 70), 32_000, "claimed"),  # single rows: as many batches as rows
        (launch(None, 3000, 3000), None, "unknown"),
        (launch(LoaderFacts(), 12, 12, whole=True), 12, "counted"),
        (launch(LoaderFacts(claimed_batches=20), 3000, 3000), None, "beyond"),
        (launch(None, 7, 70, sizes=RunSizes(epochs=2, train_batches=9)), 9, "claimed"),
        (launch(None, 10, 70, sizes=RunSizes(epochs=2, train_batches=9)), None, "beyond"),
    ],
)
def test_what_was_counted_overrides_what_is_promised(measurement, batches, basis):
    length = epoch_length([measurement])
    assert (length.batches, length.basis) == (batches, basis)
    assert with_length(RunSizes(epochs=3), length).train_batches == batches
    told = with_length(RunSizes(epochs=1, train_batches=5), length)  # less than an epoch
    assert told.train_batches == (5 if basis in ("exact", "claimed") else batches)


def test_a_workload_that_promises_more_than_its_loader_asks_for_is_corrected():
    sizes = RunSizes(epochs=2, train_batches=1000)
    length = epoch_length([launch(SHUFFLED, 20, 1280, sizes=sizes)])
    assert with_length(sizes, length).train_batches == 100
    text = length_finding(length).text
    assert "1,000 batches" in text
    assert "asks for 100 batches" in text


def test_a_counted_epoch_of_another_length_is_a_finding_with_both_numbers_and_the_reason():
    found = length_finding(epoch_length([launch(BLOCKS, 500, 32_000, whole=True)]))
    assert "500 batches (32,000 rows)" in found.text
    assert "32,000 batches: len() counts rows" in found.text
    twice = length_finding(epoch_length([launch(STREAM, 200, 12_800, whole=True)]))
    assert "each of the 2 workers reads the whole data set" in twice.text
    filtered = LoaderFacts(claimed_batches=100, iterable=True, batch_size=64, workers=0)
    fewer = length_finding(epoch_length([launch(filtered, 61, 3900, whole=True)]))
    assert "61 batches" in fewer.text
    assert "does not say how many rows come" in fewer.text


@pytest.mark.parametrize(
    "measurement",
    [
        launch(SHUFFLED, 20, 1280),
        launch(SHUFFLED, 100, 6400, whole=True),
        launch(STREAM, 101, 6400, whole=True),  # the last batch of one of two workers
        launch(LoaderFacts(), 12, 12, whole=True),
    ],
)
def test_what_agrees_is_no_finding(measurement):
    assert length_finding(epoch_length([measurement])) is None


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        (launch(STREAM, 20, 1280), "unchecked"),
        (launch(BLOCKS, 70, 70 * 64), "seems to count rows"),
        (launch(LoaderFacts(claimed_batches=20), 3000, 3000), "continued beyond"),
        (launch(None, 3000, 3000), "seems to be endless"),
    ],
)
def test_what_nobody_checked_is_said(measurement, words):
    assert words in length_finding(epoch_length([measurement])).text


def test_an_epoch_that_another_cell_has_counted_is_the_length_of_this_one():
    counted = launch(LoaderFacts(), 63, 4000, whole=True)
    cut = launch(LoaderFacts(), 40, 2560)
    assert length_in([cut], [counted]).batches == 63
    assert length_in([cut], []).batches is None
    beyond = launch(LoaderFacts(), 90, 5760)  # then it is not the same epoch
    assert length_in([beyond], [counted]).batches is None
    assert length_in([counted], [launch(LoaderFacts(), 70, 4480, whole=True)]).batches == 63


def test_an_epoch_that_a_stop_iteration_cuts_short_is_not_blamed_on_len():
    text = length_finding(epoch_length([launch(SHUFFLED, 30, 1920, whole=True)])).text
    assert "30 batches" in text
    assert "100 batches" in text
    assert "StopIteration" in text
    assert "loses the rows" in text


def test_an_epoch_that_the_loop_leaves_early_is_no_fault_of_the_data_set():
    left = replace(SHUFFLED, left_early=True)
    text = length_finding(epoch_length([launch(left, 30, 1920, whole=True)])).text
    assert "leaves the loader before its end" in text
    assert "StopIteration" not in text


def test_batches_whose_error_the_script_caught_are_named():
    failed = replace(SHUFFLED, failed_batches=3, left_early=False)
    text = length_finding(epoch_length([launch(failed, 97, 6208, whole=True)])).text
    assert "3 batches raised an error that the script caught" in text
    more = replace(failed, failed_batches=1)  # that does not explain all
    assert (
        "StopIteration" in length_finding(epoch_length([launch(more, 90, 5760, whole=True)])).text
    )
