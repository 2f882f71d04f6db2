"""A run simulated by a test: clocks, a host, and a child that counts by them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ctrkit.core.progress import Progress, Stage
from ctrkit.core.spending import SPENT_FILE, Spending, SpentWriter
from ctrkit.supervise.gpu import GpuSample
from ctrkit.supervise.host import HostFigures
from ctrkit.supervise.ledger_keeper import Clocks, LedgerKeeper
from ctrkit.supervise.sampler import TreeSample
from ctrkit.supervise.time_limits import StageLimit
from ctrkit.supervise.watching import GpuLook, Tick

QUIET = HostFigures(
    busy_s=0.0, available_bytes=8_000_000_000, swap_used_bytes=0, swapped_in_bytes=0,
    swapped_out_bytes=None, temperature_c=None, throttles=3, speed_limit=None,
)  # fmt: skip


class World:
    """Clocks, a host and a child of which a test says what they do."""

    epoch_steps = 100

    def __init__(self, folder: Path) -> None:
        self.path, self.folder = folder / "ledger.parquet", folder
        self.awake_s, self.slept_s, self.host = 5000.0, 77.0, QUIET
        self.cpu_s, self.step, self.said = 0.0, 0, list[str]()
        self.gpus: tuple[GpuSample, ...] | None = None
        self.stage, self.asks = Stage.STEP, False
        self.clocks = Clocks(
            awake_s=lambda: self.awake_s,
            slept_s=lambda: self.slept_s,
            unix_s=lambda: 1_000_000 + self.awake_s + self.slept_s,
        )
        self.keeper = self.new_keeper()
        self.follow: Callable[[Tick], None] = lambda tick: self.keeper.tick(tick)

    def new_keeper(self) -> LedgerKeeper:
        return LedgerKeeper(
            self.path, self.folder, say=self.said.append, clocks=self.clocks,
            host=lambda: self.host,
        )  # fmt: skip

    def launch(self) -> SpentWriter:
        self.keeper.launched()
        return self.begin()

    def begin(self) -> SpentWriter:
        """The child begins to count."""
        self.cpu_s, self.step = 0.0, 0
        return SpentWriter(self.folder / SPENT_FILE, lambda: self.awake_s)

    def tick(self) -> None:
        limit = StageLimit(idle_s=60.0, burning_s=60.0, reason="")
        sample = TreeSample(taken_s=self.awake_s, cpu_s=self.cpu_s, wanted_s=self.cpu_s)
        # at its end an epoch has all its steps, until the next one asks for its first batch
        epochs, step = divmod(self.step, self.epoch_steps)
        if self.step and not step and not self.asks:
            epochs, step = epochs - 1, self.epoch_steps
        progress = Progress(
            pid=os.getpid(), stage=self.stage, epoch=epochs + 1, step=step, steps=self.epoch_steps,
            rows=0, writes=self.step, written_s=0.0, wait_s=0.0, loss=0.0,
        )  # fmt: skip
        self.follow(
            Tick(wall_s=0.0, silent_s=0.0, stage=self.stage, limit=limit,
                 progress=progress, sample=sample,
                 gpus=None if self.gpus is None else GpuLook(taken_s=self.awake_s, gpus=self.gpus))
        )  # fmt: skip

    def steps(self, child: SpentWriter, count: int, wait_s: float = 0.1) -> None:
        """Steps, 100 an epoch: first data wait, then 0.9 s of computing on 1.5 cores."""
        for _ in range(count):
            self.stage, self.asks = Stage.STEP, True
            child.enter(Spending.DATA_WAIT)
            self.awake_s += wait_s
            self.tick()
            self.asks = False
            child.enter(Spending.COMPUTE)
            self.awake_s += 0.9
            child.enter(Spending.LOGGING)
            child.step(8)
            self.cpu_s, self.step = self.cpu_s + 1.5, self.step + 1
            self.tick()

    def end_epoch(self, child: SpentWriter, validation_s: float, checkpoint_s: float) -> None:
        """What comes after the last step of an epoch; the progress is looked at every second."""
        for spending, stage, seconds in (
            (Spending.VALIDATION, Stage.VALIDATION, validation_s),
            (Spending.CHECKPOINT, Stage.CHECKPOINT, checkpoint_s),
        ):
            child.enter(spending)
            self.stage = stage
            self.tick()
            for _ in range(round(seconds)):
                self.awake_s += 1.0
                self.tick()
