import math

import pytest

from ctrkit.core.epochs import read_epochs, write_epochs
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


@pytest.mark.parametrize("damaged", ["x,1\n", "2\n", "2,10,7\n", "2,1"])
def test_rows_end_before_the_first_damaged_one_and_a_whole_file_is_asked_for(tmp_path, damaged):
    path = tmp_path / "epochs.csv"
    path.write_text("epoch,rows\n1,10\n" + damaged)
    assert [(row["epoch"], row["rows"]) for row in read_epochs(path)] == [(1, 10)]
    with pytest.raises(UsageError, match=r"epochs\.csv: not an epochs\.csv of ctrkit: row 2 is '"):
        read_epochs(path, whole=True)


def test_a_column_of_its_own_is_kept_and_a_missing_one_is_none(tmp_path):
    path = tmp_path / "epochs.csv"
    path.write_text("epoch,rows,accuracy\n1,10,0.5\n")
    (row,) = read_epochs(path, whole=True)
    assert (row["accuracy"], row["val_auc"]) == (0.5, None)
