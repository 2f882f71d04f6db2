"""Keeps the ledger of one session: samples the run, and adds a row each minute.

`time_account` decides what a sample means, `ledger` makes the rows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ctrkit.core.spending import SPENT_FILE, read_spent
from ctrkit.supervise.gpu import GpuUse, added
from ctrkit.supervise.host import HostFigures, read_host
from ctrkit.supervise.ledger import LedgerFile, LedgerRow, SessionReading, row_between
from ctrkit.supervise.sampler import STOPPED_STATES, TreeSample, host_slept_s
from ctrkit.supervise.time_account import SessionLook, TimeAccount
from ctrkit.supervise.watching import Tick

_ROW_S = 60.0
_QUIET_S = 5.0  # after so much silence, the tree's memory is not read


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """The clocks of a ledger, replaceable in tests.

    `awake_s` is monotonic and stands still while the host sleeps; `slept_s` grows by its sleep.
    """

    awake_s: Callable[[], float] = time.monotonic
    slept_s: Callable[[], float] = host_slept_s
    unix_s: Callable[[], float] = time.time


class LedgerKeeper:
    """Keeps the ledger of one session: call `launched`, `tick` often, `ended`, finally `close`.

    Args:
        path: path of `ledger.parquet`; its rows are kept.
        child_folder: where the child writes how it spends its time.
        say: called once if the file cannot be written, or its content cannot be read.
        clocks: see `Clocks`.
        host: reads the host's figures.
    """

    def __init__(
        self,
        path: Path,
        child_folder: Path,
        *,
        say: Callable[[str], None],
        clocks: Clocks | None = None,
        host: Callable[[], HostFigures] = read_host,
    ) -> None:
        self._file, self._spent_path = LedgerFile(path, say), child_folder / SPENT_FILE
        self._clocks, self._read_host = clocks or Clocks(), host
        self.rows: list[LedgerRow] = []
        self.session = self._file.last_session + 1
        self.launch = 0
        self._runs = False  # whether a child runs
        self._look = self._look_now(None)
        self._began = self._look
        self.account = TimeAccount(self._look)
        # of the finished launches
        self._rows_before = self._steps_before = 0
        self._cpu_before_s = 0.0
        self._reading = self._read_now()
        self._tick: Tick | None = None
        #: GPU samples since the last row, and the time of the last one
        self._gpu_use, self._gpus_s = GpuUse(), 0.0

    # ---- what is known now -----------------------------------------------------------------------

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds of this session up to the last sample, including the host's sleep."""
        return (self._look.awake_s - self._began.awake_s) + max(
            0.0, self._look.slept_s - self._began.slept_s
        )

    @property
    def steps_of_launch(self) -> int:
        """Steps that the running child has done."""
        return self._look.spent.steps if self._look.spent else 0

    @property
    def steps(self) -> int:
        """Steps of this session, including those that were lost again."""
        return self._steps_before + self.steps_of_launch

    def rows_so_far(self) -> list[LedgerRow]:
        """The rows of this session, and one for the time since the last row."""
        return [*self.rows, self._row_until(self._read_now())]

    def launched(self) -> None:
        """A child is about to start."""
        self.launch += 1
        self._runs, self._tick = True, None
        self._spent_path.unlink(missing_ok=True)
        self.tick(None)

    def tick(self, tick: Tick | None) -> None:
        """Account for the time since the last call; adds a row now and then."""
        self._tick = tick
        self._look = self._look_now(tick)
        if tick is not None and tick.gpus is not None and tick.gpus.taken_s > self._gpus_s:
            self._gpus_s = tick.gpus.taken_s
            self._gpu_use = added(self._gpu_use, tick.gpus.gpus)
        self.account.look(self._look)
        if self.wall_s - self._reading.wall_s >= _ROW_S:
            self._add_row()

    def ended(self, *, lost: bool) -> None:
        """The child has ended; `lost`: unfinished, so it may be restarted."""
        self._look = self._look_now(self._tick, over=True)
        self.account.ended(self._look, lost=lost)
        spent = self._look.spent
        if spent is not None:
            self._rows_before += spent.rows
            self._steps_before += spent.steps
        self._cpu_before_s += self._look.cpu_s
        self._look = dataclasses.replace(self._look, spent=None, cpu_s=0.0)
        self._runs = False

    def close(self) -> None:
        """Account for the remaining time, and write the last row."""
        # importing takes a moment, which belongs to the run's time
        import pyarrow.parquet  # noqa: F401

        look = self._look_now(None)
        self._look = dataclasses.replace(look, position=self._look.position)
        self.account.look(self._look)
        self._add_row()

    def _look_now(self, tick: Tick | None, *, over: bool = False) -> SessionLook:
        progress = tick.progress if tick is not None else None
        sample = tick.sample if tick is not None else None
        loop_pid = progress.pid if progress is not None else None
        stopped, loop_cpu_s = (False, 0.0) if loop_pid is None or over else loop_state(loop_pid)
        return SessionLook(
            spent=read_spent(self._spent_path) if self._runs else None,
            awake_s=self._clocks.awake_s(),
            slept_s=self._clocks.slept_s(),
            position=(progress.epoch, progress.step) if progress is not None else (0, 0),
            loop_stopped=stopped,
            loop_cpu_s=loop_cpu_s,
            other_stopped=_others_stopped(sample, loop_pid),
            cpu_s=sample.cpu_s if sample is not None else 0.0,
        )

    # ---- rows ------------------------------------------------------------------------------------

    def _add_row(self) -> None:
        now = self._read_now()
        self.rows.append(self._row_until(now))
        self._reading, self._gpu_use = now, GpuUse()
        self._file.add(self.rows[-1])

    def _read_now(self) -> SessionReading:
        look = self._look
        return SessionReading(
            unix_s=self._clocks.unix_s(),
            wall_s=self.wall_s,
            awake_s=look.awake_s,
            seconds=dict(self.account.seconds),
            host=self._read_host(),
            rows=self._rows_before + (look.spent.rows if look.spent else 0),
            steps=self.steps,
            cpu_s=self._cpu_before_s + look.cpu_s,
            own_cpu_s=time.process_time(),
            position=look.position,
            device_bytes=look.spent.device_bytes if look.spent else None,
        )

    def _row_until(self, now: SessionReading) -> LedgerRow:
        sample = self._tick.sample if self._tick is not None else None
        return row_between(
            self._reading,
            now,
            session=self.session,
            launch=self.launch,
            rss_bytes=sample.rss_bytes if sample is not None else None,
            pss_bytes=self._pss_bytes(sample),
            gpu_use=self._gpu_use,
        )

    def _pss_bytes(self, sample: TreeSample | None) -> int | None:
        """The tree's PSS; None while the child is silent, since reading waits for its locks."""
        if sample is None or self._tick is None or self._tick.silent_s > _QUIET_S:
            return None
        return tree_pss_bytes([process.pid for process in sample.processes])


def loop_state(pid: int) -> tuple[bool, float]:
    """Whether this process is stopped (SIGSTOP, a debugger), and its CPU seconds so far."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return process.status() in STOPPED_STATES, float(times.user + times.system)
    except psutil.Error:
        return False, 0.0


def tree_pss_bytes(pids: Sequence[int]) -> int | None:
    """Proportional set size of these processes together; None if the system has none."""
    total = None
    for pid in pids:
        try:
            pss = getattr(psutil.Process(pid).memory_full_info(), "pss", None)
        except (psutil.Error, OSError):
            continue
        if pss is not None:
            total = (total or 0) + int(pss)
    return total


def _others_stopped(sample: TreeSample | None, loop_pid: int | None) -> bool:
    processes = sample.processes if sample is not None else ()
    return any(p.status in STOPPED_STATES and p.pid != loop_pid for p in processes)
