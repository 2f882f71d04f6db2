"""Measures how often the projection's intervals cover the truth on simulated machines; null test.

Each seed simulates a probe of one cell (launches of some steps, as stamps), projects an epoch with
the product's own functions, and simulates that epoch. Half of the scenarios keep to what the
estimators assume; the others do not: launches that differ by up to 15 %, batches whose cost
varies, machines that slow down, bursts, two regimes, sorted data. What counts: how often the
interval holds the epoch, with a flag and without, how wide it is, and how many runs are flagged.
The null test compares two cells that are the same. Nothing is trained.

    python bench/coverage.py --seeds 200
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes
from ctrkit.core.environment import describe_environment
from ctrkit.core.files import write_atomically, write_json
from ctrkit.core.launch_spread import SHIPPED, Pair, learned_spread
from ctrkit.measure.content import first_batches_only
from ctrkit.measure.drift import Launched, drift_factor
from ctrkit.measure.projection import project, with_drift
from ctrkit.measure.ratio import LaunchTime, ratio_of
from ctrkit.measure.replay import Load, replay_epoch
from ctrkit.measure.statistics import mean_interval
from ctrkit.measure.steps import sample_of_measurement
from ctrkit.probe.windows import epoch_share

Random = np.random.Generator
Series = Callable[[Random, int], np.ndarray]

STEPS, FEW_STEPS, BATCHES, VALIDATION_BATCHES = 60, 10, 1200, 20
RESTART_S, TEARDOWN_S, CHECKPOINT_S, VALIDATION_S, STARTUP_S = 3.0, 0.3, 0.5, 0.3, 6.0
EVENT_SPREAD = 0.1
#: Cells differ when their ratio leaves this band.
BAND = (0.98, 1.02)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A kind of machine: how its steps, its launches and its workers scatter.

    `consumer` and `service` give relative times with a mean of about 1; `load` is how much longer
    the workers take over a batch than the step, 0 without workers; unless they `stamped` it, no
    epoch can be replayed. `launch_spread` is between launches. `content` gives what each batch of
    the epoch costs, the same in every launch; launches see other parts of it where it is `spread`
    over the epoch, else the first batches only. `slower` is by how much the machine slows down from
    the probe's begin to its end, `slower_later` from the run's begin to its end. `pairs` of this
    very workload were collected before. `steps` is how many a launch measures.
    """

    name: str
    consumer: Series
    service: Series | None = None
    load: float = 0.0
    workers: int = 0
    prefetch: int = 2
    stamped: bool = True
    launch_spread: float = 0.01
    content: Series | None = None
    spread: bool = True
    slower: float = 0.0
    slower_later: float = 0.0
    pairs: int = 0
    steps: int = STEPS
    launches: tuple[int, ...] = field(default=(2, 3))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of one seed: the projected epoch, the simulated one, and the flags."""

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
    """Independent, gamma-distributed steps."""
    shape = 1 / spread**2
    return lambda random, n: random.gamma(shape, 1 / shape, n)


def ar1(rho: float, spread: float = 0.15) -> Series:
    """Steps that are correlated with the one before (AR(1)); never below a fifth of the mean."""

    def series(random: Random, n: int) -> np.ndarray:
        noise = random.normal(0, spread * math.sqrt(1 - rho**2), n)
        values = np.empty(n)
        before = random.normal(0, spread)
        for i in range(n):
            before = values[i] = rho * before + noise[i]
        return np.maximum(1 + values, 0.2)

    return series


def pareto(shape: float) -> Series:
    """Pareto-distributed steps: never much faster than usual, but sometimes very slow."""
    return lambda random, n: (1 + random.pareto(shape, n)) * (shape - 1) / shape


def stalls(share: float, shape: float, least: float) -> Series:
    """Steady steps, a few of which stall for `least` or longer, Pareto-distributed."""

    def series(random: Random, n: int) -> np.ndarray:
        stalled = random.random(n) < share
        return random.gamma(100, 0.01, n) + stalled * least * (1 + random.pareto(shape, n))

    return series


def bursts(share: float, length: int, factor: float) -> Series:
    """Steady steps, with stretches of `length` steps that take `factor` times as long."""

    def series(random: Random, n: int) -> np.ndarray:
        starts = random.random(n + length) < share / length
        slow = np.convolve(starts, np.ones(length), "valid")[:n] > 0
        values = random.gamma(100, 0.01, n)
        return np.where(slow, values * factor, values)

    return series


def regimes(length: int, factor: float) -> Series:
    """Two paces in turn, each for about `length` steps."""

    def series(random: Random, n: int) -> np.ndarray:
        slow = np.empty(n, dtype=bool)
        place, now = 0, bool(random.random() < 0.5)
        while place < n:
            stay = int(random.exponential(length)) + 1
            slow[place : place + stay] = now
            place, now = place + stay, not now
        return random.gamma(100, 0.01, n) * np.where(slow, factor, 1.0)

    return series


def rising(first: float, last: float, power: float = 1.0) -> Series:
    """Batches sorted by their cost."""
    return lambda random, n: first + (last - first) * np.linspace(0, 1, n) ** power


WITHIN = (
    Scenario(name="iid", consumer=gamma(0.15)),
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
)  # fmt: skip
ANY = (1, 2, 3, 4, 6)
SCENARIOS = (
    *WITHIN,
    *(
        Scenario(name=f"launches {sd:.0%}", consumer=gamma(0.15), launch_spread=sd, launches=ANY)
        for sd in (0.01, 0.03, 0.05, 0.1, 0.15)
    ),
    *(
        Scenario(name=f"launches {sd:.0%}, 12 pairs known", consumer=gamma(0.15),
                 launch_spread=sd, launches=(1, 2, 3), pairs=12)
        for sd in (0.05, 0.1, 0.15)
    ),
    *(
        Scenario(name=f"batches cv {cv:g}, {seen}", consumer=gamma(0.05), content=gamma(cv),
                 spread=seen == "spread", steps=FEW_STEPS, launches=(1, 3, 6))
        for cv in (0.2, 0.4, 0.8, 1.0) for seen in ("spread", "the first only")
    ),
    Scenario(name="batches cv 0.4, 60 steps", consumer=gamma(0.05), content=gamma(0.4)),
    *(
        Scenario(name=f"sorted, 4 to {last} ms", consumer=gamma(0.05), content=rising(4, last),
                 launches=(1, 2, 3, 6))
        for last in (6, 12, 304)
    ),
    Scenario(name="sorted, steep end", consumer=gamma(0.05), content=rising(4, 304, 4.0),
             launches=(2, 3, 6)),
    Scenario(name="sorted, the first only", consumer=gamma(0.05), content=rising(4, 304),
             spread=False),
    *(
        Scenario(name=f"slower by {d:.0%} in the probe", consumer=gamma(0.05), slower=d,
                 launches=(2, 3))
        for d in (0.05, 0.1, 0.2, 0.5)
    ),
    *(
        Scenario(name=f"slower by {d:.0%} in the run", consumer=gamma(0.05), slower_later=d,
                 launches=(2, 3))
        for d in (0.1, 0.2, 0.5)
    ),
    Scenario(name="slower by 10% in both", consumer=gamma(0.05), slower=0.1, slower_later=0.1),
    Scenario(name="bursts of 20 steps", consumer=bursts(0.2, 20, 2.0), launches=(2, 3, 6)),
    Scenario(name="bursts of 5 steps", consumer=bursts(0.2, 5, 3.0), launches=(2, 3, 6)),
    Scenario(name="two regimes of 30 steps", consumer=regimes(30, 1.5), launches=(2, 3, 6)),
    Scenario(name="two regimes of 300 steps", consumer=regimes(300, 1.5), launches=(2, 3, 6)),
)  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One simulated launch: what ctrkit would have measured."""

    measurement: Measurement
    load: Load | None
    epoch_s: float


def launch(
    scenario: Scenario,
    random: Random,
    *,
    at: float,
    steps: int,
    costs: np.ndarray | None = None,
    first_batch: int = 0,
    whole: bool = False,
) -> Launch:
    """Simulate `steps` steps of a launch at the time `at` of the probe, 0 its begin, 1 its end.

    `costs` are those of the epoch's batches; the launch begins with `first_batch`. A `whole` epoch
    is the run itself.
    """
    pace = max(0.3, random.normal(1, scenario.launch_spread))
    pace *= 1 + scenario.slower * min(1.0, at)
    relative = scenario.consumer(random, steps)
    if costs is not None:
        relative = relative * costs[np.arange(first_batch, first_batch + steps) % len(costs)]
    if whole:
        relative = relative * (1 + scenario.slower_later * np.linspace(0, 1, steps))
    consumer = [float(c) for c in pace * relative]
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
        first_batch=first_batch,
        validation_batch_s=validation_s,
        checkpoint_s=checkpoint_s,
        stamps=stamps,
        complete=True,
    )
    after_first_s = total_s - delivered[0]
    rest_s = restart_s + teardown_s + sum(validation_s) + checkpoint_s[0]
    return Launch(measurement, load, after_first_s + rest_s)


def run_seed(scenario: Scenario, launches: int, seed: Sequence[int]) -> Outcome:
    """Probe, project, and run the epoch; the probe launches another cell first, and again last."""
    random = np.random.default_rng(seed)
    cycle = max(1, scenario.workers)
    steps = scenario.steps + max(1, scenario.workers * scenario.prefetch)
    costs = None if scenario.content is None else scenario.content(random, BATCHES)
    probed = [
        launch(
            scenario, random, at=(i + 1) / (launches + 1), steps=steps, costs=costs,
            first_batch=_first_batch(i + 1, steps) if scenario.spread else 0,
        )
        for i in range(launches)
    ]  # fmt: skip
    sizes = RunSizes(epochs=1, train_batches=BATCHES, validation_batches=VALIDATION_BATCHES)
    loads = [one.load for one in probed if one.load is not None and scenario.stamped]
    measured = [one.measurement for one in probed]
    spread = learned_spread(_pairs(scenario, random, launches), SHIPPED)
    samples = [sample_of_measurement(one.measurement, cycle) for one in probed]
    first, last = (
        sample_of_measurement(
            launch(scenario, random, at=at, steps=steps, costs=costs).measurement, cycle
        )
        for at in (0.0, 1.0)
    )
    assert first is not None
    assert last is not None
    projection = project(
        measured, sizes, loads=loads, cycle=cycle, peers=[[first, last]], spread=spread
    )
    assert projection is not None
    others = [
        Launched(at=(i + 1) / (launches + 1), sample=sample)
        for i, sample in enumerate(samples)
        if sample is not None
    ]
    drift = drift_factor(first, last, [others], spread)
    if drift is not None:
        projection = with_drift(projection, drift)
    flags = list(projection.flags)
    if first_batches_only(measured):
        flags.append(FIRST_ONLY)
    real = launch(scenario, random, at=1.0, steps=BATCHES, costs=costs, whole=True)
    epoch = projection.epoch
    return Outcome(
        low_s=epoch.low, high_s=epoch.high, mean_s=epoch.mean, real_s=real.epoch_s,
        flags=tuple(flags),
    )  # fmt: skip


#: The note that ctrkit adds if it saw no other part of the epoch.
FIRST_ONLY = "first batches only"


def _first_batch(launch: int, steps: int) -> int:
    return min(round(epoch_share(launch) * BATCHES), BATCHES - steps)


def _pairs(scenario: Scenario, random: Random, launches: int) -> list[Pair]:
    """Earlier projections of this workload and their real epochs, each from as many launches."""
    error = scenario.launch_spread * math.sqrt(1 + 1 / launches)
    return [
        Pair(projected_s=1.0, actual_s=math.exp(random.normal(0, error)), launches=launches,
             is_of_workload=True)
        for _ in range(scenario.pairs)
    ]  # fmt: skip


def called_different(scenario: Scenario, launches: int, seed: Sequence[int]) -> bool:
    """Whether ctrkit calls two equal cells different that were launched in turn."""
    random = np.random.default_rng(seed)
    steps = scenario.steps + max(1, scenario.workers * scenario.prefetch)
    costs = None if scenario.content is None else scenario.content(random, BATCHES)
    times: list[list[LaunchTime]] = [[], []]
    for i in range(2 * launches):
        cell = (0, 1, 1, 0)[i % 4]
        one = launch(scenario, random, at=(i + 1) / (2 * launches + 1), steps=steps, costs=costs)
        sample = sample_of_measurement(one.measurement, max(1, scenario.workers))
        assert sample is not None
        step = mean_interval([sample])
        times[cell].append(LaunchTime(mean_s=step.mean, half_s=step.half))
    ratio = ratio_of(*times)
    return ratio.low > BAND[1] or ratio.high < BAND[0]


def covered(name: str, launches: int, seeds: range) -> dict[str, object]:
    """A row of the table: one scenario over many seeds."""
    index, scenario = next((i, s) for i, s in enumerate(SCENARIOS) if s.name == name)
    outcomes = [run_seed(scenario, launches, [seed, index, launches]) for seed in seeds]
    plain = [o for o in outcomes if not o.flags]
    flagged = [o for o in outcomes if o.flags]
    flags = sorted({flag for o in outcomes for flag in o.flags})
    different = [called_different(scenario, launches, [seed, index, launches, 7]) for seed in seeds]
    return {
        "scenario": name,
        "launches": launches,
        "seeds": len(seeds),
        "unflagged": len(plain),
        "coverage_unflagged": _held(plain),
        "coverage_flagged": _held(flagged),
        "coverage_all": _held(outcomes),
        "median_half": statistics.median(o.relative_half for o in outcomes),
        "open_above": sum(math.isinf(o.high_s) for o in outcomes) / len(outcomes),
        "median_error": statistics.median(abs(o.mean_s / o.real_s - 1) for o in outcomes),
        "bias": statistics.fmean(o.mean_s / o.real_s - 1 for o in outcomes),
        "flagged": {f: sum(f in o.flags for o in outcomes) / len(outcomes) for f in flags},
        "called_different": sum(different) / len(different),
    }


def _held(outcomes: Sequence[Outcome]) -> float | None:
    return sum(o.held for o in outcomes) / len(outcomes) if outcomes else None


def table(rows: Sequence[dict[str, object]], first_seed: int) -> str:
    """The results as Markdown."""

    def share(value: object) -> str:
        return "" if value is None else f"{float(str(value)):.1%}"

    lines = [
        "# Coverage of the projected epoch in simulation", "",
        f"{STEPS} steps a launch ({FEW_STEPS} where batches differ in cost), epochs of {BATCHES}, "
        f"{rows[0]['seeds']} seeds from {first_seed} on; all rows are shown. Half-widths and "
        "errors are relative to the projection and to the epoch; *open* intervals are bounded from "
        "below only. The aim is 90 % where nothing is flagged and 80 % where something is; a share "
        f"of less than {LEAST_SHOWN:.0%} of the runs is shown and not held to it.", "",
        "Flagged is what carries any flag of the projection, or the note that only the first "
        "batches were seen. Fewer than three launches are always `provisional`, so every row of "
        "one or two launches is held to 80 %, not to 90.", "",
        "| scenario | launches | flagged | held, unflagged | held, flagged | held, all | median "
        "half-width | open | median error | bias | flags | null test: called different |",
        "| --- " * 12 + "|",
    ]  # fmt: skip
    for row in rows:
        flagged = row["flagged"]
        assert isinstance(flagged, dict)
        seeds, unflagged = int(str(row["seeds"])), int(str(row["unflagged"]))
        half = float(str(row["median_half"]))
        lines.append(
            f"| {row['scenario']} | {row['launches']} | {1 - unflagged / seeds:.1%} |"
            f" {share(row['coverage_unflagged'])} | {share(row['coverage_flagged'])} |"
            f" {share(row['coverage_all'])} |"
            f" {'open' if math.isinf(half) else f'{half:.1%}'} | {share(row['open_above'])} |"
            f" {share(row['median_error'])} | {float(str(row['bias'])):+.1%} |"
            f" {', '.join(f'{f} {share(s)}' for f, s in flagged.items())} |"
            f" {share(row['called_different'])} |"
        )
    held = sum(float(str(r["coverage_unflagged"] or 0)) * int(str(r["unflagged"])) for r in rows)
    plain = sum(int(str(r["unflagged"])) for r in rows)
    of_all = f"{held / plain:.1%} of {plain}" if plain else "none of 0"
    lines += ["", f"All rows together: {of_all} unflagged intervals held.", ""]
    lines += ["Below the aim:", "", *(misses(rows) or ["nothing"])]
    return "\n".join(lines) + "\n"


AIM_UNFLAGGED, AIM_FLAGGED, LEAST_SHOWN = 0.9, 0.8, 0.1
#: Why a scenario cannot reach its aim, by the beginning of its name.
REASONS = {
    "stalls": "a stall that did not come within the steps seen cannot be foretold; the report says "
    "how rare one must be to have been missed",
    "launches": "launches that happen to agree look like launches that always do; the report says "
    "what is assumed of them until pairs of the machine tell",
    "slower by": "a probe cannot see what begins after it; the report says that the projection is "
    "for a machine otherwise as it was",
    "sorted": "60 batches at the begin of 1,200, over which steps get slower by less than they "
    "scatter; the report says that only those were seen",
    "bursts": "where no burst came within the steps seen, none can be foretold; the report says "
    "how rare one must be to have been missed",
    "two regimes": "launches that all fell into one regime cannot tell of the other",
}


def misses(rows: Sequence[dict[str, object]]) -> list[str]:
    """The rows below the aim, each with its reason where one is known."""
    found = []
    for row in rows:
        seeds, plain = int(str(row["seeds"])), int(str(row["unflagged"]))
        below = [
            f"{float(str(share)):.1%} of {count} {kind}"
            for kind, share, count, aim in (
                ("unflagged", row["coverage_unflagged"], plain, AIM_UNFLAGGED),
                ("flagged", row["coverage_flagged"], seeds - plain, AIM_FLAGGED),
            )
            if share is not None and count >= LEAST_SHOWN * seeds and float(str(share)) < aim
        ]
        if below:
            name = str(row["scenario"])
            why = next((text for begin, text in REASONS.items() if name.startswith(begin)), "")
            words = f"- {name}, {row['launches']} launches: {' and '.join(below)} held"
            if plain and "unflagged" in below[0]:
                missed = (1 - float(str(row["coverage_unflagged"]))) * plain / seeds
                words += f" ({missed:.1%} of all runs missed without a flag)"
            found.append(f"{words}: {why}" if why else words)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=1_000_000, help="held out by default")
    parser.add_argument("--only", default="", help="scenarios whose names begin so")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    chosen = [s for s in SCENARIOS if s.name.startswith(options.only)]
    jobs = [(s.name, n) for s in chosen for n in s.launches]
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
