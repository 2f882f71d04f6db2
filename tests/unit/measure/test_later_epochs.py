import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes
from ctrkit.measure.later_epochs import later_epochs, later_finding
from ctrkit.measure.projection import project


def two_epochs(first, second, **fields):
    """Steps of two epochs as a trial stamps them; the first of each is no step of its own."""
    stamps, now_s = Stamps(), 0.0
    for epoch, steps in ((1, first), (2, second)):
        for i, seconds in enumerate(steps, start=1):
            window = "warmup" if i == 1 else "throughput"
            stamps.epoch.append(epoch)
            stamps.step.append(i)
            stamps.window.append(window if epoch == 1 else "second")
            stamps.asked_s.append(now_s)
            stamps.delivered_s.append(now_s + seconds)
            now_s += seconds
            stamps.done_s.append(now_s)
            stamps.rows.append(10)
    return Measurement(
        kind="full", stamps=stamps, restart_s=second[0] if second else None, complete=True,
        throughput_s=sum(first[1:]), throughput_steps=len(first) - 1, **fields,
    )  # fmt: skip


def test_a_cache_that_fills_makes_later_epochs_faster():
    later = later_epochs([two_epochs([0.05] * 40, [0.005] * 20)])
    assert later.factor.mean == pytest.approx(0.1)
    assert "10x as fast" in later_finding(later, persistent=True, workers=2).text


def test_a_data_set_that_grows_makes_them_slower():
    later = later_epochs([two_epochs([0.01] * 40, [0.02] * 20)] * 2)
    assert later.factor.mean == pytest.approx(2)
    assert "slower: 100" in later_finding(later, persistent=False, workers=0).text


@pytest.mark.parametrize(
    "launches",
    [
        [two_epochs([0.05] * 40, [0.049] * 20)],
        [two_epochs([0.05] * 40, [0.005] * 3)],  # too few steps
        [two_epochs([0.001 * i for i in range(1, 80)], [0.001 * i for i in range(1, 20)])],
        [two_epochs([0.05] * 40, [0.005] * 20), two_epochs([0.05] * 40, [0.1] * 20)],
        [two_epochs([0.05] * 40, [])],
        [two_epochs([0.01, 0.09] * 20, [0.09, 0.01] * 10)],
    ],
)
def test_what_is_alike_or_sorted_or_not_known_is_no_other_pace(launches):
    assert later_epochs(launches) is None


def test_first_and_later_epochs_are_projected_apart():
    launch = two_epochs([0.05] * 101, [0.005] * 50, first_batch_s=0.05, epoch_complete=True,
                        epoch_batches=101, epoch_s=101 * 0.05)  # fmt: skip
    projection = project([launch, launch], RunSizes(epochs=10, train_batches=101))
    assert projection.first_epoch.mean == pytest.approx(5.0, rel=0.05)
    assert projection.epoch.mean == pytest.approx(0.5, rel=0.05)
    assert projection.total.mean == pytest.approx(5.0 + 9 * 0.5, rel=0.05)
    assert projection.total_of(1).mean == pytest.approx(5.0, rel=0.05)
    assert 0 < projection.total.low < projection.total.mean < projection.total.high
    once = project([launch, launch], RunSizes(epochs=1, train_batches=101))
    assert once.first_epoch is None
    assert once.epoch.mean == pytest.approx(5.0, rel=0.05)
