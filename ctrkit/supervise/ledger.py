"""The ledger of a real run: a row per minute of where its time went and what the machine did."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_table, write_table
from ctrkit.supervise.gpu import GpuUse
from ctrkit.supervise.host import HostFigures
from ctrkit.supervise.time_account import CATEGORIES, PRODUCTIVE, EpochStep

if TYPE_CHECKING:
    import pyarrow as pa

LEDGER = "ledger.parquet"


@dataclass(frozen=True, kw_only=True)
class LedgerRow:
    """What happened in about a minute; None for what the system does not tell.

    Args:
        ended_unix_s: end of the minute, Unix time.
        session: 1, 2, ...: one more for each `ctrkit train` on the folder.
        launch: 1, 2, ...: number of the child in this session.
        epoch: epoch at the end.
        step: steps done of that epoch.
        wall_s: wall-clock seconds, including the host's sleep; `seconds` sum to them.
        seconds: seconds per CATEGORY that the main thread spent, also on asynchronous devices.
        rows: rows trained on, also repeated ones.
        steps: likewise.
        rows_per_s: rows per second of `wall_s`.
        cpu_cores: cores that the tree used while the host was awake.
        other_cores: cores that all other processes used.
        rss_bytes: resident memory of the tree; shared memory counts in each process.
        pss_bytes: the same with shared memory counted once (Linux).
        available_bytes: memory that the host could still give.
        swap_used_bytes: swap in use on the host.
        swapped_in_bytes: swapped in by the host in this minute.
        swapped_out_bytes: likewise.
        device_bytes: peak device memory so far.
        temperature_c: temperature of the hottest sensor.
        throttles: how often cores were slowed down for heat in this minute.
        speed_limit: share of full speed that the processor may use.
        gpu_busy_share: of the run's NVIDIA GPUs, a mean over this minute, like the next three.
        gpu_power_w: power.
        gpu_clock_share: clock as a share of the highest.
        gpu_held_by_power_share: share of the samples in which power held the clock down.
        gpu_held_by_heat_share: the same for heat.
        gpu_memory_bytes: peak memory in use, by all processes.
        gpu_others_bytes: memory of other processes, as far as it is told; None if there were none.
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
    gpu_busy_share: float | None = None
    gpu_power_w: float | None = None
    gpu_clock_share: float | None = None
    gpu_held_by_power_share: float | None = None
    gpu_held_by_heat_share: float | None = None
    gpu_memory_bytes: int | None = None
    gpu_others_bytes: int | None = None

    @property
    def productive_s(self) -> float:
        """Seconds of the PRODUCTIVE categories."""
        return sum(self.seconds.get(category, 0.0) for category in PRODUCTIVE)


def totals(rows: Sequence[LedgerRow]) -> dict[str, float]:
    """Seconds by category over all rows."""
    return {name: sum(row.seconds.get(name, 0.0) for row in rows) for name in CATEGORIES}


def ledger_table(rows: Sequence[LedgerRow]) -> pa.Table:
    """The rows as an Arrow table; a category becomes a column `<name>_s`."""
    import pyarrow as pa

    return pa.Table.from_pylist([_flat(row) for row in rows], schema=_schema())


def read_ledger(path: Path) -> list[LedgerRow]:
    """The rows, oldest first; empty without a file. Unknown columns are ignored.

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
            raise UsageError(f"{path}: is not a ledger: {error}") from None
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
class SessionReading:
    """A session's counters at one moment; two of them make a row.

    Attributes:
        cpu_s: the tree's CPU seconds over all launches.
        own_cpu_s: the supervisor's CPU seconds.
        position: the running child's position.
        device_bytes: the running child's device memory.
    """

    unix_s: float
    wall_s: float
    awake_s: float
    seconds: Mapping[str, float]
    host: HostFigures
    rows: int
    steps: int
    cpu_s: float
    own_cpu_s: float
    position: EpochStep
    device_bytes: int | None


def row_between(
    before: SessionReading,
    now: SessionReading,
    *,
    session: int,
    launch: int,
    rss_bytes: int | None,
    pss_bytes: int | None,
    gpu_use: GpuUse,
) -> LedgerRow:
    """The row between two readings; memory is the tree's at the end."""
    wall_s = now.wall_s - before.wall_s
    awake_s = max(now.awake_s - before.awake_s, 1e-9)
    tree_s = max(0.0, now.cpu_s - before.cpu_s)
    own_s = now.own_cpu_s - before.own_cpu_s
    others_s = (now.host.busy_s - before.host.busy_s) - tree_s - own_s
    return LedgerRow(
        ended_unix_s=now.unix_s,
        session=session,
        launch=launch,
        epoch=now.position[0],
        step=now.position[1],
        wall_s=wall_s,
        seconds={name: now.seconds[name] - before.seconds[name] for name in CATEGORIES},
        rows=now.rows - before.rows,
        steps=now.steps - before.steps,
        rows_per_s=(now.rows - before.rows) / max(wall_s, 1e-9),
        cpu_cores=tree_s / awake_s,
        other_cores=max(0.0, others_s) / awake_s,
        rss_bytes=rss_bytes,
        pss_bytes=pss_bytes,
        available_bytes=now.host.available_bytes,
        swap_used_bytes=now.host.swap_used_bytes,
        swapped_in_bytes=_less(now.host.swapped_in_bytes, before.host.swapped_in_bytes),
        swapped_out_bytes=_less(now.host.swapped_out_bytes, before.host.swapped_out_bytes),
        device_bytes=now.device_bytes,
        temperature_c=now.host.temperature_c,
        throttles=_less(now.host.throttles, before.host.throttles),
        speed_limit=now.host.speed_limit,
        gpu_busy_share=gpu_use.mean("busy_share"),
        gpu_power_w=gpu_use.mean("power_w"),
        gpu_clock_share=gpu_use.mean("clock_share"),
        gpu_held_by_power_share=gpu_use.held_share("power"),
        gpu_held_by_heat_share=gpu_use.held_share("heat"),
        gpu_memory_bytes=gpu_use.memory_bytes,
        gpu_others_bytes=gpu_use.others_bytes,
    )


def _less(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else max(0, now - before)


class LedgerFile:
    """`ledger.parquet`: keeps its rows, and writes each new one at once.

    Args:
        path: the file; a damaged one is moved aside.
        say: called once if the file cannot be written, or its content cannot be read.
    """

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        self._path, self._say, self._told = path, say, False
        earlier = self._readable()
        self._table = ledger_table(earlier) if earlier else None  # all rows in the file
        self.last_session = max((row.session for row in earlier), default=0)

    def _readable(self) -> list[LedgerRow]:
        try:
            return read_ledger(self._path)
        except UsageError as error:
            aside = self._path.with_name(f"damaged-{self._path.name}")
            self._path.replace(aside)
            self._say(f"{error}; it is kept as {aside.name}, and a new one is started")
            return []

    def add(self, row: LedgerRow) -> None:
        """Write one more row; a refusal of the disk does not end the run."""
        import pyarrow as pa

        tables = [self._table] if self._table is not None else []
        self._table = pa.concat_tables([*tables, ledger_table([row])]).combine_chunks()
        try:
            write_table(self._path, self._table)
        except OSError as error:
            if not self._told:
                self._say(f"{self._path}: cannot be written: {error.strerror}; the run continues")
            self._told = True
