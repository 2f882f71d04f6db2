import math

import pytest

from ctrkit.core.epochs import OddValue, odd_values, read_epochs, write_epochs
from ctrkit.core.errors import UsageError


def test_rows_come_back_exactly_and_blanks_are_none(tmp_path):
    path = tmp_path / "epochs.csv"
    rows = [{"epoch": 1, "rows": 10, "train_loss": 1 / 3, "val_auc": math.nan}]
    write_epochs(path, rows)
    assert path.read_text().splitlines()[0] == "epoch,rows,wall_s,learning_rate,train_loss,val_auc"
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
    assert (row["accuracy"], row["wall_s"]) == (0.5, None)


def test_columns_stand_in_the_order_asked_for_and_new_ones_follow(tmp_path):
    path = tmp_path / "epochs.csv"
    rows = [{"epoch": 1, "f1, macro": 0.5, "rows": 3}, {"epoch": 2, "late": 1.0, "rows": 3}]
    write_epochs(path, rows, ("epoch", "val_auc", "rows"))
    assert path.read_text() == ('epoch,val_auc,rows,"f1, macro",late\n1,,3,0.5,\n2,,3,,1.0\n')
    assert [row["f1, macro"] for row in read_epochs(path)] == [0.5, None]
    assert [row["late"] for row in read_epochs(path)] == [None, 1]


def test_what_is_no_number_is_kept_and_told(tmp_path):
    path = tmp_path / "epochs.csv"
    rows = [{"epoch": 1, "loss": math.inf, "note": 'a "b", c'}, {"epoch": 2, "loss": math.nan}]
    write_epochs(path, rows)
    assert [row["loss"] for row in read_epochs(path)] == [None, None]
    assert odd_values(path) == [
        OddValue(1, "loss", "inf"), OddValue(1, "note", 'a "b", c'), OddValue(2, "loss", "nan")
    ]  # fmt: skip
