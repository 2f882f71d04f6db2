import os

import psutil
import pytest

from ctrkit.core.progress import Progress, Stage
from ctrkit.supervise.other_load import LoadLook, look_at_load, other_cores_by_epoch
from ctrkit.supervise.sampler import TreeSampler
from ctrkit.supervise.time_limits import StageLimit
from ctrkit.supervise.watching import Tick


def looks(epoch, first_s, busy, own, count=5):
    """A look each half second, at so many busy cores of which the trial takes a part."""
    return [
        LoadLook(epoch=epoch, at_s=first_s + i / 2, busy_s=busy * i / 2, own_s=own * i / 2)
        for i in range(count)
    ]


def test_what_others_took_is_told_for_each_epoch():
    found = other_cores_by_epoch([*looks(1, 0.0, 1.0, 0.9), *looks(2, 5.0, 1.9, 0.8)])
    assert found == [pytest.approx(0.1), pytest.approx(1.1)]


@pytest.mark.parametrize(
    "seen", [[], looks(1, 0.0, 1.0, 0.5), [*looks(1, 0.0, 1.0, 0.5), *looks(2, 5.0, 1.0, 0.5, 2)]]
)
def test_too_few_looks_tell_nothing(seen):
    assert other_cores_by_epoch(seen) == []


def tick(stage, wall_s=10.0, pid=None):
    sample = TreeSampler(os.getpid() if pid is None else pid).sample(0.0)
    progress = Progress(
        pid=os.getpid(), stage=stage, epoch=2, step=5, steps=0, rows=0, writes=1, written_s=0.0,
        wait_s=0.0, loss=0.0,
    )  # fmt: skip
    limit = StageLimit(idle_s=1.0, burning_s=1.0, reason="")
    return Tick(wall_s=wall_s, silent_s=0.0, stage=stage, limit=limit, progress=progress,
                sample=sample)  # fmt: skip


def test_a_look_counts_this_process_and_the_trial():
    look = look_at_load(tick(Stage.STEP), 0.0)
    assert (look.epoch, look.at_s) == (2, 10.0)
    own_s = sum(psutil.Process().cpu_times()[:2])
    assert look.own_s == pytest.approx(2 * own_s, rel=0.2)  # the trial is this process here
    assert look.busy_s > 0
    assert look_at_load(tick(Stage.STEP), 9.8) is None
    assert look_at_load(tick(Stage.VALIDATION), 0.0) is None
