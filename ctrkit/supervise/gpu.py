"""Samples of a run's GPU, and their means: load, memory, power, clocks, other processes.

`ctrkit/supervise/nvml.py` reads them. Values that a card does not tell are None.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class GpuProcess:
    """A process that computes on a GPU; bytes are None if the driver does not tell."""

    pid: int
    name: str
    used_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class GpuSample:
    """One GPU at one moment.

    Attributes:
        busy_share: share of the last moments in which a kernel ran.
        clock_share: clock as a share of the highest.
        held_by: what holds the clocks down: `power`, `heat`, `a hardware slowdown`; None where the
            card does not tell.
        others: other processes that compute on it; empty if it is unknown which one the run is.
    """

    index: int
    name: str
    busy_share: float | None = None
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_share: float | None = None
    held_by: tuple[str, ...] | None = None
    others: tuple[GpuProcess, ...] = ()


class GpuReader(Protocol):
    """Reads the GPUs that some processes compute on."""

    def read(self, pids: Collection[int], *, uses_first: bool = False) -> tuple[GpuSample, ...]: ...


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """A summary of samples: means, peak memory, and other processes."""

    name: str = ""
    samples: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_limit_w: float | None = None
    held: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[int, GpuProcess] = field(default_factory=dict)

    def mean(self, figure: str) -> float | None:
        """The mean of `busy_share`, `power_w` or `clock_share`; None if no sample had it."""
        count = self.counts.get(figure, 0)
        return self.sums[figure] / count if count else None

    def held_share(self, why: str) -> float | None:
        """Share of the samples in which this held the clocks down; None where no sample told."""
        count = self.counts.get("held_by", 0)
        return self.held.get(why, 0) / count if count else None

    @property
    def others_bytes(self) -> int | None:
        """Memory that other processes used on the run's GPUs; None if there were none."""
        known = [one.used_bytes or 0 for one in self.others.values()]
        return sum(known) if known else None


def added(use: GpuUse, looks: Sequence[GpuSample]) -> GpuUse:
    """The summary with one more sample of each of the run's GPUs."""
    for look in looks:
        sums, counts, held = dict(use.sums), dict(use.counts), dict(use.held)
        for figure in ("busy_share", "power_w", "clock_share"):
            value = getattr(look, figure)
            if value is not None:
                sums[figure] = sums.get(figure, 0.0) + value
                counts[figure] = counts.get(figure, 0) + 1
        if look.held_by is not None:
            counts["held_by"] = counts.get("held_by", 0) + 1
        for why in look.held_by or ():
            held[why] = held.get(why, 0) + 1
        use = GpuUse(
            name=use.name or look.name,
            samples=use.samples + 1,
            sums=sums,
            counts=counts,
            memory_bytes=_most(use.memory_bytes, look.memory_bytes),
            memory_total_bytes=look.memory_total_bytes or use.memory_total_bytes,
            power_limit_w=look.power_limit_w or use.power_limit_w,
            held=held,
            others={**use.others, **{one.pid: one for one in look.others}},
        )
    return use


def combined(uses: Sequence[GpuUse]) -> GpuUse:
    """The summary over several launches."""
    whole = GpuUse()
    for use in uses:
        whole = GpuUse(
            name=whole.name or use.name,
            samples=whole.samples + use.samples,
            sums=_summed(whole.sums, use.sums),
            counts={k: int(v) for k, v in _summed(whole.counts, use.counts).items()},
            memory_bytes=_most(whole.memory_bytes, use.memory_bytes),
            memory_total_bytes=use.memory_total_bytes or whole.memory_total_bytes,
            power_limit_w=use.power_limit_w or whole.power_limit_w,
            held={k: int(v) for k, v in _summed(whole.held, use.held).items()},
            others={**whole.others, **use.others},
        )
    return whole


def _summed(one: Mapping[str, float], two: Mapping[str, float]) -> dict[str, float]:
    return {key: one.get(key, 0) + two.get(key, 0) for key in {*one, *two}}


def _most(one: int | None, two: int | None) -> int | None:
    return two if one is None else one if two is None else max(one, two)
