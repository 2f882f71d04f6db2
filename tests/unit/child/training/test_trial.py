"""One probe trial, on a workload whose every call is counted."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ctrkit.child.training.running_trial import family_cpu_s
from ctrkit.child.training.trial import run_trial
from ctrkit.child.workloads.protocol import Batch, EpochLoader, Mark, Task, Workload
from ctrkit.core.child_files import load_measurement, save_measurement
from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell, ChildSpec, RunSizes, WindowPlan, WorkloadSpec, make_cell
from ctrkit.core.errors import UsageError
from ctrkit.core.losses import BadLoss
from ctrkit.core.progress import ProgressWriter, Stage, read_progress
from ctrkit.measure.steps import stage_means_s

ROWS = 4


class CountingLoader:
    def __init__(self, batches: int | None, log: list[str]) -> None:
        self.batches, self.log = batches, log

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.log.append(f"epoch {epoch}")

    def __iter__(self) -> Iterator[Batch]:
        count = 0
        while self.batches is None or count < self.batches:
            count += 1
            yield torch.zeros(ROWS)

    def close(self) -> None:
        self.log.append("closed")


class SleepyTask(Task):
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def transfer(self, batch: Batch) -> Batch:
        return batch

    def train_step(self, batch: Batch, mark: Mark) -> None:
        time.sleep(0.002)
        mark("forward")
        mark("backward")
        mark("optimizer")
        self.log.append("step")

    def validation_step(self, batch: Batch) -> None:
        self.log.append("validation step")

    def losses(self) -> list[float]:
        return [0.5] * self.log.count("step")

    def notes(self) -> list[str]:
        return ["a note"]

    def state_dict(self) -> dict[str, Any]:
        return {"weights": torch.zeros(3)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError


class CountingWorkload(Workload):
    def __init__(self, batches: int | None = 1000, has_task: bool = True) -> None:
        self.batches, self.has_task = batches, has_task
        self.log: list[str] = []

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=2, train_batches=self.batches)

    def train_loader(self, cell: Cell) -> EpochLoader:
        return CountingLoader(self.batches, self.log)

    def validation_loader(self, cell: Cell) -> EpochLoader | None:
        return CountingLoader(50, self.log) if self.has_task else None

    def make_task(self, cell: Cell) -> Task | None:
        return SleepyTask(self.log) if self.has_task else None


def run(
    tmp_path: Path,
    workload: CountingWorkload,
    kind: Any = "full",
    cell: Cell | None = None,
    **windows: Any,
) -> Measurement:
    plan = {"window_s": 0.05, "min_steps": 3, "max_steps": 20, "validation_batches": 5} | windows
    spec = ChildSpec(
        kind=kind, folder=str(tmp_path), workload=WorkloadSpec(),
        cell=cell or make_cell(threads=1),
        spawned_at_s=time.monotonic(), windows=WindowPlan(**plan),
    )  # fmt: skip
    saved: list[Measurement] = []
    with ProgressWriter(tmp_path / "progress.bin") as progress:
        measured = run_trial(spec, workload, progress, saved.append)
    assert saved[-1] == measured
    return measured


def test_a_full_trial_measures_everything(tmp_path: Path) -> None:
    workload = CountingWorkload()
    measured = run(tmp_path, workload)
    assert measured.complete
    assert 3 <= measured.throughput_steps <= 20
    assert measured.throughput_rows == ROWS * measured.throughput_steps
    assert measured.throughput_s is not None
    assert measured.throughput_s >= 0.002 * measured.throughput_steps
    assert None not in (
        measured.startup_s, measured.first_batch_s, measured.restart_s, measured.teardown_s,
        measured.cpu_s, measured.validation_restart_s,
    )  # fmt: skip
    assert len(measured.validation_batch_s) == 5
    assert len(measured.checkpoint_s) == 2
    assert not measured.epoch_complete
    assert workload.log.count("epoch 2") == 1  # a real boundary
    assert workload.log.count("closed") == 2
    progress = read_progress(tmp_path / "progress.bin")
    assert progress is not None
    assert progress.stage is Stage.SHUTDOWN
    assert not (tmp_path / "checkpoint.pt").exists()


def test_stamps_are_in_order_and_cover_every_step(tmp_path: Path) -> None:
    measured = run(tmp_path, CountingWorkload())
    stamps = measured.stamps
    assert stamps.window.count("throughput") == measured.throughput_steps
    assert 1 <= stamps.window.count("warmup") <= 8  # a few quick ones are hashed
    assert stamps.window.count("boundary") == 2
    times = [
        moment
        for step in zip(stamps.asked_s, stamps.delivered_s, stamps.done_s, strict=True)
        for moment in step
    ]
    assert times == sorted(times)
    assert len(measured.stages["forward"]) == measured.throughput_steps
    assert sum(measured.stages["forward"]) > sum(measured.stages["optimizer"])


def test_an_epoch_shorter_than_the_window_is_run_to_its_end(tmp_path: Path) -> None:
    measured = run(tmp_path, CountingWorkload(batches=6), window_s=60, max_steps=1000)
    assert measured.epoch_complete
    assert (measured.epoch_batches, measured.epoch_rows) == (6, 6 * ROWS)
    assert measured.throughput_steps == 5
    assert measured.epoch_s is not None
    assert measured.epoch_s >= 6 * 0.002
    assert measured.restart_s is not None


def test_a_workload_without_a_task_only_takes_batches(tmp_path: Path) -> None:
    measured = run(tmp_path, CountingWorkload(batches=None, has_task=False))
    assert measured.complete
    assert measured.throughput_steps >= 3
    assert measured.stages == {}
    assert measured.checkpoint_s == []
    assert measured.sizes is not None
    assert measured.sizes.train_batches is None


def test_the_loader_on_its_own_never_steps(tmp_path: Path) -> None:
    workload = CountingWorkload()
    measured = run(tmp_path, workload, kind="loader")
    assert "step" not in workload.log
    assert measured.throughput_steps >= 3


def test_compute_goes_on_with_cached_batches(tmp_path: Path) -> None:
    workload = CountingWorkload(batches=4)
    measured = run(tmp_path, workload, kind="compute", min_steps=12)
    assert measured.throughput_steps >= 12
    assert workload.log.count("epoch 1") == 2  # training once, validation once
    assert len(measured.validation_batch_s) == 5


@pytest.mark.parametrize("needs_workers", [False, True])
def test_compute_takes_its_batches_without_workers_where_it_can(
    tmp_path: Path, needs_workers: bool
) -> None:
    made = []

    class Workers(CountingWorkload):
        def train_loader(self, cell: Cell) -> EpochLoader:
            made.append((cell.workers, cell.start_method, cell.prefetch))
            if needs_workers and not cell.workers:
                raise ValueError("prefetch_factor could only be specified with workers")
            return super().train_loader(cell)

    cell = make_cell(workers=64, start_method="fork")
    run(tmp_path, Workers(), cell=cell, kind="compute", min_steps=3)
    assert made == ([(0, None, None), (64, "fork", 2)] if needs_workers else [(0, None, None)])


def test_rows_that_nobody_knows_are_said_to_be_unknown(tmp_path: Path) -> None:
    class Opaque(CountingWorkload):
        axes = ("workers",)

        def train_loader(self, cell: Cell) -> EpochLoader:
            loader = super().train_loader(cell)
            loader.__class__ = type("Odd", (CountingLoader,), {"__iter__": batches_of_odd_sizes})
            return loader

    def batches_of_odd_sizes(self: CountingLoader) -> Iterator[Batch]:
        for _ in range(1000):
            yield torch.zeros(3), torch.zeros(50)

    measured = run(tmp_path, Opaque(), min_steps=3)
    assert measured.throughput_rows == 0
    assert measured.notes[0].startswith("ctrkit cannot tell how many rows a batch has")


def test_what_was_measured_before_an_error_is_kept(tmp_path: Path) -> None:
    workload = CountingWorkload()
    saved: list[Measurement] = []

    def fail(batch: Batch) -> None:
        raise RuntimeError("no validation today")

    spec = ChildSpec(
        kind="full", folder=str(tmp_path), workload=WorkloadSpec(),
        cell=make_cell(threads=1),
        windows=WindowPlan(window_s=0.01),
    )  # fmt: skip
    workload.make_task = lambda cell: _with_validation(SleepyTask(workload.log), fail)  # type: ignore[method-assign]
    with (
        ProgressWriter(tmp_path / "progress.bin") as progress,
        pytest.raises(RuntimeError, match="no validation today"),
    ):
        run_trial(spec, workload, progress, saved.append)
    assert saved[-1].throughput_steps >= 3
    assert not saved[-1].complete
    assert workload.log[-1] == "closed"


def _with_validation(task: SleepyTask, validation_step: Any) -> Task:
    task.validation_step = validation_step  # type: ignore[method-assign]
    return task


class DataLoaderWorkload(CountingWorkload):
    """The stock DataLoader, in this very process: its rows take 1 ms each."""

    def train_loader(self, cell: Cell) -> EpochLoader:
        return _Stock(self.log)


class _Stock(CountingLoader):
    def __init__(self, log: list[str]) -> None:
        super().__init__(1000, log)

    def __iter__(self) -> Iterator[Batch]:
        return iter(DataLoader(_Rows(), batch_size=ROWS))


class _Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.001)
        return torch.zeros(1)


def test_a_batch_made_in_the_loop_is_stamped_by_the_loop(tmp_path: Path) -> None:
    measured = run(tmp_path, DataLoaderWorkload())
    stages = stage_means_s([measured])
    assert stages["fetch"] >= ROWS * 0.001
    assert 0 < stages["collate"] < stages["fetch"]
    assert "ipc" not in stages
    stamps = measured.stamps
    assert stamps.worker == [None] * len(stamps.step)
    assert stamps.fetch_start_s == stamps.asked_s
    assert stamps.collate_end_s == stamps.delivered_s


def test_of_a_loader_that_nobody_sees_into_nothing_is_claimed(tmp_path: Path) -> None:
    measured = run(tmp_path, CountingWorkload())
    unknown = [None] * len(measured.stamps.step)
    assert measured.stamps.fetch_start_s == unknown
    assert measured.stamps.sent_s == unknown
    assert not {"fetch", "collate", "ipc"} & set(stage_means_s([measured]))


def test_cached_batches_are_made_by_nobody(tmp_path: Path) -> None:
    measured = run(tmp_path, DataLoaderWorkload(), kind="compute")
    assert measured.stamps.fetch_start_s == [None] * len(measured.stamps.step)


class SlowToEnd(CountingWorkload):
    """A loader that takes a while to find out that it has come to its end."""

    def train_loader(self, cell: Cell) -> EpochLoader:
        return _SlowToEnd(self.batches, self.log)


class _SlowToEnd(CountingLoader):
    def __iter__(self) -> Iterator[Batch]:
        yield from super().__iter__()
        time.sleep(0.5)


def test_the_end_of_a_loader_is_no_step(tmp_path: Path) -> None:
    workload = SlowToEnd(batches=8, has_task=False)
    measured = run(tmp_path, workload, window_s=60.0, max_steps=100)
    assert measured.epoch_complete
    assert measured.throughput_steps == 7
    assert measured.throughput_s is not None
    assert measured.throughput_s < measured.epoch_s - 0.5


def test_a_full_trial_keeps_the_losses_up_to_the_end_of_its_window(tmp_path: Path) -> None:
    measured = run(tmp_path, CountingWorkload())
    counted = [window in ("warmup", "throughput") for window in measured.stamps.window]
    assert measured.losses == [0.5] * sum(counted)
    assert measured.notes == ["a note"]
    assert run(tmp_path, CountingWorkload(), kind="compute").losses == []


class ListWorkload(CountingWorkload):
    """Batches from a list, and a `len()` that may be wrong."""

    def __init__(self, batches: int, claimed: int | None = None) -> None:
        super().__init__(batches, has_task=False)
        self.claimed = claimed

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=2)

    def train_loader(self, cell: Cell) -> EpochLoader:
        loader = CountingLoader(self.batches, self.log)
        if self.claimed is not None:
            setattr(type(loader), "__len__", lambda _: self.claimed)  # noqa: B010
        return loader


@pytest.fixture
def no_length() -> Iterator[None]:
    yield
    if hasattr(CountingLoader, "__len__"):
        del CountingLoader.__len__


@pytest.mark.usefixtures("no_length")
@pytest.mark.parametrize("claimed", [None, 20, 30, 500])
def test_an_epoch_is_counted_beyond_what_len_says(tmp_path: Path, claimed: int | None) -> None:
    measured = run(tmp_path, ListWorkload(200, claimed), max_steps=10, count_s=5.0)
    assert measured.epoch_complete
    assert measured.epoch_batches == 200
    assert measured.epoch_rows == 200 * ROWS
    assert measured.loader is not None
    assert measured.loader.claimed_batches == claimed


@pytest.mark.usefixtures("no_length")
def test_what_goes_on_is_not_called_complete(tmp_path: Path) -> None:
    measured = run(tmp_path, ListWorkload(10_000_000, 15), max_steps=20, count_s=0.05)
    assert not measured.epoch_complete
    assert measured.epoch_batches > 15


@pytest.mark.usefixtures("no_length")
@pytest.mark.parametrize("claimed", [None, 0, 5])
def test_a_loader_without_a_batch_is_told_of_in_one_line(
    tmp_path: Path, claimed: int | None
) -> None:
    with pytest.raises(UsageError, match="has no batch at batch size 2,048"):
        run(tmp_path, ListWorkload(0, claimed))


def test_the_first_batches_of_both_epochs_are_hashed(tmp_path: Path) -> None:
    measured = run(tmp_path, CountingWorkload(has_task=False))
    assert 1 <= len(measured.batch_hashes) <= 8
    assert measured.second_hashes[0] == measured.batch_hashes[0]


class CachingLoader(CountingLoader):
    """Its batches are slow until they have been read once."""

    seen: set[int]

    def __iter__(self) -> Iterator[Batch]:
        for number in range(self.batches or 0):
            if number not in self.seen:
                time.sleep(0.01)
            self.seen.add(number)
            yield torch.zeros(ROWS)


def test_more_of_a_second_epoch_is_measured_where_its_pace_differs(tmp_path: Path) -> None:
    class Caching(CountingWorkload):
        def train_loader(self, cell: Cell) -> EpochLoader:
            loader = CachingLoader(self.batches, self.log)
            loader.seen = set()
            return loader

    def seconds(measured: Measurement) -> int:
        return measured.stamps.window.count("second")

    cached = run(tmp_path, Caching(40, has_task=False), window_s=0.5, max_steps=100)
    assert seconds(cached) > 20
    (tmp_path / "alike").mkdir()
    slow = run(tmp_path / "alike", CountingWorkload(400), window_s=0.5, max_steps=100)
    assert 0 < seconds(slow) < 60


def test_cpu_seconds_of_a_child_that_has_ended_count_on() -> None:
    before_s = family_cpu_s()
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    subprocess.run([sys.executable, "-c", burn], check=True, timeout=60)
    assert family_cpu_s() - before_s >= 0.3


def test_a_loss_that_is_no_number_leaves_the_trial_be(tmp_path: Path) -> None:
    class Broken(CountingWorkload):
        def make_task(self, cell: Cell) -> Task | None:
            task = SleepyTask(self.log)
            task.losses = lambda: [0.5, float("nan"), float("inf")]  # type: ignore[method-assign]
            return task

    measured = run(tmp_path, Broken())
    save_measurement(tmp_path / "measurement.json", measured)
    read = load_measurement(tmp_path / "measurement.json")
    assert read is not None
    assert read.losses == [0.5, None, None]
    assert read.throughput_steps == measured.throughput_steps


class NumbersWorkload(CountingWorkload):
    """A map-style DataLoader, whose batches tell their place; `promised` is what it claims."""

    def __init__(self, batches: int = 100, promised: int | None = None) -> None:
        super().__init__(promised or batches)
        self.rows, self.taken = batches * ROWS, []

    def train_loader(self, cell: Cell) -> EpochLoader:
        return DataLoader(Numbers(self.rows, self.taken), batch_size=ROWS)


class Numbers(Dataset[int]):
    def __init__(self, rows: int, taken: list[int]) -> None:
        self.rows, self.taken = rows, taken

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> int:
        self.taken.append(index)
        return index


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_launch_may_measure_elsewhere_in_the_epoch(tmp_path: Path, share: float) -> None:
    first, workload = run(tmp_path, NumbersWorkload()), NumbersWorkload()
    measured = run(tmp_path, workload, epoch_share=share, window_s=60.0, max_steps=1000)
    left_out = round(share * 100)
    assert measured.first_batch == left_out
    second = workload.taken.index(0, 1)  # the second epoch begins at its begin
    epoch = workload.taken[:second]
    assert epoch == [*range(ROWS), *range((1 + left_out) * ROWS, 100 * ROWS)]
    # what came is no whole epoch, and only the first batch is comparable with other launches
    assert not measured.epoch_complete
    assert measured.epoch_batches == 0
    assert measured.batch_hashes == first.batch_hashes[:1]
    assert measured.second_hashes[:1] == first.second_hashes[:1]
    assert measured.throughput_steps >= 3


class SlowSampler(Sampler[int]):
    """It takes a second in the part of the epoch that a launch elsewhere leaves out."""

    def __len__(self) -> int:
        return 100 * ROWS

    def __iter__(self) -> Iterator[int]:
        for row in range(len(self)):
            if row == 20 * ROWS:
                time.sleep(1.0)
            yield row


class SlowSamplerWorkload(NumbersWorkload):
    def train_loader(self, cell: Cell) -> EpochLoader:
        return DataLoader(Numbers(self.rows, self.taken), batch_size=ROWS, sampler=SlowSampler())


def test_what_a_sampler_took_to_leave_batches_out_is_no_step(tmp_path: Path) -> None:
    measured = run(
        tmp_path, SlowSamplerWorkload(), epoch_share=0.5, window_s=60.0, max_steps=1000,
        boundary=False,
    )  # fmt: skip
    assert measured.first_batch == 50
    assert measured.first_batch_s is not None
    stamps = measured.stamps
    steps_s = [done - asked for asked, done in zip(stamps.asked_s, stamps.done_s, strict=True)]
    assert max(measured.first_batch_s, *steps_s) < 1.0


def test_a_loader_that_promised_too_much_is_measured_from_its_begin(tmp_path: Path) -> None:
    workload = NumbersWorkload(batches=12, promised=1000)
    measured = run(tmp_path, workload, epoch_share=0.5, window_s=60.0, max_steps=1000)
    assert measured.throughput_steps >= 3
    assert measured.complete


def test_a_loader_of_its_own_that_ignores_where_to_begin_is_not_called_endless(
    tmp_path: Path,
) -> None:
    workload = CountingWorkload(batches=40)
    measured = run(tmp_path, workload, epoch_share=0.9, window_s=60.0, max_steps=1000)
    assert measured.first_batch > 0
    assert measured.epoch_batches <= 40
    assert measured.batch_hashes == []


class EndsWorkload(CountingWorkload):
    """Its task and its validation loader are as the test says."""

    task_class: type[SleepyTask] = SleepyTask
    skips_unread = False

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=2, train_batches=self.batches, validation_batches=50)

    def validation_loader(self, cell: Cell) -> EpochLoader | None:
        return _Noting(self)

    def make_task(self, cell: Cell) -> Task | None:
        return self.task_class(self.log)


class _Noting(CountingLoader):
    def __init__(self, workload: EndsWorkload) -> None:
        super().__init__(50, workload.log)
        self.skips_unread = workload.skips_unread

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.log.append(f"validation {epoch} from {first_batch}")

    def __iter__(self) -> Iterator[Batch]:
        yield from super().__iter__()


class _Metrics(SleepyTask):
    def metrics(self) -> dict[str, float]:
        time.sleep(0.05)
        self.log.append("metrics")
        return {"loss": 0.5}


class _NoMetricsYet(SleepyTask):
    def metrics(self) -> dict[str, float]:
        raise ValueError("only one class in y_true")


class _WrongMetrics(SleepyTask):
    def metrics(self) -> dict[str, float]:
        return [1.0]  # type: ignore[return-value]


class _BreaksAtThree(SleepyTask):
    def losses(self) -> list[float]:
        return []

    def recent_loss(self) -> float | None:
        return math.nan if self.log.count("step") >= 3 else 0.5


def test_the_end_of_an_epoch_is_timed_in_its_order(tmp_path: Path) -> None:
    workload = EndsWorkload()
    workload.task_class = _Metrics
    measured = run(tmp_path, workload)
    assert all(seconds >= 0.05 for seconds in measured.metrics_s)
    assert len(measured.metrics_s) == 1
    assert measured.validation_teardown_s is not None
    assert measured.validation_again_s is None
    last = len(workload.log) - 1 - workload.log[::-1].index("validation step")
    assert workload.log.index("metrics") > last


def test_metrics_that_a_few_batches_do_not_have_are_no_failure(tmp_path: Path) -> None:
    workload = EndsWorkload()
    workload.task_class = _NoMetricsYet
    measured = run(tmp_path, workload)
    assert measured.complete
    assert measured.metrics_s == []
    assert any("metrics() raised ValueError" in note for note in measured.notes)
    workload.task_class = _WrongMetrics  # a real run would fail at the end of its first epoch
    with pytest.raises(UsageError, match=r"Task\.metrics returned a list"):
        run(tmp_path, workload)


def test_workers_that_are_kept_start_a_second_validation(tmp_path: Path) -> None:
    cell = make_cell(threads=1, workers=1, persistent=True)
    measured = run(tmp_path, EndsWorkload(), cell=cell)
    assert measured.validation_again_s is not None


@pytest.mark.parametrize(("skips", "first"), [(True, 22), (False, 0)])
def test_another_place_is_validated_where_a_loader_goes_there_at_once(
    tmp_path: Path, skips: bool, first: int
) -> None:
    workload = EndsWorkload()
    workload.skips_unread = skips
    measured = run(tmp_path, workload, validation_from=0.5)
    assert measured.validation_from == first
    assert f"validation 1 from {first}" in workload.log


def test_a_loss_that_only_the_display_would_show_is_named_with_its_step(tmp_path: Path) -> None:
    workload = EndsWorkload()
    workload.task_class = _BreaksAtThree
    assert run(tmp_path, workload).bad_loss == BadLoss(3, "nan")
    assert run(tmp_path, EndsWorkload()).bad_loss is None
