"""The observer in scripts that know nothing of it, each a process of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from observed import observe


def test_a_look_finds_the_loader_the_step_and_the_epochs(tmp_path: Path) -> None:
    found = observe(tmp_path, "inspect", "plain.py")
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
    found = observe(tmp_path, "full", "plain.py", train_loader=0)
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
    found = observe(tmp_path, "train", "plain.py")
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
