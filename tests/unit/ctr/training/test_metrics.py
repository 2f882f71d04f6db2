import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.ctr import auc as of_auc
from ctrkit.ctr.auc import auc
from ctrkit.ctr.training import metrics
from ctrkit.ctr.training.metrics import Scores, grouped_auc, log_loss


def _plain_gauc(labels, scores, users):
    from sklearn.metrics import roc_auc_score

    total = weight = 0.0
    for user in np.unique(users):
        mine = users == user
        if len(np.unique(labels[mine])) == 2:
            total += mine.sum() * roc_auc_score(labels[mine], scores[mine])
            weight += mine.sum()
    return total / weight if weight else math.nan


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 1), st.sampled_from([-1.5, 0.0, 0.1, 2.0])),
        max_size=60,
    )
)
def test_gauc_is_sklearns_auc_of_each_user_weighted_by_impressions(rows):
    users, labels, scores = (np.array([row[i] for row in rows]) for i in range(3))
    found = grouped_auc(labels, scores, users)
    assert found == pytest.approx(_plain_gauc(labels, scores, users), nan_ok=True)


def test_gauc_of_many_users_with_distinct_scores():
    rng = np.random.default_rng(5)
    users = rng.integers(0, 300, 5000).astype(np.int32)
    labels = (rng.random(5000) < 0.2).astype(np.float32)
    scores = rng.normal(size=5000).astype(np.float32) + labels
    expected = _plain_gauc(labels, scores, users)
    assert grouped_auc(labels, scores, users) == pytest.approx(expected, abs=1e-12)


def test_gauc_leaves_out_users_with_one_class():
    users, labels = np.array([1, 1, 2, 2, 2]), np.array([1.0, 0.0, 1.0, 1.0, 1.0])
    assert grouped_auc(labels, np.array([0.9, 0.1, 0.5, 0.2, 0.3]), users) == 1.0


@pytest.mark.parametrize("rows_at_once", [1, 7, 100, 10_000])
def test_the_parts_in_which_rows_are_ranked_do_not_matter(monkeypatch, rows_at_once):
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 3000).astype(np.float32)
    scores = np.round(random.normal(size=3000), 1).astype(np.float32)  # many ties
    users = random.integers(0, 60, 3000)
    whole = grouped_auc(labels, scores, users)
    monkeypatch.setattr(of_auc, "ROWS_AT_ONCE", rows_at_once)
    assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores), abs=1e-14)
    assert grouped_auc(labels, scores, users) == whole


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([-1e30, -1.5, 0.0, 0.1, 2.0, 7e9])),
        max_size=40,
    )
)
def test_auc_is_sklearns_and_nan_where_there_is_none(rows):
    from sklearn.metrics import roc_auc_score

    labels, scores = (np.array([row[i] for row in rows], np.float32) for i in range(2))
    expected = roc_auc_score(labels, scores) if len(set(labels)) == 2 else math.nan
    assert auc(labels, scores) == pytest.approx(expected, abs=1e-14, nan_ok=True)


def test_a_diverged_model_has_no_auc():
    labels, scores = np.array([0.0, 1.0]), np.array([0.5, math.nan])
    assert math.isnan(auc(labels, scores))
    assert math.isnan(grouped_auc(labels, scores, np.array([1, 1])))


def test_log_loss_plain_and_smoothed():
    from sklearn.metrics import log_loss as sklearn_log_loss

    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, 50).astype(np.float32), rng.normal(size=50)
    chance = 1 / (1 + np.exp(-logits))
    assert log_loss(labels, logits) == pytest.approx(sklearn_log_loss(labels, chance))
    target = labels * 0.9 + 0.05
    expected = -np.mean(target * np.log(chance) + (1 - target) * np.log(1 - chance))
    assert log_loss(labels, logits, 0.1) == pytest.approx(expected)
    assert log_loss(np.ones(1), np.array([-1000.0])) == 1000.0
    assert math.isnan(log_loss(np.ones(0), np.ones(0)))


def test_scores_keep_copies_of_what_they_are_given():
    scores, batch = Scores("logit", "user"), torch.arange(8.0).reshape(4, 2).requires_grad_()
    scores.append(batch[:, 0], torch.arange(4, dtype=torch.int32))
    scores.append(batch[:1, 1], torch.tensor([9], dtype=torch.int32))
    with torch.no_grad():
        batch.fill_(-1)
    found = scores.arrays()
    assert found["logit"].tolist() == [0, 2, 4, 6, 1]
    assert found["user"].tolist() == [0, 1, 2, 3, 9]
    assert found["user"].dtype == np.int32
    with pytest.raises(ValueError):
        scores.append(torch.zeros(1))


def test_scores_go_on_from_their_state():
    scores, other = Scores("logit"), Scores("logit")
    scores.append(torch.tensor([1.0, 2.0]))
    other.load_state_dict(scores.state_dict(), torch.device("cpu"))
    other.append(torch.tensor([3.0]))
    assert other.arrays()["logit"].tolist() == [1, 2, 3]
    other.clear()
    assert len(other.arrays()["logit"]) == 0
    other.load_state_dict(Scores("logit").state_dict(), torch.device("cpu"))
    other.append(torch.tensor([4.0]))
    assert other.arrays()["logit"].tolist() == [4]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(1, 8))
def test_scores_are_the_same_however_large_a_block_is(pieces, block):
    rows = torch.arange(sum(pieces), dtype=torch.int32)
    scores = Scores("user", "gate")
    with mock.patch.object(metrics, "ROWS_AT_ONCE", block):
        for part in rows.split(pieces):
            scores.append(part, part.double())
    assert scores.pieces() == pieces
    assert scores.arrays()["user"].tolist() == rows.tolist()
    assert [part.tolist() for (part,) in scores.batches("gate")] == [
        part.tolist() for part in rows.split(pieces)
    ]
