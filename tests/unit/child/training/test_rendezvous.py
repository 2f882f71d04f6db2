import threading

import pytest
from torch.distributed import HashStore

from ctrkit.child.training.rendezvous import find_ranks_in

WAIT_S = 20.0


def all_meet(store, count, says):
    """Ranks as threads; the others come first."""
    met = {}

    def come(rank):
        met[rank] = find_ranks_in(store, rank, count, says if rank == 0 else {}, timeout_s=WAIT_S)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in reversed(range(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    return [met[rank] for rank in range(count)]


def test_all_hear_what_rank_0_says_and_share_a_store():
    met = all_meet(HashStore(), 3, {"epochs": 2})
    assert [(one.rank, one.count, one.said) for one in met] == [
        (rank, 3, {"epochs": 2}) for rank in range(3)
    ]
    met[0].store.set("key", "value")
    assert met[2].store.get("key") == b"value"


def test_what_an_earlier_group_left_is_not_heard_again():
    store = HashStore()
    first = all_meet(store, 2, {"start": 1})
    first[0].store.set("address", "of one that has gone")
    second = all_meet(store, 2, {"start": 2})
    assert [one.said for one in second] == [{"start": 2}] * 2
    assert not second[1].store.check(["address"])


def test_a_request_of_one_that_has_gone_does_not_count_as_its_coming():
    store, waited = HashStore(), []
    with pytest.raises(TimeoutError, match=r"rank 0 did not come within 0 s"):
        find_ranks_in(store, 1, 3, {}, timeout_s=0.1)  # it asked, and went
    with pytest.raises(TimeoutError, match=r"rank 1, 2 did not come within 0 s"):
        find_ranks_in(store, 0, 3, {}, lambda: waited.append(1), timeout_s=0.1)
    assert waited
