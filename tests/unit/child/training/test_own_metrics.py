"""A task's metrics as columns of `epochs.csv`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ctrkit.child.training.own_metrics import check_watch, own_metrics, watched_value
from ctrkit.core.errors import UsageError


def test_numbers_of_any_kind_are_numbers() -> None:
    found = own_metrics(
        {"a": 1, "b": np.float32(0.5), "c": torch.tensor(0.25), "d": True, "e": math.inf}
    )
    assert found == {"a": 1.0, "b": 0.5, "c": 0.25, "d": 1.0, "e": math.inf}


def test_what_is_no_number_is_kept_as_text_and_none_is_unknown() -> None:
    found = own_metrics({"note": "two\nlines", "pair": torch.ones(2), "odd": 1 + 2j, "none": None})
    assert found == {
        "note": "two lines", "pair": "tensor([1., 1.])", "odd": "(1+2j)", "none": None
    }  # fmt: skip
    assert len(str(own_metrics({"long": "x" * 1000})["long"])) == 200


def test_no_metric_hides_a_fixed_column_or_another_metric() -> None:
    found = own_metrics(
        {"rows": 5, "metric_rows": 6, "a b": 1, "a  b": 2, "": 3, 7: 4, "learning_rate": 0.1}
    )
    assert found == {
        "metric_rows": 5.0, "metric_metric_rows": 6.0, "a b": 1.0, "metric_a b": 2.0,
        "unnamed": 3.0, "7": 4.0, "learning_rate": 0.1,
    }  # fmt: skip
    assert watched_value(found, ("rows", "max")) == 5.0


def test_metrics_that_are_no_mapping_are_named() -> None:
    with pytest.raises(UsageError, match="Task.metrics returned a list"):
        own_metrics([1, 2])


@pytest.mark.parametrize("watch", ["val_loss", ("val_loss",), ("val_loss", "up"), ("", "max"), 3])
def test_a_watch_is_a_name_and_a_direction(watch: object) -> None:
    with pytest.raises(UsageError, match='for example watch = \\("val_accuracy", "max"\\)'):
        check_watch(watch)
    assert check_watch(["val_loss", "min"]) == ("val_loss", "min")
    assert check_watch(None) is None
