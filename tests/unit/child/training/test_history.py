import math

import pytest

from ctrkit.child.training.history import read_epochs, write_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.records import EPOCH_COLUMNS


def test_rows_come_back_exactly_and_blanks_are_none(tmp_path):
    path = tmp_path / "epochs.csv"
    rows = [{"epoch": 1, "rows": 10, "train_loss": 1 / 3, "val_auc": math.nan}]
    write_epochs(path, rows)
    assert path.read_text().splitlines()[0] == ",".join(EPOCH_COLUMNS)
    (found,) = read_epochs(path)
    assert found["train_loss"] == 1 / 3
    assert found["val_auc"] is None
    assert (found["epoch"], found["rows"]) == (1, 10)


def test_no_file_is_no_rows(tmp_path):
    assert read_epochs(tmp_path / "epochs.csv") == []


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "epochs.csv").write_text("epoch,rows\nx,1\n")
    with pytest.raises(UsageError, match=r"epochs\.csv"):
        read_epochs(tmp_path / "epochs.csv")
