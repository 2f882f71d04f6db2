"""The ledger of a real run: a row a minute of where its time went, and of what the machine did."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_table, write_table
from ctrkit.core.progress import SPENT_FILE, read_spent
from ctrkit.supervise.host import HostFigures, read_host
from ctrkit.supervise.sampler import STOPPED_STATES, TreeSample, host_slept_s
from ctrkit.supervise.time_account import CATEGORIES, PRODUCTIVE, Look, TimeAccount

if TYPE_CHECKING:
    import pyarrow as pa

    from ctrkit.supervise.watching import Tick

LEDGER = "ledger.parquet"
_ROW_S = 60.0
_QUIET_S = 5.0  # of silence, after which the tree's memory is left alone


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """What happened in about a minute; None is what the system does not tell.

    Args:
        ended_unix_s: when the minute was over.
        session: 1, 2, ...: one more with each `ctrkit train` on the folder.
        launch: 1, 2, ...: children of this session.
        epoch: where the loop was, at the end.
        step: steps of that epoch that were done.
        wall_s: wall-clock seconds, also those for which the host slept; `seconds` sum to them.
        seconds: by CATEGORIES; what the main thread spent, on devices that run asynchronously too.
        rows: that were trained on, also those that were lost before.
        steps: likewise.
        rows_per_s: over `wall_s`.
        cpu_cores: cores that the tree used while the host was awake.
        other_cores: cores that everybody else did.
        rss_bytes: of the tree; shared memory counts in each process.
        pss_bytes: of the tree; shared memory counts once (Linux).
        available_bytes: memory that the host could still give.
        swap_used_bytes: of the host.
        swapped_in_bytes: by the host, in this minute.
        swapped_out_bytes: likewise.
        device_bytes: the most device memory that was in use so far.
        temperature_c: the hottest sensor's.
        throttles: how often cores were slowed down for heat, in this minute.
        speed_limit: share of full speed at which the processor may run.
    """

    ended_unix_s: float
    session: int
    launch: int
    epoch: int
    step: int
    wall_s: float
    seconds: dict[str, float]
    rows: int
    steps: int
    rows_per_s: float
    cpu_cores: float | None
    other_cores: float | None
    rss_bytes: int | None
    pss_bytes: int | None
    available_bytes: int | None
    swap_used_bytes: int | None
    swapped_in_bytes: int | None
    swapped_out_bytes: int | None
    device_bytes: int | None
    temperature_c: float | None
    throttles: int | None
    speed_limit: float | None

    @property
    def productive_s(self) -> float:
        """Seconds of PRODUCTIVE."""
        return sum(self.seconds.get(category, 0.0) for category in PRODUCTIVE)


def totals(rows: Sequence[LedgerRow]) -> dict[str, float]:
    """Seconds by category over all rows."""
    return {name: sum(row.seconds.get(name, 0.0) for row in rows) for name in CATEGORIES}


def ledger_table(rows: Sequence[LedgerRow]) -> pa.Table:
    """The rows as an Arrow table; a category is a column `<name>_s`."""
    import pyarrow as pa

    return pa.Table.from_pylist([_flat(row) for row in rows], schema=_schema())


def read_ledger(path: Path) -> list[LedgerRow]:
    """The rows, oldest first; none where there is no file. Unknown columns are left out.

    Raises:
        UsageError: the file is damaged.
    """
    if not path.is_file():
        return []
    known = {f.name for f in dataclasses.fields(LedgerRow)}
    rows = []
    for flat in read_table(path).to_pylist():
        seconds = {name: flat.get(f"{name}_s") or 0.0 for name in CATEGORIES}
        values = {key: value for key, value in flat.items() if key in known}
        try:
            rows.append(LedgerRow(**values, seconds=seconds))
        except TypeError as error:
            raise UsageError(f"{path}: is no ledger: {error}") from None
    return rows


def _flat(row: LedgerRow) -> dict[str, Any]:
    flat = dataclasses.asdict(row)
    seconds = flat.pop("seconds")
    return flat | {f"{name}_s": seconds.get(name, 0.0) for name in CATEGORIES}


def _schema() -> pa.Schema:
    import pyarrow as pa

    fields = []
    for f in dataclasses.fields(LedgerRow):
        if f.name == "seconds":
            fields += [(f"{name}_s", pa.float64()) for name in CATEGORIES]
        else:
            fields.append((f.name, pa.int64() if str(f.type).startswith("int") else pa.float64()))
    return pa.schema(fields)


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """The clocks of a ledger, to be replaced in tests.

    `awake_s` is monotonic and stands still while the host sleeps, `slept_s` grows by its sleep.
    """

    awake_s: Callable[[], float] = time.monotonic
    slept_s: Callable[[], float] = host_slept_s
    unix_s: Callable[[], float] = time.time


@dataclass
class _Mark:
    """Counters at the end of the last row."""

    wall_s: float
    awake_s: float
    seconds: dict[str, float]
    host: HostFigures
    rows: int
    steps: int
    cpu_s: float
    own_cpu_s: float


class LedgerKeeper:
    """Keeps the ledger of one session: call `launched`, `tick` often, `ended`, at last `close`.

    Args:
        path: of `ledger.parquet`; its rows are kept, new ones are added.
        child_folder: where the child writes what it has spent.
        say: told once if the file cannot be written, or what is there cannot be read.
        clocks: see there.
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
        self._path, self._spent_path = path, child_folder / SPENT_FILE
        self._say, self._clocks, self._read_host = say, clocks or Clocks(), host
        earlier = self._readable(path)
        self._table = ledger_table(earlier) if earlier else None  # of all rows in the file
        self.rows: list[LedgerRow] = []
        self.session = max((row.session for row in earlier), default=0) + 1
        self.launch = 0
        self._runs = False  # a child, that is
        self._look = self._look_now(None)
        self._began = self._look
        self.account = TimeAccount(self._look)
        # over the launches that are done with
        self._rows_before = self._steps_before = 0
        self._cpu_before_s = 0.0
        self._mark = self._mark_now()
        self._tick: Tick | None = None
        self._cannot_write = False

    def _readable(self, path: Path) -> list[LedgerRow]:
        try:
            return read_ledger(path)
        except UsageError as error:
            aside = path.with_name(f"damaged-{path.name}")
            path.replace(aside)
            self._say(f"{error}; it is kept as {aside.name}, a new one is begun")
            return []

    # ---- what is known now -----------------------------------------------------------------------

    @property
    def wall_s(self) -> float:
        """Wall-clock seconds of this session up to the last look, the host's sleep too."""
        return (self._look.awake_s - self._began.awake_s) + max(
            0.0, self._look.slept_s - self._began.slept_s
        )

    @property
    def steps_of_launch(self) -> int:
        """Steps that the running child has done."""
        return self._look.spent.steps if self._look.spent else 0

    @property
    def steps(self) -> int:
        """Steps that this session has done, those that were lost again too."""
        return self._steps_before + self.steps_of_launch

    def rows_so_far(self) -> list[LedgerRow]:
        """The rows of this session, and what has passed since the last one."""
        return [*self.rows, self._row(self._mark, self._mark_now())]

    def launched(self) -> None:
        """A child is about to be started."""
        self.launch += 1
        self._runs, self._tick = True, None
        self._spent_path.unlink(missing_ok=True)
        self.tick(None)

    def tick(self, tick: Tick | None) -> None:
        """Account for the time since the last call; now and then a row is added."""
        self._tick = tick
        self._look = self._look_now(tick)
        self.account.look(self._look)
        if self.wall_s - self._mark.wall_s >= _ROW_S:
            self._add_row()

    def ended(self, *, lost: bool) -> None:
        """The child is over; `lost`: it did not finish, and is perhaps started again."""
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
        """Account for what is left, and write the last row."""
        import pyarrow.parquet  # noqa: F401  # it takes a moment: that is the run's time, too

        look = self._look_now(None)
        self._look = dataclasses.replace(look, position=self._look.position)
        self.account.look(self._look)
        self._add_row()

    def _look_now(self, tick: Tick | None, *, over: bool = False) -> Look:
        progress = tick.progress if tick is not None else None
        sample = tick.sample if tick is not None else None
        loop_pid = progress.pid if progress is not None else None
        stopped, loop_cpu_s = (False, 0.0) if loop_pid is None or over else loop_state(loop_pid)
        return Look(
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
        before, now = self._mark, self._mark_now()
        self._mark = now
        self.rows.append(self._row(before, now))
        self._write(self.rows[-1])

    def _write(self, row: LedgerRow) -> None:
        import pyarrow as pa

        tables = [self._table] if self._table is not None else []
        self._table = pa.concat_tables([*tables, ledger_table([row])]).combine_chunks()
        try:
            write_table(self._path, self._table)
        except OSError as error:
            if not self._cannot_write:
                self._say(f"{self._path}: cannot be written: {error.strerror}; the run goes on")
            self._cannot_write = True

    def _mark_now(self) -> _Mark:
        look = self._look
        return _Mark(
            wall_s=self.wall_s,
            awake_s=look.awake_s,
            seconds=dict(self.account.seconds),
            host=self._read_host(),
            rows=self._rows_before + (look.spent.rows if look.spent else 0),
            steps=self.steps,
            cpu_s=self._cpu_before_s + look.cpu_s,
            own_cpu_s=time.process_time(),
        )

    def _row(self, before: _Mark, now: _Mark) -> LedgerRow:
        look, sample = self._look, self._tick.sample if self._tick is not None else None
        wall_s = now.wall_s - before.wall_s
        awake_s = max(now.awake_s - before.awake_s, 1e-9)
        tree_s = max(0.0, now.cpu_s - before.cpu_s)
        others_s = (
            (now.host.busy_s - before.host.busy_s) - tree_s - (now.own_cpu_s - before.own_cpu_s)
        )
        return LedgerRow(
            ended_unix_s=self._clocks.unix_s(),
            session=self.session,
            launch=self.launch,
            epoch=look.position[0],
            step=look.position[1],
            wall_s=wall_s,
            seconds={name: now.seconds[name] - before.seconds[name] for name in CATEGORIES},
            rows=now.rows - before.rows,
            steps=now.steps - before.steps,
            rows_per_s=(now.rows - before.rows) / max(wall_s, 1e-9),
            cpu_cores=tree_s / awake_s,
            other_cores=max(0.0, others_s) / awake_s,
            rss_bytes=sample.rss_bytes if sample is not None else None,
            pss_bytes=self._pss_bytes(sample),
            available_bytes=now.host.available_bytes,
            swap_used_bytes=now.host.swap_used_bytes,
            swapped_in_bytes=_less(now.host.swapped_in_bytes, before.host.swapped_in_bytes),
            swapped_out_bytes=_less(now.host.swapped_out_bytes, before.host.swapped_out_bytes),
            device_bytes=look.spent.device_bytes if look.spent else None,
            temperature_c=now.host.temperature_c,
            throttles=_less(now.host.throttles, before.host.throttles),
            speed_limit=now.host.speed_limit,
        )

    def _pss_bytes(self, sample: TreeSample | None) -> int | None:
        """Left out while the child is silent: the figure waits for locks of those it looks at."""
        if sample is None or self._tick is None or self._tick.silent_s > _QUIET_S:
            return None
        return tree_pss_bytes([process.pid for process in sample.processes])


def _less(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else max(0, now - before)


def loop_state(pid: int) -> tuple[bool, float]:
    """Whether this process is stopped, by SIGSTOP or a debugger, and its CPU seconds so far."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return process.status() in STOPPED_STATES, float(times.user + times.system)
    except psutil.Error:
        return False, 0.0


def tree_pss_bytes(pids: Sequence[int]) -> int | None:
    """Proportional set size of these processes together; None where the system has none."""
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
