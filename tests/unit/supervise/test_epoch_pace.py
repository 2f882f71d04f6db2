"""Steps and ends of epochs are kept apart, whether or not the loop knows its length."""

from __future__ import annotations

import pytest

from ctrkit.core.progress import Progress, Stage
from ctrkit.core.run_time import Place
from ctrkit.supervise.epoch_pace import EpochPace


def at(epoch: int, step: int, stage: Stage = Stage.STEP, steps: int = 10) -> Progress:
    return Progress(
        pid=1, stage=stage, epoch=epoch, step=step, steps=steps, rows=0, writes=1, written_s=0.0,
        wait_s=0.0, loss=0.0,
    )  # fmt: skip


def follow(pace: EpochPace, *looks: tuple[float, Progress], steps_of_launch: int = 1) -> None:
    for productive_s, progress in looks:
        pace.look(progress, productive_s, steps_of_launch)


@pytest.mark.parametrize("steps", [10, 0])
def test_what_comes_after_the_last_step_is_the_end(steps: int) -> None:
    pace = EpochPace()
    follow(
        pace,
        (0.0, at(1, 0, Stage.FIRST_BATCH, steps)),
        (10.0, at(1, 10, Stage.EPOCH_BOUNDARY, steps)),
        (11.0, at(1, 10, Stage.VALIDATION, steps)),
        (16.0, at(1, 10, Stage.METRICS, steps)),
        (17.0, at(1, 10, Stage.CHECKPOINT, steps)),
    )
    assert (pace.stepping_s, pace.into_end_s, pace.mean_ending_s) == (10.0, 7.0, None)
    assert pace.done == Place(trained=1, over=0)
    follow(pace, (19.0, at(2, 0, Stage.FIRST_BATCH, 10)))
    assert (pace.stepping_s, pace.into_end_s, pace.mean_ending_s) == (10.0, 0.0, 9.0)
    assert pace.done == Place(trained=1, over=1)


def test_validations_and_checkpoints_between_steps_are_part_of_their_pace() -> None:
    pace = EpochPace()
    follow(
        pace,
        (0.0, at(1, 1)),
        (3.0, at(1, 4, Stage.VALIDATION)),
        (8.0, at(1, 4, Stage.CHECKPOINT)),
        (9.0, at(1, 5)),
    )
    assert (pace.stepping_s, pace.into_end_s) == (9.0, 0.0)


def test_an_end_that_was_lost_or_half_seen_is_no_measure_of_one() -> None:
    pace = EpochPace()
    follow(pace, (0.0, at(1, 9)), (1.0, at(1, 10, Stage.VALIDATION)), (4.0, at(1, 10)))
    pace.lost()
    assert pace.into_end_s == 0.0
    follow(pace, (4.0, at(1, 10, Stage.VALIDATION)), (5.0, at(2, 0, Stage.FIRST_BATCH)))
    assert pace.ends == 0
    resumed = EpochPace()
    follow(
        resumed,
        (0.0, at(3, 10, Stage.VALIDATION)),
        (2.0, at(4, 1)),
        (3.0, at(4, 10, Stage.VALIDATION)),
        (7.0, at(5, 0, Stage.FIRST_BATCH)),
        steps_of_launch=0,
    )
    assert (resumed.ends, resumed.mean_ending_s) == (1, 4.0)


def test_a_session_begins_where_its_first_step_was() -> None:
    pace = EpochPace()
    follow(pace, (0.0, at(3, 4)), steps_of_launch=0)
    assert pace.began is None
    follow(pace, (1.0, at(3, 6)), steps_of_launch=2)
    assert pace.began == Place(trained=pytest.approx(2.4), over=2)
