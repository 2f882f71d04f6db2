import math

import pytest

from ctrkit.child.training.checkpoint import save_checkpoint
from ctrkit.child.training.position import NUMERICS, Position, read_state
from ctrkit.core.epochs import write_epochs
from ctrkit.core.errors import UsageError


def test_early_stopping_counts_epochs_without_gain():
    position = Position(watch=("accuracy", "max"))
    assert position.judge({"accuracy": 0.6})
    assert not position.judge({"accuracy": 0.6})
    assert not position.judge({"accuracy": math.nan})
    assert not position.judge({"accuracy": "high"})
    assert not position.judge({"loss": 0.1})
    assert (position.best_epoch, position.epochs_without_gain) == (1, 2)
    assert position.judge({"accuracy": 0.7})
    assert position.epochs_without_gain == 0


def test_less_can_be_better_and_infinity_never_is():
    position = Position(watch=("val_loss", "min"))
    assert not position.judge({"val_loss": math.inf})
    assert position.judge({"val_loss": 2.0})
    assert position.judge({"val_loss": 1.0})
    assert not position.judge({"val_loss": -math.inf})
    assert (position.best_value, position.epochs_without_gain) == (1.0, 1)


def test_without_a_watched_metric_no_epoch_is_the_best():
    position = Position()
    assert not position.judge({"val_auc": 0.6})
    assert (position.best_epoch, position.epochs_without_gain) == (None, 0)


def test_another_watched_metric_begins_anew():
    position = Position(watch=("loss", "min"), best_epoch=2, best_value=0.1, epochs_without_gain=3)
    position.watch_for(("loss", "min"))
    assert position.best_value == 0.1
    position.watch_for(("accuracy", "max"))
    assert (position.best_epoch, position.best_value, position.epochs_without_gain) == (
        None,
        None,
        0,
    )


def test_a_checkpoint_of_before_watched_the_validation_auc(tmp_path):
    saved = Position(epoch=3, best_epoch=2).as_saved(0, at_beginning=False)
    del saved["best_value"], saved["watch"]
    saved["best_val_auc"] = 0.7
    save_checkpoint(tmp_path / "last.pt", {"identity": {}, "position": saved})
    _, found = read_state(tmp_path / "last.pt", tmp_path / "epochs.csv", dict(NUMERICS))
    assert (found.best_epoch, found.best_value, found.watch) == (2, 0.7, ("val_auc", "max"))


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
