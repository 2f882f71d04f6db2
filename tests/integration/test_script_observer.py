"""The observer in scripts that do not know it, each in its own process.

Most are forked from a process that has torch imported; what is `anew` imports it itself.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from observed import SCRIPTS, observe

from ctrkit.core.child_files import load_measurement
from ctrkit.core.script_epochs import epoch_rows, read_script_epochs
from ctrkit.core.spending import Spending, read_spent
from ctrkit.measure.epoch_length import epoch_length, length_finding, length_in
from ctrkit.measure.projection import project


def test_a_look_finds_the_loader_the_step_and_the_epochs(tmp_path: Path) -> None:
    found = observe(tmp_path, "inspect", "plain.py", anew=True)
    assert (found.code, found.out, found.err) == (0, "", "")
    seen = found.seen
    assert seen is not None
    assert found.trouble == ""
    assert (seen.train_loader, seen.clock, seen.batches_per_group) == (0, "loader", 1)
    assert (seen.epochs, seen.epochs_at_most, seen.main_guard) == (3, False, True)
    assert seen.epochs_from == "plain.py:21: for epoch in range(args.epochs)"
    loader = seen.loaders[0]
    assert (loader.length, loader.batch_size, loader.line) == (20, 8, 17)
    assert loader.file.endswith("plain.py")
    assert len(seen.batch_hashes) == 4
    assert len(seen.row_hashes) >= 32


def test_a_trial_measures_what_a_workloads_trial_does(tmp_path: Path) -> None:
    found = observe(tmp_path, "full", "plain.py", train_loader=0, window_s=60, anew=True)
    seen, measured = found.needed()
    assert found.code == 0
    assert measured.complete
    assert measured.error is None
    assert measured.throughput_rows == 8 * measured.throughput_steps > 0
    assert measured.stamps.window.count("throughput") == measured.throughput_steps
    assert measured.stamps.window.count("boundary") == 2
    assert (measured.epoch_batches, measured.epoch_rows) == (20, 160)
    assert len(measured.validation_batch_s) == 4
    assert len(measured.checkpoint_s) == 1
    assert None not in (measured.first_batch_s, measured.restart_s, measured.startup_s)
    assert set(measured.stages) == {"forward", "backward", "optimizer"}
    assert measured.sizes is not None
    assert (measured.sizes.epochs, measured.sizes.train_batches) == (3, 20)
    assert measured.stamps.fetch_end_s[0] is not None
    assert [one.is_train for one in seen.loaders] == [True, False]


def test_a_trial_never_writes_over_a_file_of_the_users(tmp_path: Path) -> None:
    best = tmp_path / "best.pt"
    best.write_text("twenty hours of work")
    os.utime(best, (1, 1))
    _, measured = observe(tmp_path, "full", "plain.py", "--save", str(best)).needed()
    assert len(measured.checkpoint_s) == 1
    assert best.read_text() == "twenty hours of work"
    assert [path.name for path in tmp_path.glob("best*")] == ["best.pt"]


def test_the_step_alone_and_the_loader_alone(tmp_path: Path) -> None:
    _, step_alone = observe(tmp_path, "compute", "plain.py", train_loader=0).needed()
    seen, loader_alone = observe(tmp_path, "loader", "plain.py", train_loader=0).needed()
    assert step_alone.complete
    assert step_alone.throughput_steps >= 4
    assert len(step_alone.losses) >= 4
    assert loader_alone.complete
    assert loader_alone.losses == []
    assert loader_alone.restart_s is not None
    assert seen.train_loader == 0


def test_a_real_run_is_only_watched(tmp_path: Path) -> None:
    found = observe(tmp_path, "train", "plain.py", anew=True)
    assert found.code == 0
    assert found.trouble == ""
    assert found.out.splitlines()[-1].startswith("epoch 2 ")
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert [(one["epoch"], one["batches"], one["rows"]) for one in epochs] == [
        (1, 20, 160), (2, 20, 160), (3, 20, 160),
    ]  # fmt: skip
    assert all(one["validation_s"] > 0 and one["checkpoint_s"] > 0 for one in epochs)
    assert (found.folder / "spent.bin").exists()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("accumulation.py", {"batches_per_group": 4, "epochs": 2, "steps_per_batch": 0.25}),
        ("gan.py", {"batches_per_group": 1, "steps_per_batch": 2.0, "main_guard": False}),
        ("stream.py", {"epochs": 2, "epochs_from": "stream.py:32: while epoch < 2"}),
        ("endless.py", {"epochs": 4, "epochs_from": "endless.py:49: if self.epoch >= self.epochs"}),
        ("passes.py", {"epochs": 5, "epochs_at_most": True}),
        ("fetch_ahead.py", {"fetched_ahead": 1, "batches_per_group": 2, "epochs": 3}),
        ("anew.py", {"train_loader": 1, "epochs": 3}),
        ("hogwild.py", {"trainers": 2, "epochs": 20}),
        ("no_loader.py", {"clock": "optimizer", "steps": 60, "train_loader": None}),
        ("nothing_to_tell.py", {"clock": "", "train_loader": None}),
    ],
)
def test_a_look_at(script: str, told: dict[str, Any], tmp_path: Path) -> None:
    found = observe(tmp_path, "inspect", script)
    assert found.trouble == ""
    seen = found.seen
    assert seen is not None, found.err
    assert {"train_loader": 0, "clock": "loader"} | told == {
        name: getattr(seen, name) for name in {"train_loader": 0, "clock": "loader"} | told
    }
    assert bool(seen.problem) == (seen.clock == "")


@pytest.mark.parametrize(
    ("script", "batches", "validation"),
    [("endless.py", 15, 2), ("passes.py", 15, 20), ("fetch_ahead.py", 40, 0), ("anew.py", 15, 0)],
)
def test_an_epoch_ends_in_more_than_one_way(
    script: str, batches: int, validation: int, tmp_path: Path
) -> None:
    seen, measured = observe(tmp_path, "full", script, window_s=60).needed()
    assert measured.complete
    assert seen.epoch_batches == measured.epoch_batches == batches
    assert measured.restart_s is not None
    assert measured.stamps.window.count("boundary") == 2
    assert len(measured.validation_batch_s) == validation
    assert measured.throughput_steps % seen.batches_per_group == 0


def test_an_epoch_may_be_over_before_a_step_is_known(tmp_path: Path) -> None:
    """Its loaders never end, its steps get rarer, and nothing is asked after validation."""
    seen, measured = observe(tmp_path, "full", "ramp.py", window_s=60).needed()
    assert (seen.epochs, seen.epochs_from.split()[0]) == (3, "self.epochs")
    assert (measured.epoch_batches, measured.epoch_rows) == (8, 60)
    assert measured.stamps.rows[:8] == [8] * 7 + [4]
    assert len(measured.validation_batch_s) == 1
    assert measured.sizes is not None
    assert (measured.sizes.epochs, measured.sizes.validation_batches) == (3, 2)


def test_batches_may_be_taken_in_another_thread(tmp_path: Path) -> None:
    seen, measured = observe(tmp_path, "full", "in_a_thread.py", window_s=60).needed()
    assert (seen.train_loader, seen.epochs, seen.epoch_batches) == (0, 3, 40)
    assert measured.complete
    assert (measured.epoch_batches, measured.epoch_rows) == (40, 320)


@pytest.mark.parametrize("ahead", ["2", "12"])
def test_a_run_whose_batches_another_thread_takes_has_the_epochs_of_its_loader(
    ahead: str, tmp_path: Path
) -> None:
    """The loop trains on the last batches when the loader has no more: it does not keep them."""
    found = observe(tmp_path, "train", "in_a_thread.py", ahead)
    assert (found.code, found.trouble) == (0, "")
    assert found.seen is not None
    assert found.seen.notes == []
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert [(one["epoch"], one["batches"], one["rows"]) for one in epochs] == [
        (1, 40, 320), (2, 40, 320), (3, 40, 320),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("how", "batches", "reason"),
    [
        ("break", 13, "leaves the loader before its end"),
        ("zip", 12, "leaves the loader before its end"),
        ("error", 19, "1 batch raised an error that the script caught"),
    ],
)
def test_an_epoch_that_is_shorter_than_its_loader_says_why(
    how: str, batches: int, reason: str, tmp_path: Path
) -> None:
    _, measured = observe(tmp_path, "full", "left_early.py", how, window_s=60).needed()
    assert (measured.epoch_complete, measured.epoch_batches) == (True, batches)
    finding = length_finding(epoch_length([measured]))
    assert finding is not None
    assert f"an epoch has {batches} batches" in finding.text
    assert reason in finding.text
    assert "StopIteration" not in finding.text


@pytest.mark.parametrize(
    ("how", "notes"), [("steps", []), ("phase", ["the script also trains on loader 1"])]
)
def test_steps_beside_the_epochs_of_the_loader_are_no_epochs(
    how: str, notes: list[str], tmp_path: Path
) -> None:
    found = observe(tmp_path, "train", "beside_epochs.py", how)
    assert (found.code, found.trouble) == (0, "")
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert [(one["epoch"], one["batches"]) for one in epochs] == [(1, 20), (2, 20), (3, 20)]
    assert all(one["ended_s"] >= one["began_s"] for one in epochs)
    assert found.seen is not None
    assert [note.split(":")[0] for note in found.seen.notes] == notes


def test_the_rows_of_a_loader_that_only_its_loop_holds_are_counted(tmp_path: Path) -> None:
    found = observe(tmp_path, "train", "dropped_loader.py")
    assert (found.code, found.trouble) == (0, "")
    assert found.seen is not None
    assert found.seen.loaders[0].length == 10
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    assert [(one["batches"], one["rows"]) for one in epochs] == [(10, 76), (10, 76)]


def test_a_script_that_empties_its_environment_is_observed(tmp_path: Path) -> None:
    found = observe(tmp_path, "train", "empties_environment.py", anew=True)
    assert (found.code, found.trouble) == (0, "")
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["batches"] for line in lines] == [10, 10, 10]


def test_a_loader_that_is_none_of_torchs_is_watched_and_left_as_it_is(tmp_path: Path) -> None:
    """As fastai's: it uses torch's iterators, and a DataLoader is nowhere."""
    seen, measured = observe(tmp_path, "full", "own_loader.py", window_s=60).needed()
    assert (seen.train_loader, seen.clock, seen.epochs) == (0, "loader", 3)
    assert (measured.epoch_batches, measured.epoch_rows) == (10, 80)
    found = observe(tmp_path, "full", "own_loader.py", cell=FORK, train_loader=0, put_in=AXES)
    assert found.measured is not None
    assert found.measured.error is not None
    assert found.measured.error.verdict == "refused"
    assert "is not a torch DataLoader" in found.measured.error.message


@pytest.mark.parametrize(("how", "steps"), [("cycle", 184), ("list", 140), ("one", 140)])
def test_a_run_goes_on_with_batches_that_it_keeps(how: str, steps: int, tmp_path: Path) -> None:
    """Else its silence would be taken for a hang."""
    found = observe(tmp_path, "train", "kept_batches.py", how)
    assert (found.code, found.out, found.trouble) == (0, "done\n", "")
    assert found.seen is not None
    assert any("keeps" in note for note in found.seen.notes)
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["batches"] for line in lines) >= steps


def test_a_trial_does_not_measure_the_first_pass_for_all(tmp_path: Path) -> None:
    found = observe(tmp_path, "full", "kept_batches.py", "cycle", window_s=60)
    assert found.seen is not None
    assert "trains on batches that it keeps" in found.seen.problem
    seen, measured = observe(tmp_path, "full", "kept_batches.py", "inner", window_s=60).needed()
    assert seen.problem == ""
    assert (measured.complete, measured.epoch_batches) == (True, 10)


FORK = {"workers": 2, "start_method": "fork", "prefetch": 2, "persistent": True}
SPAWN = FORK | {"start_method": "spawn"}
AXES = ("workers", "start_method", "prefetch", "persistent")


def test_workers_are_put_in_and_make_the_same_batches(tmp_path: Path) -> None:
    as_written, _ = observe(tmp_path, "full", "plain.py", train_loader=0).needed()
    put_in = {"train_loader": 0, "put_in": AXES}
    found = observe(tmp_path, "full", "plain.py", cell=FORK, **put_in)
    seen, measured = found.needed()
    assert seen.batch_hashes == as_written.batch_hashes
    assert seen.row_hashes[:32] == as_written.row_hashes[:32]
    assert set(measured.stamps.worker[:4]) == {0, 1}
    assert None not in measured.stamps.sent_s[:6]
    assert len(list(found.folder.glob("worker-*.bin"))) == 2  # none for validation


def test_workers_can_be_started_anew(tmp_path: Path) -> None:
    found = observe(
        tmp_path,
        "full",
        "plain.py",
        train_loader=0,
        put_in=AXES,
        cell=SPAWN,
        max_steps=4,
        anew=True,
    )
    _, measured = found.needed()
    assert measured.complete
    assert set(measured.stamps.worker[:4]) == {0, 1}


@pytest.mark.parametrize(
    ("written", "persistent"),
    [
        ((), True),
        (("generator",), True),
        (("persistent",), False),
        (("persistent", "generator"), False),
    ],
)
def test_a_seeded_shuffle_keeps_its_order_whatever_is_put_in(
    tmp_path: Path, written: tuple[str, ...], persistent: bool
) -> None:
    alone = observe(tmp_path, "train", "order.py", *written)
    cell = FORK | {"persistent": persistent}
    found = observe(tmp_path, "train", "order.py", *written, train_loader=0, put_in=AXES, cell=cell)
    assert len(found.out.splitlines()) == 12
    assert found.out == alone.out


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("stream.py", "Stream is iterated and does not ask get_worker_info"),
        ("gan.py", "outside of `if __name__ == '__main__':`"),
        ("local_function.py", "dataset.transform"),
        ("under_guard.py", "dataset (Rows is defined under `if __name__ == '__main__':`)"),
    ],
)
def test_what_a_loader_cannot_take_is_refused(script: str, why: str, tmp_path: Path) -> None:
    found = observe(tmp_path, "full", script, train_loader=0, put_in=AXES, cell=SPAWN)
    assert found.code == 1
    assert found.measured is not None
    assert found.measured.error is not None
    assert found.measured.error.verdict == "refused"
    assert why in found.measured.error.message
    assert list(found.folder.glob("worker-*.bin")) == []


def test_a_stream_that_shares_itself_out_takes_workers(tmp_path: Path) -> None:
    _, measured = observe(
        tmp_path, "full", "stream.py", "shared", train_loader=0, put_in=AXES, cell=FORK, window_s=60
    ).needed()
    assert measured.epoch_batches == 20


def test_ranks_stop_at_the_same_step(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *torchrun, str(SCRIPTS / "ranks.py")]
    found = observe(tmp_path, "full", command)
    seen, measured = found.needed()
    assert (found.code, seen.rank) == (0, 0)
    assert measured.complete
    assert measured.throughput_rows == 2 * 8 * measured.throughput_steps
    other = load_measurement(found.folder / "rank-1" / "measurement.json")
    assert other is not None
    assert len(other.stamps.step) == len(measured.stamps.step)


def test_the_loaders_of_ranks_alone_count_the_rows_of_all(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *torchrun, str(SCRIPTS / "ranks.py")]
    _, measured = observe(tmp_path, "loader", command, train_loader=0).needed()
    assert measured.complete
    assert (measured.epoch_batches, measured.epoch_rows) == (20, 320)
    assert measured.throughput_rows == 2 * 8 * measured.throughput_steps


def test_what_a_long_epoch_of_ranks_leaves_unseen_is_noted(tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *torchrun, str(SCRIPTS / "ranks.py"), "3200000"]
    seen, measured = observe(tmp_path, "full", command).needed()
    assert measured.complete
    assert not measured.epoch_complete
    for notes in (seen.notes, measured.notes):
        assert any("the first epoch was not cut short" in note for note in notes)


def test_a_process_without_torch_and_a_users_own_sitecustomize(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("print('mine')\n")
    check = "import sys; print([name for name in sys.modules if 'ctrkit.child' in name])"
    found = observe(
        tmp_path, "inspect", [sys.executable, "-c", check], env={"PYTHONPATH": str(own)}
    )
    assert found.seen is None
    assert (
        found.out == "mine\n['ctrkit.child', 'ctrkit.child.script', 'ctrkit.child.script.hook']\n"
    )
    assert found.err == ""


def test_a_long_first_epoch_is_ended_to_measure_what_follows(tmp_path: Path) -> None:
    seen, measured = observe(tmp_path, "full", "plain.py", "--rows", "2000000").needed()
    assert measured.complete
    assert not measured.epoch_complete
    assert 0 < measured.epoch_batches < 250_000
    assert seen.epoch_batches is None
    assert measured.restart_s is not None
    assert len(measured.validation_batch_s) == 4
    assert measured.checkpoint_s
    assert measured.sizes is not None
    assert (measured.sizes.train_batches, measured.sizes.validation_batches) == (250_000, 4)
    assert any("ctrkit ended the first epoch after" in note for note in measured.notes)


def test_the_last_epoch_is_not_ended_early(tmp_path: Path) -> None:
    """What a script does after its last epoch (a test, an upload) is none of a trial's business."""
    found = observe(tmp_path, "full", "plain.py", "--rows", "2000000", "--epochs", "1")
    _, measured = found.needed()
    assert measured.complete
    assert measured.restart_s is None
    assert found.out == ""
    assert not (tmp_path / "model.pt").exists()


def test_what_comes_in_between_is_left_out_of_the_window(tmp_path: Path) -> None:
    """Validations and checkpoints inside an epoch are no steps, and there are several of them."""
    seen, measured = observe(tmp_path, "full", "every.py", window_s=30.0).needed()
    assert (seen.epochs, seen.steps) == (None, 400)
    windows = measured.stamps.window
    assert windows.count("interrupted") == 4  # the fifth is at the epoch's end
    assert windows.count("throughput") == measured.throughput_steps
    assert measured.sizes is not None
    assert (measured.sizes.epochs, measured.sizes.train_batches) == (4, 100)
    sizes = measured.sizes
    assert (sizes.validations, sizes.validation_batches, sizes.checkpoints) == (5, 50, 5)
    projected = project([measured], sizes)
    assert projected is not None
    batch_s = sum(measured.validation_batch_s) / len(measured.validation_batch_s)
    each_s = (measured.validation_restart_s or 0.0) + 10 * batch_s
    write_s = sum(measured.checkpoint_s) / len(measured.checkpoint_s)
    # in each of 4 epochs one at its end, and four between its steps
    assert projected.terms["validation"].mean == pytest.approx(4 * each_s)
    assert projected.terms["checkpoint"].mean == pytest.approx(4 * write_s)
    assert projected.terms["within"].mean == pytest.approx(4 * 4 * (each_s + write_s))
    # an epoch's own time has neither validation nor checkpoint, which are terms of their own
    assert measured.epoch_s is not None
    interrupted = [i for i, window in enumerate(measured.stamps.window) if window == "interrupted"]
    stamps = measured.stamps
    beside_s = sum(stamps.done_s[i] - stamps.delivered_s[i] for i in interrupted)
    whole_s = stamps.done_s[99] - stamps.asked_s[0]
    assert measured.epoch_s <= whole_s - beside_s / 2


def test_what_comes_between_epochs_beside_validation_and_checkpoint_counts(tmp_path: Path) -> None:
    _, measured = observe(
        tmp_path, "full", "between.py", str(tmp_path / "m.pt"), window_s=30.0
    ).needed()
    (metrics_s,) = measured.metrics_s
    assert metrics_s >= 0.5
    assert measured.checkpoint_s[0] >= 0.25


def test_an_epoch_of_a_real_run_has_each_second_once(tmp_path: Path) -> None:
    found = observe(tmp_path, "train", "between.py", str(tmp_path / "m.pt"))
    lines = read_script_epochs(found.folder / "script-epochs.jsonl")
    assert len(lines) == 3
    for line in lines:
        assert line["validation_s"] >= 0.5
        assert line["checkpoint_s"] >= 0.25
        between_s = line.get("over_s", math.inf) - line["ended_s"]
        assert line["validation_s"] + line["checkpoint_s"] <= between_s + 0.001
    # each is shown before the next one has a line
    first = epoch_rows(lines[:1])[0]["wall_s"]
    assert first == pytest.approx(lines[1]["began_s"] - lines[0]["began_s"])


def test_validation_before_training_counts_once(tmp_path: Path) -> None:
    """It lies between two epochs, also where only the next epoch tells that one is over."""
    seen, measured = observe(tmp_path, "full", "before_training.py", window_s=30.0).needed()
    assert measured.epoch_complete
    assert seen.epoch_batches == measured.epoch_batches == 20
    sizes = measured.sizes
    assert sizes is not None
    assert (sizes.validations, sizes.validation_batches, sizes.checkpoints) == (1, 5, 1)
    assert measured.teardown_s == pytest.approx(0.0)
    stamps = measured.stamps
    assert (measured.epoch_s or 0.0) <= stamps.done_s[19] - stamps.asked_s[0] + 1e-3
    projected = project([measured], sizes)
    assert projected is not None
    assert projected.sizes.train_batches == 20
    parts_s = sum(term.mean for name, term in projected.terms.items() if name != "startup") / 6
    assert projected.epoch.mean == pytest.approx(parts_s)
    validation_s = projected.terms["validation"].mean / 6
    assert validation_s == pytest.approx(
        (measured.validation_restart_s or 0.0)
        + 5 * sum(measured.validation_batch_s) / len(measured.validation_batch_s)
    )


def test_validation_may_go_on_with_one_iterator(tmp_path: Path) -> None:
    """Four batches every 25 steps, from an iterator that is never made anew."""
    found = observe(tmp_path, "full", "one_iterator.py", train_loader=1, window_s=30.0)
    sizes = found.needed()[1].sizes
    assert sizes is not None
    assert (sizes.train_batches, sizes.validations, sizes.validation_batches) == (100, 4, 16)


@pytest.mark.parametrize("data", ["stream", "indexed"])
def test_batches_beyond_len_override_it(data: str, tmp_path: Path) -> None:
    _, measured = observe(tmp_path, "full", "wrong_length.py", data).needed()
    assert measured.epoch_batches > 5
    assert not measured.epoch_complete
    assert any("more batches than its len() of 5" in note for note in measured.notes)
    assert length_in([measured]).basis == "beyond"
    assert project([measured], measured.sizes) is None


@pytest.mark.parametrize("kind", ["full", "loader", "inspect", "train"])
def test_an_error_of_the_script_stays_its_own(kind: str, tmp_path: Path) -> None:
    found = observe(tmp_path, kind, "failing.py", train_loader=0, min_steps=50, window_s=60.0)
    assert found.trouble == ""
    if kind == "inspect":  # it has seen enough before
        assert found.code == 0
        return
    assert found.code == 1
    assert found.err.rstrip().endswith("ValueError: row 50 is broken")
    assert found.measured is None or not found.measured.complete


def test_the_loader_alone_begins_a_second_epoch_in_the_middle_of_the_first(tmp_path: Path) -> None:
    found = observe(tmp_path, "loader", "plain.py", "--rows", "400000", train_loader=0)
    _, measured = found.needed()
    assert measured.complete
    assert not measured.epoch_complete
    assert measured.restart_s is not None
    assert measured.stamps.window.count("boundary") == 2


def test_warnings_name_the_line_that_they_name_without_the_observer(tmp_path: Path) -> None:
    plain = subprocess.run(
        [sys.executable, str(SCRIPTS / "warns.py")], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=True,
    )  # fmt: skip
    assert plain.stderr.count("warns.py:") >= 2
    found = observe(tmp_path, "train", "warns.py", anew=True)
    assert _without_addresses(found.err) == _without_addresses(plain.stderr)


def _without_addresses(text: str) -> str:
    return re.sub("0x[0-9a-f]+", "0x", text)


@pytest.mark.parametrize("cell", [None, FORK], ids=["as written", "workers"])
def test_a_launch_may_look_further_down_the_epoch(
    cell: dict[str, Any] | None, tmp_path: Path
) -> None:
    rows = ("--rows", "800")
    as_written, _ = observe(tmp_path, "full", "plain.py", *rows, train_loader=0).needed()
    put_in = {} if cell is None else {"cell": cell, "put_in": AXES}
    found = observe(
        tmp_path, "full", "plain.py", *rows, train_loader=0, window_s=60, epoch_share=0.5, **put_in
    )
    seen, measured = found.needed()
    assert found.code == 0
    assert measured.complete
    assert measured.first_batch == 50
    # its first batches are those of the script as written; the rest is no whole epoch
    count = len(seen.batch_hashes)
    assert 0 < count <= len(as_written.batch_hashes)
    assert seen.batch_hashes == as_written.batch_hashes[:count]
    assert seen.row_hashes == as_written.row_hashes[: len(seen.row_hashes)]
    assert not measured.epoch_complete
    assert measured.epoch_batches == 100
    stamps = measured.stamps
    first_epoch = [stamps.step[i] for i, epoch in enumerate(stamps.epoch) if epoch == 1]
    assert max(first_epoch) == 50
    assert measured.stamps.window.count("boundary") == 2
    assert len(measured.validation_batch_s) == 4


def test_the_first_batch_of_each_later_epoch_is_waited_for(tmp_path: Path) -> None:
    found = observe(tmp_path, "train", "slow_begin.py")
    assert found.trouble == ""
    spent = read_spent(found.folder / "spent.bin")
    assert spent is not None
    # the first epoch's is part of the start: nothing was known of the loop before its first step
    assert spent.seconds[Spending.DATA_WAIT] >= 4 * 0.4
    assert spent.seconds[Spending.VALIDATION] >= 3 * 0.3
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["validation_s"] > 0.25 for line in lines] == [
        True,
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("every", "share", "batches"),
    [(4, 3 / 12, 20), (1, None, 20), (5, 3 / 12, 20)],
)
def test_a_trial_goes_on_to_the_epoch_that_validates(
    every: int, share: float | None, batches: int, tmp_path: Path
) -> None:
    found = observe(tmp_path, "full", "every_kth.py", str(tmp_path / "m.pt"), str(every))
    _, measured = found.needed()
    assert found.trouble == ""
    assert measured.complete
    sizes = measured.sizes
    assert sizes is not None
    assert (sizes.epochs, sizes.validation_batches, sizes.validations) == (12, batches, 1)
    assert sizes.validation_share == share
    assert (sizes.checkpoints, sizes.checkpoint_share) == (1, 0.5)
    told = [note for note in measured.notes if note.startswith("validation comes in 3 of 12")]
    assert len(told) == (share is not None)
    assert not any("ten more" in note for note in measured.notes)


def test_an_epoch_too_far_away_is_said_to_be_unseen(tmp_path: Path) -> None:
    """With 12 epochs the eleventh is the first; the last one is never gone to."""
    found = observe(tmp_path, "full", "every_kth.py", str(tmp_path / "m.pt"), "12")
    _, measured = found.needed()
    assert measured.sizes is not None
    assert measured.sizes.validation_batches is None
    assert any(
        "in 1 of 12 epochs, the first of them epoch 12, was not seen" in note
        for note in measured.notes
    )


@pytest.mark.parametrize(("how", "code"), [("fork", 7), ("multiprocessing", 0)])
def test_the_last_epoch_of_a_forked_process_is_told(how: str, code: int, tmp_path: Path) -> None:
    found = observe(tmp_path, "train", "forks_itself.py", how)
    assert found.code == code
    assert found.out.splitlines() == ["epoch 0", "epoch 1", "epoch 2"]
    lines = (found.folder / "script-epochs.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3]


def test_epochs_that_are_not_alike_are_said_to_be(tmp_path: Path) -> None:
    seen, measured = observe(tmp_path, "full", "grows.py").needed()
    assert measured.sizes is not None
    assert (measured.sizes.epochs, measured.sizes.train_batches) == (6, 10)
    for told in ("second epoch has 20 batches, that of the first 10", "the 6 epochs are those of"):
        assert any(told in note for note in seen.notes), seen.notes
