"""Elasticities of an epoch's time to each stage, and what removing a stage would leave.

The epoch is replayed from measured parts: a start-up (the workers' start, and the end of the
previous epoch), the loader's service, the messages that the main process takes, and the step. The
elasticity of a time T to a stage is the relative change of T per relative change of that stage,
here as an arc from half of the stage to one and a half times (Allen & Lerner 1934). So two stages
that run in parallel and differ by only a few percent both count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell
from ctrkit.measure.loads import load_of
from ctrkit.measure.replay import THREAD_QUEUE, Load, replay_epoch
from ctrkit.measure.steps import mean_step_s, mean_wait_s, stage_means_s, step_times_s, waits_s

STARTUP = "startup"
MAKING = ("fetch", "collate")
FETCHING = (*MAKING, "ipc")
STEPPING = ("transfer", "forward", "backward", "optimizer")
#: What a loop does in a step beside these stages, such as logging and metrics.
OTHER = "other"
#: Below this share of the step, time beside the stages counts for all of them.
_LEAST_OTHER = 0.1
_ARC = 0.5
#: So many batches are replayed; the rest of a longer epoch continues at the pace reached.
_MOST_REPLAYED = 600
_CONSUMER_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class EpochModel:
    """An epoch of a cell as replay models it.

    Args:
        load: service, steps and messages, as measured.
        batches: batches of the epoch.
        startup_s: seconds before the loader begins, once per epoch.
        making: shares of the service by stage (`ipc` is the pickling); they sum to 1.
        stepping: shares of the step by stage; they sum to 1.
        measured_step_s: measured mean step, including waiting.
        has_loader_stages: whether the loader's stages were measured, not only waiting for them.
    """

    load: Load
    batches: int
    startup_s: float
    making: Mapping[str, float]
    stepping: Mapping[str, float]
    measured_step_s: float
    has_loader_stages: bool

    def epoch_s(
        self,
        *,
        service_x: float = 1.0,
        consumer_x: float = 1.0,
        message_x: float = 1.0,
        startup_x: float = 1.0,
    ) -> float:
        """Seconds of the epoch with its parts scaled."""
        load = replace(self.load, overhead_s=self.load.overhead_s * message_x)
        count = min(self.batches, max(_MOST_REPLAYED, 8 * load.workers * load.prefetch))
        epoch = replay_epoch(load, count, service_x=service_x, consumer_x=consumer_x)
        rest_s = (self.batches - count) * _pace_s(epoch.delivered_s, load.workers)
        return self.startup_s * startup_x + epoch.total_s + rest_s

    def steady_step_s(self) -> float:
        """Mean step after the batches made ahead have been used up."""
        count = max(64, 8 * self.load.workers * self.load.prefetch)
        return _pace_s(replay_epoch(self.load, count).delivered_s, self.load.workers)

    def loader_step_s(self) -> float:
        """Seconds of a step that would only take its batch."""
        count = max(64, 8 * self.load.workers * self.load.prefetch)
        alone = replay_epoch(self.load, count, consumer_x=0.0)
        return _pace_s(alone.delivered_s, self.load.workers)

    @property
    def consumer_s(self) -> float:
        """Mean seconds of a step without waiting."""
        return sum(self.load.consumer_s) / len(self.load.consumer_s)

    def stages(self) -> list[str]:
        """The stages that were measured."""
        found = [*self.making, *(["ipc"] if self.load.overhead_s else []), *self.stepping]
        return list(dict.fromkeys([*found, STARTUP] if self.startup_s > 0 else found))

    def elasticities(self) -> dict[str, float]:
        """Elasticity of the epoch's time to each stage, the largest first.

        Stages of one part scale together, so each gets its share of the part's elasticity.
        """
        whole_s = self.epoch_s()
        if whole_s <= 0:
            return {}
        found = {stage: self._arc("service_x") * share for stage, share in self.making.items()}
        if self.load.overhead_s:
            found["ipc"] = found.get("ipc", 0.0) + self._arc("message_x")
        consumer = self._arc("consumer_x")
        found |= {stage: consumer * share for stage, share in self.stepping.items()}
        if self.startup_s:
            found[STARTUP] = self.startup_s / whole_s
        return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))

    def _arc(self, part: str) -> float:
        more_s, less_s = self.epoch_s(**{part: 1 + _ARC}), self.epoch_s(**{part: 1 - _ARC})
        return max(0.0, (more_s - less_s) / (2 * _ARC * self.epoch_s()))

    def without(self, stage: str) -> float:
        """Seconds of the epoch if this stage took no time."""
        if stage in self.stepping:
            return self.epoch_s(consumer_x=1 - self.stepping[stage])
        if stage == STARTUP:
            return self.epoch_s(startup_x=0.0)
        message_x = 0.0 if stage == "ipc" else 1.0
        return self.epoch_s(service_x=1 - self.making.get(stage, 0.0), message_x=message_x)


def _pace_s(delivered_s: Sequence[float], workers: int) -> float:
    """Mean seconds between deliveries in the second half, over whole rounds of the workers."""
    last, turn = len(delivered_s) - 1, max(1, workers)
    steps = max(1, last // 2 // turn) * turn
    return (delivered_s[-1] - delivered_s[last - steps]) / steps if last >= steps else 0.0


def epoch_model(
    cell: Cell,
    launches: Sequence[Measurement],
    *,
    also: Sequence[Measurement] = (),
    batches: int | None = None,
    loader_step_s: float | None = None,
) -> EpochModel | None:
    """The model of a cell that was really run; None if no step was measured.

    Args:
        cell: the configuration.
        launches: its launches.
        also: trials that tell the stages of the same step, if the launches do not.
        batches: batches of an epoch; None leaves its start-up out.
        loader_step_s: seconds per batch of its loader alone, for a loader beside the step whose own
            stages were not measured.
    """
    steps = [s for s in map(mean_step_s, launches) if s is not None]
    if not steps:
        return None
    step_s, wait_s = sum(steps) / len(steps), _mean(list(map(mean_wait_s, launches))) or 0.0
    wait_s = min(wait_s, step_s)
    stages, sending_s = stage_means_s(launches), _mean(list(map(_sending_s, launches))) or 0.0
    service_s, making = _service(cell, stages, sending_s, wait_s, loader_step_s)
    beside = cell.loads_ahead and service_s is not None
    load = _pooled([load_of(m, cell) for m in launches]) or Load(
        service_s=[service_s if beside and service_s is not None else wait_s],
        consumer_s=_consumer_s(launches, step_s - wait_s),
        workers=0 if not beside else max(1, cell.workers),
        prefetch=THREAD_QUEUE + 1 if cell.loader == "thread" else cell.prefetch or 1,
        overhead_s=max(0.0, stages.get("ipc", 0.0) - sending_s) if cell.workers else 0.0,
        pinned=cell.pin,
    )
    return EpochModel(
        load=load,
        batches=batches or max(64, 8 * load.workers * load.prefetch),
        startup_s=_startup_s(launches, load) if batches else 0.0,
        making=making,
        stepping=_stepping(stages, stage_means_s(also), step_s - wait_s),
        measured_step_s=step_s,
        has_loader_stages=any(stage in stages for stage in MAKING),
    )


def _pooled(loads: Sequence[Load | None]) -> Load | None:
    """The batches of all launches, one after the other; None unless each can be replayed.

    The workers' start is left out, since an epoch model has it separately.
    """
    known = [load for load in loads if load is not None]
    if not known or len(known) < len(loads):
        return None
    first = known[0]
    service_s = [s for load in known for s in load.service_s[load.first_batches :]]
    return replace(
        first,
        service_s=service_s or first.service_s,
        consumer_s=[s for load in known for s in load.consumer_s[1:] or load.consumer_s],
        overhead_s=sum(load.overhead_s for load in known) / len(known),
        ready_s=0.0,
        first_batches=0,
    )


def _sending_s(measurement: Measurement) -> float | None:
    """Mean seconds that a worker took to pickle a batch, from its stamps."""
    stamps = measurement.stamps
    columns = zip(stamps.window, stamps.worker, stamps.collate_end_s, stamps.sent_s, strict=False)
    return _mean(
        [
            max(0.0, sent_s - made_s)
            for window, worker, made_s, sent_s in columns
            if window == "throughput"
            and worker is not None
            and made_s is not None
            and sent_s is not None
        ]
    )


def _service(
    cell: Cell,
    stages: Mapping[str, float],
    sending_s: float,
    wait_s: float,
    loader_step_s: float | None,
) -> tuple[float | None, dict[str, float]]:
    """Seconds to make a batch, and the stages' shares of that.

    The seconds are None if nothing measured them: then only the waiting is known, and it is called
    `fetch`.
    """
    making = {stage: stages[stage] for stage in MAKING if stages.get(stage, 0.0) > 0}
    made_s = sum(making.values())
    if made_s > 0:
        if cell.workers and sending_s > 0:
            making["ipc"] = sending_s
            made_s += sending_s
        if not cell.loads_ahead and wait_s > made_s:  # such as the sampler's time
            making["fetch"] = making.get("fetch", 0.0) + wait_s - made_s
            made_s = wait_s
        return made_s, {stage: seconds / made_s for stage, seconds in making.items()}
    if cell.loads_ahead and loader_step_s:
        return loader_step_s * max(1, cell.workers), {"fetch": 1.0}
    return None, {"fetch": 1.0} if wait_s > 0 else {}


def _consumer_s(launches: Sequence[Measurement], mean_s: float) -> list[float]:
    """Steps without waiting, one after the other, scaled to this mean."""
    found: list[float] = []
    for measurement in launches:
        waits, times = waits_s(measurement.stamps), step_times_s(measurement)
        found += [max(0.0, t - w) for t, w in zip(times, waits, strict=True)]
    found = found[:_CONSUMER_STEPS]
    if not found or sum(found) <= 0:
        return [max(0.0, mean_s)]
    factor = max(0.0, mean_s) * len(found) / sum(found)
    return [seconds * factor for seconds in found]


def _stepping(
    own: Mapping[str, float], other: Mapping[str, float], consumer_s: float
) -> dict[str, float]:
    """Shares of the step by stage; all `compute` if no stages were measured.

    Only a launch's own stages show how much of its step they leave to something else.
    """
    is_own = any(stage in own for stage in STEPPING)
    stages = own if is_own else other
    known = {stage: stages[stage] for stage in STEPPING if stages.get(stage, 0.0) > 0}
    whole_s = sum(known.values())
    if is_own and whole_s > 0 and consumer_s - whole_s > _LEAST_OTHER * consumer_s:
        known[OTHER] = consumer_s - whole_s
        whole_s = consumer_s
    if whole_s > 0:
        return {stage: seconds / whole_s for stage, seconds in known.items()}
    return {"compute": 1.0} if consumer_s > 0 else {}


def _startup_s(launches: Sequence[Measurement], load: Load) -> float:
    """Seconds of an epoch besides its batches: the loader's start, and its end."""
    restart_s = _mean([m.restart_s for m in launches])
    if restart_s is None:
        restart_s = _mean([m.first_batch_s for m in launches])
    first_s = sum(load.service_s) / len(load.service_s) + load.overhead_s
    return max(0.0, (restart_s or 0.0) - first_s) + (_mean([m.teardown_s for m in launches]) or 0.0)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
