import dataclasses
import errno
import itertools
import math
import random
from collections.abc import Iterator

import pytest
import torch

from ctrkit.child.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.child.training.loop import run_training
from ctrkit.child.training.seeding import seed_everything
from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Task, Workload
from ctrkit.core.config import RunSizes, TrainPlan, make_cell
from ctrkit.core.epochs import read_epochs, write_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import ProgressWriter, Stage, read_progress
from ctrkit.core.unsaved import UNSAVED_FILE, read_unsaved

CELL = make_cell(batch_size=4, threads=1)
BATCHES, ROWS = 5, 18  # the last batch is a smaller one


class Loader:
    """Batches of row numbers in an order of the epoch's own."""

    def __init__(self, rows=ROWS, *, draws=False):
        self.rows, self.draws, self.closed, self.begun = rows, draws, 0, []

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.epoch, self.first = epoch, first_batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.begun.append((self.epoch, self.first))
        if self.draws:
            torch.rand(1)  # as a DataLoader without a generator of its own
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.epoch))
        return iter(order.split(CELL.batch_size)[self.first :])

    def close(self) -> None:
        self.closed += 1


class Net(Task):
    """A small network with dropout; the seen rows are kept as an epoch's metrics."""

    def __init__(self, val_aucs):
        seed_everything(1)
        self.model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        self.adam = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.table = torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(2))
        self.val_aucs, self.epoch, self.seen, self.validated = val_aucs, 0, [], 0
        self.steps = 0

    def begin_epoch(self, epoch):
        self.epoch, self.seen = epoch, []
        torch.rand(1)  # a task may draw here

    def transfer(self, batch):
        return batch

    def train_step(self, batch, mark):
        self.seen += batch.tolist()
        self.steps += 1
        self.adam.zero_grad()
        self.model(self.table[batch]).square().mean().backward()
        self.adam.step()

    def begin_validation(self):
        self.validated = 0

    def validation_step(self, batch):
        self.validated += len(batch)

    def recent_loss(self):
        return 0.25

    def metrics(self):
        weighted = sum(i * row for i, row in enumerate(self.seen, 1))
        found = {"train_loss": weighted / 7, "val_loss": float(self.validated), "unknown": 1.0}
        if self.val_aucs:
            found["val_auc"] = self.val_aucs[self.epoch - 1]
        return found

    def state_dict(self):
        return {"model": self.model.state_dict(), "adam": self.adam.state_dict(), "seen": self.seen}

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        self.seen = list(state["seen"])


class Work(Workload):
    watch = ("val_auc", "max")

    def __init__(self, *, epochs=3, patience=0, val_aucs=(), known=True, task=True, loader=None):
        self.train, self.validation = loader or Loader(), Loader(8)
        self.options = (epochs, patience, known, task)
        self.val_aucs, self.made, self.data, self.dropout = val_aucs, [], "d1", 0.5

    def settings(self):
        return {"dropout": self.dropout}

    def fingerprint(self):
        return f"work-{self.dropout}"

    def data_fingerprint(self):
        return self.data

    def sizes(self, batch_size):
        epochs, patience, known, _ = self.options
        batches = BATCHES if known else None
        return RunSizes(epochs=epochs, train_batches=batches, patience=patience)

    def train_loader(self, cell):
        return self.train

    def validation_loader(self, cell):
        return self.validation

    def make_task(self, cell):
        if not self.options[3]:
            return None
        self.made.append(Net(self.val_aucs))
        return self.made[-1]


def train(folder, work, stop=lambda: False, clock=None, **plan):
    plan = TrainPlan(run_folder=str(folder), **{"epochs": 3, **plan})
    with ProgressWriter(folder / "progress") as progress:
        return run_training(
            work, CELL, plan, progress, stop_requested=stop,
            **({"clock": clock} if clock else {}),
        )  # fmt: skip


def after(calls):
    """A stop that is requested from the given call on."""
    count = itertools.count(1)
    return lambda: next(count) > calls


def final(work):
    return torch.cat([p.detach().flatten() for p in work.made[-1].model.parameters()])


def test_a_whole_run(tmp_path):
    work = Work(val_aucs=(0.6, 0.7, 0.65))
    outcome = train(tmp_path, work)
    assert dataclasses.asdict(outcome) == {
        "finished": True, "stopped_early": False, "interrupted": False,
        "epochs_done": 3, "best_epoch": 2, "steps_run": 3 * BATCHES,
        "steps_done": 3 * BATCHES, "by_max_steps": False, "best_lost": False,
    }  # fmt: skip
    rows = read_epochs(tmp_path / "epochs.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["val_auc"] for row in rows] == [0.6, 0.7, 0.65]
    assert {row["rows"] for row in rows} == {ROWS}
    assert {row["val_loss"] for row in rows} == {8.0}
    assert {row["unknown"] for row in rows} == {1.0}
    assert all(row["wall_s"] > 0 for row in rows)
    assert load_checkpoint(tmp_path / "checkpoints/best.pt")["position"]["epoch"] == 3
    assert load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]["epoch"] == 4
    assert (work.train.closed, work.validation.closed) == (1, 1)


@pytest.mark.parametrize("draws", [False, True])
@pytest.mark.parametrize("known", [True, False])
def test_interrupted_anywhere_and_resumed_is_the_same_run(tmp_path, known, draws):
    def make():
        return Work(val_aucs=(0.6, 0.7, 0.65), known=known, loader=Loader(draws=draws))

    whole = make()
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", whole)
    expected = read_epochs(tmp_path / "whole/epochs.csv")
    for calls in (*range(0, 12), 14, 17, 20):
        folder = tmp_path / f"cut-{calls}"
        folder.mkdir()
        cut = make()
        first = train(folder, cut, after(calls))
        assert first.interrupted
        assert not first.finished
        resumed = make()
        second = train(folder, resumed, resume=True)
        assert second.finished
        assert first.steps_run + second.steps_run == 3 * BATCHES
        assert second.best_epoch == 2
        assert torch.equal(final(resumed), final(whole))
        rows = read_epochs(folder / "epochs.csv")
        for row, other in zip(rows, expected, strict=True):
            assert {**row, "wall_s": 0} == {**other, "wall_s": 0}


def test_what_the_metrics_draw_moves_no_stream(tmp_path):
    """As an import does that a process makes when it first computes them."""

    class Draws(Work):
        def make_task(self, cell):
            task = super().make_task(cell)
            plain = task.metrics
            task.metrics = lambda: (random.random(), torch.rand(3), plain())[-1]
            return task

    for folder, kind in ((tmp_path / "plain", Work), (tmp_path / "draws", Draws)):
        folder.mkdir()
        train(folder, kind())
    one, other = (
        load_checkpoint(tmp_path / name / "checkpoints/last.pt") for name in ("plain", "draws")
    )
    assert one["rng"]["python"] == other["rng"]["python"]
    assert torch.equal(one["rng"]["torch"], other["rng"]["torch"])


def test_interrupted_over_and_over(tmp_path):
    whole, parts = Work(), 1
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", whole)
    outcome = train(tmp_path, Work(), after(3))
    while not outcome.finished and parts < 20:
        work, parts = Work(), parts + 1
        outcome = train(tmp_path, work, after(3), resume=True)
    assert outcome.finished
    assert parts > 6
    assert torch.equal(final(work), final(whole))


def test_no_row_is_read_twice_or_left_out(tmp_path):
    first, second = Work(), Work()
    train(tmp_path, first, after(3), epochs=1)
    seen = list(first.made[0].seen)
    train(tmp_path, second, resume=True, epochs=1)
    assert second.train.begun == [(1, len(seen) // CELL.batch_size)]
    assert second.made[0].seen[: len(seen)] == seen
    assert sorted(second.made[0].seen) == list(range(ROWS))


def test_a_resumed_run_that_is_finished_does_nothing(tmp_path):
    train(tmp_path, Work())
    before = (tmp_path / "epochs.csv").read_bytes()
    work = Work()
    outcome = train(tmp_path, work, resume=True)
    assert outcome.finished
    assert (outcome.steps_run, outcome.epochs_done, work.made) == (0, 3, [])
    assert (tmp_path / "epochs.csv").read_bytes() == before


def test_more_epochs_can_be_asked_for(tmp_path):
    train(tmp_path, Work(), epochs=1)
    outcome = train(tmp_path, Work(), epochs=2, resume=True)
    assert (outcome.epochs_done, outcome.steps_run) == (2, BATCHES)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("data", "d2", "data fingerprint is d1, but this run's is d2"),
        ("dropout", 0.1, "dropout is 0.5, but this run's is 0.1"),
        ("name", "other", "workload is workload, but this run's is other"),
    ],
)
def test_another_experiment_is_not_continued(tmp_path, attribute, value, message):
    train(tmp_path, Work(), after(2))
    work = Work()
    setattr(work, attribute, value)
    with pytest.raises(UsageError, match=message):
        train(tmp_path, work, resume=True)


def test_all_that_differs_is_shown(tmp_path):
    train(tmp_path, Work(), after(2))
    work = Work()
    work.data, work.dropout = "d2", 0.1
    with pytest.raises(
        UsageError, match=r"data fingerprint is d1.*d2, its dropout is 0.5"
    ) as found:
        train(tmp_path, work, resume=True)
    assert "work-0.1" not in str(found.value)  # a fingerprint of what is named says nothing


def test_only_the_times_are_taken_from_the_file_of_epochs(tmp_path):
    train(tmp_path, Work(), epochs=1)
    before = read_epochs(tmp_path / "epochs.csv")
    text = (tmp_path / "epochs.csv").read_text()
    text = text.replace(repr(before[0]["train_loss"]), "0.125")
    text = text.replace(repr(before[0]["wall_s"]), "77.5")
    (tmp_path / "epochs.csv").write_text(text)
    train(tmp_path, Work(), epochs=1, resume=True)
    assert read_epochs(tmp_path / "epochs.csv") == [{**before[0], "wall_s": 77.5}]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / ".last.pt.abc").write_bytes(b"half")
    train(tmp_path, Work())
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [".lock", "last.pt", "previous.pt"]


class Disk:
    """A disk that is full for some of the saves; counts them."""

    def __init__(self, monkeypatch, full):
        self.saves, self.full, self.kept = 0, full, []
        self.patch = monkeypatch
        monkeypatch.setattr("ctrkit.child.training.run_state.save_checkpoint", self.save)
        monkeypatch.setattr("ctrkit.child.training.run_state._BETWEEN_TRIES_S", 0.0)

    def save(self, path, state):
        self.saves += 1
        if self.full(self.saves):
            raise OSError(errno.ENOSPC, "No space left on device")
        save_checkpoint(path, state)
        self.kept.append(self.saves)


def test_a_full_disk_for_a_while_costs_nothing_but_the_checkpoints(tmp_path, monkeypatch):
    whole = Work(val_aucs=(0.6, 0.7, 0.65))
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", whole, clock=Clock(), checkpoint_every_s=6)
    disk = Disk(monkeypatch, lambda save: 2 <= save <= 3)
    work = Work(val_aucs=(0.6, 0.7, 0.65))
    outcome = train(tmp_path, work, clock=Clock(), checkpoint_every_s=6)
    assert (outcome.finished, outcome.steps_run) == (True, 3 * BATCHES)
    assert 1 in disk.kept
    assert not {2, 3} & set(disk.kept)
    assert disk.saves == disk.kept[-1]
    assert torch.equal(final(work), final(whole))
    left = read_unsaved(tmp_path / UNSAVED_FILE)
    assert (left.failures, left.saved_epoch) == (0, 4)


def test_a_disk_that_stays_full_is_told_at_the_end_and_the_checkpoint_before_goes_on(
    tmp_path, monkeypatch
):
    disk = Disk(monkeypatch, lambda save: save > 1)
    work = Work()
    words = r"last.pt: cannot be written: No space left.* whole \(epoch 1, 2 batches.*--resume"
    with pytest.raises(UsageError, match=words):
        train(tmp_path, work, clock=Clock(), checkpoint_every_s=6)
    assert work.made[0].steps == 3 * BATCHES  # all of it was trained
    assert disk.saves > 4
    left = read_unsaved(tmp_path / UNSAVED_FILE)
    assert (left.failures, left.errno) == (disk.saves - 1, errno.ENOSPC)
    assert [row["epoch"] for row in read_epochs(tmp_path / "epochs.csv")] == [1, 2, 3]
    monkeypatch.undo()
    rest, whole = Work(), Work()
    train(tmp_path, rest, resume=True)
    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", whole)
    assert torch.equal(final(rest), final(whole))


def test_the_last_state_is_tried_again_until_there_is_room(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, lambda save: 3 <= save <= 5)
    outcome = train(tmp_path, Work(), clock=Clock(), checkpoint_every_s=1000)
    assert outcome.finished
    assert disk.kept == [1, 2, 6]
    assert load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]["epoch"] == 4


def test_a_stop_with_a_full_disk_says_that_nothing_was_saved(tmp_path, monkeypatch):
    Disk(monkeypatch, lambda save: True)
    with pytest.raises(UsageError, match=r"No space left.*nothing was saved of this run"):
        train(tmp_path, Work(), after(4))


def test_a_best_epoch_that_could_not_be_kept_is_told(tmp_path, monkeypatch):
    Disk(monkeypatch, lambda save: save == 2)
    outcome = train(tmp_path, Work(val_aucs=(0.6, 0.7, 0.65)))
    assert (outcome.best_epoch, outcome.best_lost) == (2, True)
    assert load_checkpoint(tmp_path / "checkpoints/best.pt")["position"]["epoch"] == 2
    better = train(tmp_path, Work(val_aucs=(0.6, 0.7, 0.65, 0.9)), epochs=4, resume=True)
    assert (better.best_epoch, better.best_lost) == (4, False)


def test_what_is_no_fault_of_the_disk_ends_the_run(tmp_path, monkeypatch):
    def broken(path, state):
        raise BrokenPipeError("no disk")

    monkeypatch.setattr("ctrkit.child.training.run_state.save_checkpoint", broken)
    with pytest.raises(BrokenPipeError):
        train(tmp_path, Work())


def test_a_file_of_epochs_that_cannot_be_written_for_a_while(tmp_path, monkeypatch):
    calls = itertools.count(1)

    def refusing(*arguments):
        if next(calls) in (2, 3):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        write_epochs(*arguments)

    monkeypatch.setattr("ctrkit.child.training.run_state.write_epochs", refusing)
    assert train(tmp_path, Work()).finished
    assert len(read_epochs(tmp_path / "epochs.csv")) == 3


@pytest.mark.parametrize("kind", ["generator", "same"])
def test_a_loader_that_can_be_iterated_once_ends_after_its_epoch_which_is_saved(tmp_path, kind):
    batches = iter([torch.arange(4), torch.arange(4, 8)])

    class Same:
        def __iter__(self):
            return batches

    loader = IterableLoader(batches if kind == "generator" else Same())
    words = r"epoch 2 cannot start: .* once. Epoch 1 is saved: train with --epochs 1, .*--resume"
    work = Work(known=False)
    work.train = loader
    with pytest.raises(UsageError, match=words):
        train(tmp_path, work)
    assert load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]["epoch"] == 2
    assert len(read_epochs(tmp_path / "epochs.csv")) == 1


def test_the_versions_of_the_code_are_kept(tmp_path):
    with ProgressWriter(tmp_path / "progress") as progress:
        run_training(
            Work(), CELL, TrainPlan(run_folder=str(tmp_path), epochs=1), progress,
            stop_requested=lambda: False, code={"torch": "2.0"},
        )  # fmt: skip
    assert load_checkpoint(tmp_path / "checkpoints/last.pt")["code"] == {"torch": "2.0"}


def test_nothing_to_resume_from(tmp_path):
    with pytest.raises(UsageError, match="no such checkpoint"):
        train(tmp_path, Work(), resume=True)


def test_early_stopping_counts_epochs_without_a_better_auc(tmp_path):
    work = Work(epochs=9, patience=2, val_aucs=(0.5, 0.6, 0.6, math.nan, 0.9))
    outcome = train(tmp_path, work, epochs=9)
    assert outcome.finished
    assert outcome.stopped_early
    assert (outcome.epochs_done, outcome.best_epoch) == (4, 2)
    again = train(tmp_path, Work(patience=2, val_aucs=work.val_aucs), resume=True, epochs=9)
    assert again.stopped_early
    assert again.steps_run == 0


def test_a_best_checkpoint_that_a_crash_prevented_is_made_up_for(tmp_path):
    train(tmp_path, Work(val_aucs=(0.6, 0.7)), epochs=2)
    (tmp_path / "checkpoints/best.pt").unlink()
    train(tmp_path, Work(val_aucs=(0.6, 0.7)), epochs=2, resume=True)
    assert load_checkpoint(tmp_path / "checkpoints/best.pt")["position"]["best_epoch"] == 2


def test_the_length_of_a_loader_serves_where_the_workload_knows_none(tmp_path):
    class Sized(Loader):
        def __len__(self):
            return BATCHES

    train(tmp_path, Work(known=False, loader=Sized()), epochs=1)
    assert read_progress(tmp_path / "progress").steps == BATCHES
    (tmp_path / "unsized").mkdir()
    train(tmp_path / "unsized", Work(known=False), epochs=1)
    assert read_progress(tmp_path / "unsized/progress").steps == 0


def test_without_an_auc_there_is_no_best_and_no_early_stop(tmp_path):
    outcome = train(tmp_path, Work(patience=1))
    assert (outcome.epochs_done, outcome.best_epoch) == (3, None)
    assert not (tmp_path / "checkpoints/best.pt").exists()


@pytest.mark.parametrize("known", [True, False])
def test_max_steps_cuts_an_epoch_which_resuming_ends(tmp_path, known):
    outcome = train(tmp_path, Work(known=known), max_steps=BATCHES + 2)
    assert outcome.by_max_steps
    assert outcome.steps_done == BATCHES + 2
    assert outcome.finished
    assert not outcome.interrupted
    assert (outcome.steps_run, outcome.epochs_done) == (BATCHES + 2, 1)
    again = train(tmp_path, Work(known=known), max_steps=BATCHES + 2, resume=True)
    assert (again.finished, again.steps_run) == (True, 0)
    rest = train(tmp_path, Work(known=known), epochs=2, resume=True)
    assert (rest.steps_run, rest.epochs_done) == (BATCHES - 2, 2)


def test_max_steps_at_the_end_of_an_epoch_still_validates_it(tmp_path):
    outcome = train(tmp_path, Work(), max_steps=BATCHES)
    assert (outcome.finished, outcome.epochs_done) == (True, 1)
    assert len(read_epochs(tmp_path / "epochs.csv")) == 1


def test_an_endless_loader_without_a_task_runs_until_it_is_stopped(tmp_path):
    class Endless(Loader):
        def __iter__(self):
            return itertools.repeat({"x": torch.zeros(4)})

    work = Work(known=False, task=False, loader=Endless())
    outcome = train(tmp_path, work, after(40))
    assert (outcome.interrupted, outcome.epochs_done) == (True, 0)
    assert outcome.steps_run == 40
    outcome = train(tmp_path, Work(known=False, task=False, loader=Endless()), max_steps=7)
    assert (outcome.finished, outcome.steps_run) == (True, 7)
    assert read_progress(tmp_path / "progress").rows == 28


def test_a_workload_without_a_task_counts_its_rows(tmp_path):
    outcome = train(tmp_path, Work(task=False))
    assert outcome.epochs_done == 3
    assert [row["rows"] for row in read_epochs(tmp_path / "epochs.csv")] == [ROWS] * 3


def test_a_loader_that_can_be_iterated_once_only_is_named(tmp_path):
    class Once(Loader):
        def __iter__(self):
            batches = list(super().__iter__())
            return iter(batches if self.epoch == 1 else [])

    with pytest.raises(UsageError, match="epoch 2 cannot start: no batch came.*Epoch 1 is saved"):
        train(tmp_path, Work(known=False, task=False, loader=Once()))


class Clock:
    """One second passes at each look."""

    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def test_checkpoints_within_an_epoch(tmp_path, monkeypatch):
    saved = []

    def spy(path, state):
        saved.append((state["position"]["epoch"], state["position"]["batch"]))
        save_checkpoint(path, state)

    monkeypatch.setattr("ctrkit.child.training.run_state.save_checkpoint", spy)
    train(tmp_path, Work(), clock=Clock(), checkpoint_every_s=6, epochs=1)
    assert saved[-1] == (2, 0)
    assert [batch for _, batch in saved[:-1]] == [2, 4]


def test_the_time_of_an_interrupted_epoch_adds_up(tmp_path):
    train(tmp_path, Work(), after(4), clock=Clock(), epochs=1)
    part_s = load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]["wall_s"]
    assert part_s > 0
    train(tmp_path, Work(), clock=Clock(), epochs=1, resume=True)
    (row,) = read_epochs(tmp_path / "epochs.csv")
    clock = Clock()
    (tmp_path / "rest").mkdir()
    assert row["wall_s"] > part_s + (BATCHES - 3)
    train(tmp_path / "rest", Work(), clock=clock, epochs=1)
    assert row["wall_s"] <= part_s + clock.now


class SpyWriter(ProgressWriter):
    def __init__(self, path):
        self.calls = []
        super().__init__(path)

    def enter(self, stage, *, epoch=None, steps=None):
        self.calls.append(stage)
        super().enter(stage, epoch=epoch, steps=steps)

    def step(self, step, *, rows=0, wait_s=0.0, loss=None):
        self.calls.append((step, rows, loss))
        super().step(step, rows=rows, wait_s=wait_s, loss=loss)


def test_every_stage_shows_in_the_progress(tmp_path):
    with SpyWriter(tmp_path / "progress") as progress:
        plan = TrainPlan(run_folder=str(tmp_path), epochs=1)
        run_training(Work(), CELL, plan, progress, stop_requested=lambda: False)
    stages = [call for call in progress.calls if isinstance(call, Stage)]
    assert [stage for stage, _ in itertools.groupby(stages)] == [
        Stage.DATA, Stage.MODEL, Stage.FIRST_BATCH, Stage.STEP, Stage.EPOCH_BOUNDARY,
        Stage.VALIDATION, Stage.METRICS, Stage.CHECKPOINT, Stage.EPOCH_BOUNDARY,
        Stage.SHUTDOWN,
    ]  # fmt: skip
    steps = [call for call in progress.calls if isinstance(call, tuple)]
    assert steps == [(i, 4 if i < 5 else 2, 0.25) for i in range(1, 6)]
    last = read_progress(tmp_path / "progress")
    assert (last.epoch, last.steps, last.rows) == (1, BATCHES, ROWS)


def test_after_an_error_the_stage_stands_and_the_loaders_are_closed(tmp_path):
    work = Work()
    work.train.__class__ = type("Bad", (Loader,), {"__iter__": lambda self: iter([None])})
    with pytest.raises(AttributeError):
        train(tmp_path, work)
    assert read_progress(tmp_path / "progress").stage is Stage.STEP
    assert (work.train.closed, work.validation.closed) == (1, 1)


class Shuffled(Work):
    """A stock DataLoader that draws its order from torch's own stream, `workers` as they are."""

    def __init__(self, workers=0, **options):
        rows = torch.utils.data.DataLoader(
            range(ROWS), CELL.batch_size, shuffle=True, num_workers=workers
        )
        super().__init__(loader=IterableLoader(rows), **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shuffle_without_a_seed_goes_on_in_the_same_order(tmp_path, workers):
    first, second = Shuffled(workers), Shuffled()
    outcome = train(tmp_path, first, after(9))
    assert (outcome.interrupted, outcome.epochs_done) == (True, 1)
    seen = list(first.made[0].seen)
    assert 0 < len(seen) < ROWS
    seed_everything(99)  # another process has another stream
    train(tmp_path, second, resume=True, epochs=2)
    assert second.made[0].seen[: len(seen)] == seen
    assert sorted(second.made[0].seen) == list(range(ROWS))
    (tmp_path / "whole").mkdir()
    whole = Shuffled()
    train(tmp_path / "whole", whole, epochs=2)
    assert whole.made[0].seen == second.made[0].seen
    assert torch.equal(final(whole), final(second))


def test_batches_that_have_to_be_taken_anew_are_progress(tmp_path):
    train(tmp_path, Shuffled(), after(3), epochs=1)
    done = load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]["batch"]
    assert done > 0
    with SpyWriter(tmp_path / "progress") as progress:
        plan = TrainPlan(run_folder=str(tmp_path), epochs=1, resume=True)
        run_training(Shuffled(), CELL, plan, progress, stop_requested=lambda: False)
    assert progress.calls.count(Stage.FIRST_BATCH) == 1 + done


@pytest.mark.parametrize("calls", [3, 4, 9])
def test_without_a_task_a_checkpoint_stands_at_the_beginning_of_its_epoch(tmp_path, calls):
    first = train(tmp_path, Work(task=False), after(calls))
    assert first.interrupted
    position = load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]
    assert (position["batch"], position["rows"]) == (0, 0)
    assert position["steps"] == (position["epoch"] - 1) * BATCHES
    work = Work(task=False)
    train(tmp_path, work, resume=True)
    assert work.train.begun[0] == (position["epoch"], 0)
    assert [row["rows"] for row in read_epochs(tmp_path / "epochs.csv")] == [ROWS] * 3


class Claims(Work):
    """Says that an epoch has another number of batches than it has."""

    def __init__(self, batches, **options):
        super().__init__(**options)
        self.claimed = batches

    def sizes(self, batch_size):
        return dataclasses.replace(super().sizes(batch_size), train_batches=self.claimed)


@pytest.mark.parametrize("claimed", [1, 2, 4, 9, 32_000])
def test_what_is_counted_overrides_what_was_claimed(tmp_path, claimed):
    with SpyWriter(tmp_path / "progress") as progress:
        plan = TrainPlan(run_folder=str(tmp_path), epochs=2)
        outcome = run_training(Claims(claimed), CELL, plan, progress, stop_requested=lambda: False)
        assert read_progress(tmp_path / "progress").steps == BATCHES
    assert outcome.steps_run == 2 * BATCHES
    assert [row["rows"] for row in read_epochs(tmp_path / "epochs.csv")] == [ROWS] * 2


@pytest.mark.parametrize("claimed", [1, 2, 4, 5, 9])
def test_a_stop_beyond_the_claimed_length_loses_and_repeats_nothing(tmp_path, claimed):
    (tmp_path / "whole").mkdir()
    whole = Work()
    train(tmp_path / "whole", whole)
    for steps in range(1, 2 * BATCHES):
        folder = tmp_path / f"{steps}"
        folder.mkdir()
        work = Claims(claimed)
        first = train(folder, work, lambda: bool(work.made) and work.made[-1].steps >= steps)  # noqa: B023
        # where it should end, one batch more shows that it does not
        assert (first.interrupted, first.steps_run) == (True, steps + (steps == claimed < BATCHES))
        resumed = Claims(claimed)
        second = train(folder, resumed, resume=True)
        assert first.steps_run + second.steps_run == 3 * BATCHES
        assert torch.equal(final(resumed), final(whole))


def test_a_stop_in_the_validation_makes_it_draw_the_same_again(tmp_path):
    def make():
        work = Work()
        work.validation = Loader(8, draws=True)
        return work

    (tmp_path / "whole").mkdir()
    train(tmp_path / "whole", whole := make())
    train(tmp_path, cut := make(), lambda: bool(cut.made) and cut.made[-1].validated > 0)
    assert load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]["trained"]
    train(tmp_path, resumed := make(), resume=True)
    assert torch.equal(final(resumed), final(whole))


def test_a_stop_at_a_checkpoint_writes_no_second_one(tmp_path, monkeypatch):
    saved = []
    keep = "ctrkit.child.training.run_state.save_checkpoint"
    monkeypatch.setattr(keep, lambda *given: (saved.append(1), save_checkpoint(*given)))
    work = Work()
    outcome = train(tmp_path, work, lambda: len(saved) > 0)
    assert (outcome.interrupted, outcome.epochs_done, len(saved)) == (True, 1, 1)


def test_a_state_that_cannot_be_saved_is_refused_before_the_first_step(tmp_path):
    class Keeps(Work):
        def make_task(self, cell):
            task = super().make_task(cell)
            task.state_dict = lambda: {"schedule": {"decay": lambda step: 0.9**step}}
            return task

    work = Keeps()
    with pytest.raises(UsageError, match=r"task\['schedule'\]\['decay'\]: is a builtins.function"):
        train(tmp_path, work)
    assert work.train.begun == []


def test_metrics_that_cannot_be_told_cost_no_step_of_the_epoch(tmp_path):
    work = Work(val_aucs=(0.6, 0.7))

    class Fails(Net):
        def metrics(self):
            if self.epoch == 2:
                raise ValueError("no metric today")
            return super().metrics()

    class Broken(Work):
        def make_task(self, cell):
            self.made.append(Fails(self.val_aucs))
            return self.made[-1]

    with pytest.raises(ValueError, match="no metric today"):
        train(tmp_path, Broken(val_aucs=(0.6, 0.7)), epochs=2)
    assert read_progress(tmp_path / "progress").stage is Stage.METRICS
    position = load_checkpoint(tmp_path / "checkpoints/last.pt")["position"]
    assert (position["epoch"], position["batch"]) == (2, BATCHES)
    again = train(tmp_path, work, epochs=2, resume=True)
    assert (again.finished, again.steps_run, again.best_epoch) == (True, 0, 2)
    assert [row["val_auc"] for row in read_epochs(tmp_path / "epochs.csv")] == [0.6, 0.7]


def test_without_a_number_of_epochs_only_the_steps_end_it(tmp_path):
    outcome = train(tmp_path, Work(), epochs=None, max_steps=2 * BATCHES + 1)
    assert (outcome.finished, outcome.epochs_done, outcome.steps_run) == (True, 2, 2 * BATCHES + 1)
