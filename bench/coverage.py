"""Coverage of the projection's intervals on simulated machines, and the null test.

Each seed simulates a probe of one cell (launches of some steps, as stamps), projects an epoch with
the product's own functions, and simulates that epoch. What counts: how often an interval without a
flag holds the epoch, how wide it is, and how many runs are flagged. The null test compares two
cells that are the same.

    python bench/coverage.py --seeds 300
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ctrkit.core.config import RunSizes
from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.core.records import Measurement, Stamps
from ctrkit.measure.projection import project
from ctrkit.measure.ratio import LaunchTime, ratio_of
from ctrkit.measure.replay import Load, replay_epoch
from ctrkit.measure.statistics import DRIFT, drifted, mean_interval
from ctrkit.measure.steps import sample_of_measurement

Random = np.random.Generator
Series = Callable[[Random, int], np.ndarray]

STEPS, BATCHES, VALIDATION_BATCHES = 60, 1200, 20
RESTART_S, TEARDOWN_S, CHECKPOINT_S, VALIDATION_S, STARTUP_S = 3.0, 0.3, 0.5, 0.3, 6.0
EVENT_SPREAD = 0.1
#: Cells differ when their ratio leaves this band.
BAND = (0.98, 1.02)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A kind of machine: how its steps, its launches and its workers scatter.

    `consumer` and `service` give relative times with a mean of about 1; `load` is how much longer
    the workers take over a batch than the step, 0 without workers; unless they `stamped` it, no
    epoch can be replayed. `launch_spread` is between
    launches; `slower` is by how much the machine slows down from the probe's begin to its end.
    """

    name: str
    consumer: Series
    service: Series | None = None
    load: float = 0.0
    workers: int = 0
    prefetch: int = 2
    stamped: bool = True
    launch_spread: float = 0.01
    slower: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One seed: what was projected for the epoch, what it took, and the flags."""

    low_s: float
    high_s: float
    mean_s: float
    real_s: float
    flags: tuple[str, ...]

    @property
    def held(self) -> bool:
        return self.low_s <= self.real_s <= self.high_s

    @property
    def relative_half(self) -> float:
        return (self.high_s - self.mean_s) / self.mean_s


def gamma(spread: float) -> Series:
    """Independent steps."""
    shape = 1 / spread**2
    return lambda random, n: random.gamma(shape, 1 / shape, n)


def ar1(rho: float, spread: float = 0.15) -> Series:
    """Steps of which each resembles the one before; never below a fifth of the mean."""

    def series(random: Random, n: int) -> np.ndarray:
        noise = random.normal(0, spread * math.sqrt(1 - rho**2), n)
        values = np.empty(n)
        before = random.normal(0, spread)
        for i in range(n):
            before = values[i] = rho * before + noise[i]
        return np.maximum(1 + values, 0.2)

    return series


def pareto(shape: float) -> Series:
    """Steps that are never fast but may be very slow."""
    return lambda random, n: (1 + random.pareto(shape, n)) * (shape - 1) / shape


def stalls(share: float, shape: float, least: float) -> Series:
    """Steady steps, of which a few stall for `least` and more, Pareto-distributed."""

    def series(random: Random, n: int) -> np.ndarray:
        stalled = random.random(n) < share
        return random.gamma(100, 0.01, n) + stalled * least * (1 + random.pareto(shape, n))

    return series


SCENARIOS = (
    Scenario(name="iid", consumer=gamma(0.15)),
    Scenario(name="iid, launches 3 %", consumer=gamma(0.15), launch_spread=0.03),
    Scenario(name="AR(1) .9", consumer=ar1(0.9)),
    Scenario(name="AR(1) .97", consumer=ar1(0.97)),
    Scenario(name="loader-bound bursts", consumer=gamma(0.1), service=gamma(0.4), load=1.5,
             workers=4),
    Scenario(name="the same, not replayed", consumer=gamma(0.1), service=gamma(0.4), load=1.5,
             workers=4, stamped=False),
    Scenario(name="near-critical", consumer=gamma(0.2), service=gamma(0.4), load=1.0, workers=4),
    Scenario(name="the same, not replayed ", consumer=gamma(0.2), service=gamma(0.4), load=1.0,
             workers=4, stamped=False),
    Scenario(name="heavy tail", consumer=pareto(2.2)),
    Scenario(name="stalls in 2 %", consumer=stalls(0.02, 1.5, 5.0)),
    Scenario(name="stalls in 0.4 %", consumer=stalls(0.004, 1.5, 5.0)),
    Scenario(name="drift", consumer=gamma(0.05), slower=0.2),
)  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One simulated launch: what the product would have measured of it."""

    measurement: Measurement
    load: Load | None
    epoch_s: float


def launch(scenario: Scenario, random: Random, *, at: float, steps: int) -> Launch:
    """Simulate `steps` steps of a launch at the time `at` of the probe, 0 its begin, 1 its end."""
    pace = random.normal(1, scenario.launch_spread) * (1 + scenario.slower * min(1.0, at))
    consumer = [float(c) for c in pace * scenario.consumer(random, steps)]
    load = None
    if scenario.service is None:
        asked = [RESTART_S + sum(consumer[:i]) for i in range(steps)]
        delivered, total_s = asked, RESTART_S + sum(consumer)
    else:
        each_s = pace * scenario.load * scenario.workers
        service = [float(s) for s in each_s * scenario.service(random, steps)]
        load = Load(
            service_s=service, consumer_s=consumer, workers=scenario.workers,
            prefetch=scenario.prefetch, ready_s=RESTART_S,
        )  # fmt: skip
        delivery = replay_epoch(load, steps)
        delivered, total_s = delivery.delivered_s, delivery.total_s
    done = [d + c for d, c in zip(delivered, consumer, strict=True)]
    warmup = max(1, scenario.workers * scenario.prefetch)
    stamps = Stamps(
        epoch=[1] * steps,
        step=list(range(1, steps + 1)),
        window=["warmup"] * warmup + ["throughput"] * (steps - warmup),
        asked_s=[0.0, *done[:-1]],
        delivered_s=list(delivered),
        done_s=done,
        rows=[1] * steps,
    )

    def events(mean_s: float, count: int) -> list[float]:
        return [float(e) for e in pace * mean_s * random.normal(1, EVENT_SPREAD, count)]

    restart_s = events(RESTART_S, 1)[0]
    teardown_s = events(TEARDOWN_S, 1)[0]
    validation_s, checkpoint_s = events(VALIDATION_S, VALIDATION_BATCHES), events(CHECKPOINT_S, 2)
    measurement = Measurement(
        kind="full",
        startup_s=STARTUP_S,
        restart_s=restart_s,
        teardown_s=teardown_s,
        throughput_s=done[-1] - done[warmup - 1],
        throughput_steps=steps - warmup,
        throughput_rows=steps - warmup,
        validation_batch_s=validation_s,
        checkpoint_s=checkpoint_s,
        stamps=stamps,
        complete=True,
    )
    after_first_s = total_s - delivered[0]
    rest_s = restart_s + teardown_s + sum(validation_s) + checkpoint_s[0]
    return Launch(measurement, load, after_first_s + rest_s)


def run_seed(scenario: Scenario, launches: int, seed: Sequence[int]) -> Outcome:
    """Probe, project, and run the epoch; the first cell of the probe is another, run last again."""
    random = np.random.default_rng(seed)
    steps = STEPS + max(1, scenario.workers * scenario.prefetch)
    probed = [
        launch(scenario, random, at=(i + 1) / (launches + 1), steps=steps) for i in range(launches)
    ]
    sizes = RunSizes(epochs=1, train_batches=BATCHES, validation_batches=VALIDATION_BATCHES)
    loads = [one.load for one in probed if one.load is not None and scenario.stamped]
    projection = project(
        [one.measurement for one in probed], sizes, loads=loads, cycle=max(1, scenario.workers)
    )
    assert projection is not None
    flags = list(projection.flags)
    first, last = (
        sample_of_measurement(
            launch(scenario, random, at=at, steps=steps).measurement, max(1, scenario.workers)
        )
        for at in (0.0, 1.0)
    )
    assert first is not None
    assert last is not None
    if drifted(first, last):
        flags.append(DRIFT)
    real_s = launch(scenario, random, at=1.0, steps=BATCHES).epoch_s
    epoch = projection.epoch
    return Outcome(
        low_s=epoch.low, high_s=epoch.high, mean_s=epoch.mean, real_s=real_s, flags=tuple(flags)
    )


def called_different(scenario: Scenario, launches: int, seed: Sequence[int]) -> bool:
    """Whether two cells that are the same, launched in turn, are called different."""
    random = np.random.default_rng(seed)
    steps = STEPS + max(1, scenario.workers * scenario.prefetch)
    times: list[list[LaunchTime]] = [[], []]
    for i in range(2 * launches):
        cell = (0, 1, 1, 0)[i % 4]
        one = launch(scenario, random, at=(i + 1) / (2 * launches + 1), steps=steps)
        sample = sample_of_measurement(one.measurement, max(1, scenario.workers))
        assert sample is not None
        step = mean_interval([sample])
        times[cell].append(LaunchTime(mean_s=step.mean, half_s=step.half))
    ratio = ratio_of(*times)
    return ratio.low > BAND[1] or ratio.high < BAND[0]


def covered(name: str, launches: int, seeds: range) -> dict[str, object]:
    """One row of the table: a scenario over many seeds."""
    index, scenario = next((i, s) for i, s in enumerate(SCENARIOS) if s.name == name)
    outcomes = [run_seed(scenario, launches, [seed, index, launches]) for seed in seeds]
    plain = [o for o in outcomes if not o.flags]
    flags = sorted({flag for o in outcomes for flag in o.flags})
    different = [called_different(scenario, launches, [seed, index, launches, 7]) for seed in seeds]
    return {
        "scenario": name,
        "launches": launches,
        "seeds": len(seeds),
        "unflagged": len(plain),
        "coverage_unflagged": sum(o.held for o in plain) / len(plain) if plain else None,
        "coverage_all": sum(o.held for o in outcomes) / len(outcomes),
        "median_half": statistics.median(o.relative_half for o in plain or outcomes),
        "median_error": statistics.median(abs(o.mean_s / o.real_s - 1) for o in outcomes),
        "bias": statistics.fmean(o.mean_s / o.real_s - 1 for o in outcomes),
        "flagged": {f: sum(f in o.flags for o in outcomes) / len(outcomes) for f in flags},
        "called_different": sum(different) / len(different),
    }


def table(rows: Sequence[dict[str, object]], first_seed: int) -> str:
    """The results as Markdown."""

    def share(value: object) -> str:
        return "" if value is None else f"{float(str(value)):.1%}"

    lines = [
        "# Coverage of the projected epoch in simulation", "",
        f"{STEPS} steps a launch, epochs of {BATCHES}, {rows[0]['seeds']} seeds from {first_seed}"
        " on. Half-widths and errors are relative to the projection and to the epoch.", "",
        "| scenario | launches | flagged | covered, unflagged | covered, all | median half-width |"
        " median error | bias | flags | null test: called different |",
        "| --- " * 10 + "|",
    ]  # fmt: skip
    for row in rows:
        flagged = row["flagged"]
        assert isinstance(flagged, dict)
        seeds, unflagged = int(str(row["seeds"])), int(str(row["unflagged"]))
        lines.append(
            f"| {row['scenario']} | {row['launches']} | {1 - unflagged / seeds:.1%} |"
            f" {share(row['coverage_unflagged'])} | {share(row['coverage_all'])} |"
            f" {share(row['median_half'])} | {share(row['median_error'])} |"
            f" {float(str(row['bias'])):+.1%} |"
            f" {', '.join(f'{f} {share(s)}' for f, s in flagged.items())} |"
            f" {share(row['called_different'])} |"
        )
    held = sum(float(str(r["coverage_unflagged"] or 0)) * int(str(r["unflagged"])) for r in rows)
    plain = sum(int(str(r["unflagged"])) for r in rows)
    lines += ["", f"All rows together: {held / plain:.1%} of {plain} unflagged intervals held."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=1_000_000, help="held out by default")
    parser.add_argument("--launches", default="2,3")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [(s.name, int(n)) for s in SCENARIOS for n in options.launches.split(",")]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = pool.starmap(partial(_covered, seeds=seeds), jobs, chunksize=1)
    text = table(rows, options.first_seed)
    print(text, end="")
    settings = {key: str(value) for key, value in vars(options).items() if key != "out"}
    options.out.mkdir(parents=True, exist_ok=True)
    found = {"settings": settings, "rows": rows, "environment": describe_environment()}
    write_json(options.out / "coverage.json", found)
    write_atomically(options.out / "coverage.md", text.encode())


def _covered(name: str, launches: int, *, seeds: range) -> dict[str, object]:
    return covered(name, launches, seeds)


if __name__ == "__main__":
    main()
