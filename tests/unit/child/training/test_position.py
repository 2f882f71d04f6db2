import math

import pytest

from ctrkit.child.training.checkpoint import save_checkpoint
from ctrkit.child.training.position import NUMERICS, Position, read_state
from ctrkit.core.epochs import write_epochs
from ctrkit.core.errors import UsageError


def test_early_stopping_counts_epochs_without_gain():
    position = Position()
    assert position.judge(0.6)
    assert not position.judge(0.6)
    assert not position.judge(math.nan)
    assert not position.judge(None)
    assert (position.best_epoch, position.epochs_without_gain) == (1, 2)
    assert position.judge(0.7)
    assert position.epochs_without_gain == 0


def test_steps_and_epochs_are_counted():
    position = Position(wall_s=3.0)
    position.count_step(128)
    position.count_step(7)
    assert (position.batch, position.steps, position.rows) == (2, 2, 135)
    position.next_epoch()
    assert (position.epoch, position.batch, position.rows, position.wall_s) == (2, 0, 0, 0.0)
    assert position.steps == 2


def test_what_is_saved_has_the_time_or_is_the_beginning():
    position = Position(epoch=2, batch=3, rows=30, steps=13, wall_s=1.0)
    assert position.as_saved(2.0, at_beginning=False)["wall_s"] == 3.0
    begun = Position(**position.as_saved(2.0, at_beginning=True))
    assert begun == Position(epoch=2, steps=10)


def test_it_is_found_again_with_the_times_of_the_file(tmp_path):
    position = Position(epoch=2, history=[{"epoch": 1, "rows": 5, "wall_s": 1.0}])
    state = {"identity": {"batch size": 4}, "position": position.as_saved(0, at_beginning=False)}
    save_checkpoint(tmp_path / "last.pt", state)
    write_epochs(tmp_path / "epochs.csv", [{"epoch": 1, "rows": 5, "wall_s": 9.0}])
    wanted = {**NUMERICS, "batch size": 4}
    _, found = read_state(tmp_path / "last.pt", tmp_path / "epochs.csv", wanted)
    assert (found.epoch, found.history[0]["wall_s"]) == (2, 9.0)
    with pytest.raises(UsageError, match="its batch size is 4, but this run's is 8"):
        read_state(tmp_path / "last.pt", tmp_path / "epochs.csv", {**wanted, "batch size": 8})
