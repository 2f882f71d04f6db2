"""The limiting stage, from given measurements and from simulated machines."""

import numpy as np
import pytest

from ctrkit.core.child_records import STAGES, Measurement, Stamps
from ctrkit.core.config import RunSizes, make_cell
from ctrkit.measure.diagnosis import Ceilings, diagnose, limiting_stage
from ctrkit.measure.elasticity import epoch_model
from ctrkit.measure.projection import project
from ctrkit.measure.replay import replay

CELL = make_cell(loader="rows", threads=2)
WORKERS = make_cell(loader="rows", threads=2, workers=2)
COMPUTE = {"forward": [0.25] * 20, "backward": [0.7] * 20, "optimizer": [0.05] * 20}
SLOWED = {stage: [1.5 * s for s in seconds] for stage, seconds in COMPUTE.items()}


def launch(measured, step_s, wait_s, **fields):
    return measured([step_s] * 20, wait_s=wait_s, **fields)


@pytest.mark.parametrize(
    ("elasticity", "named"),
    [
        ({"a": 0.5, "b": 0.33}, "a"),
        ({"a": 0.5, "b": 0.34}, "balanced"),
        ({"a": 0.49, "b": 0.2}, "balanced"),
        ({"a": 0.7, "b": 0.46}, "a"),
        ({"a": 0.3}, "a"),
        ({"a": 0.2, "b": 0.0}, "a"),
    ],
)
def test_the_rule_that_names_a_stage(elasticity, named):
    assert limiting_stage(elasticity) == named


def test_a_loader_that_limits_is_named_with_what_its_removal_is_worth(measured):
    runs = [launch(measured, 4.0, 3.0, stages=COMPUTE)] * 2
    (finding,) = diagnose(CELL, runs, Ceilings(compute_step_s=1.0, loader_step_s=3.0))
    assert finding.stage == "fetch"
    assert finding.share == pytest.approx(0.75)
    assert finding.worth_x == pytest.approx(4.0)
    assert finding.confidence == "high"
    assert "--loader" in finding.text
    assert "could not be told apart" in finding.text
    assert "If reading the data (fetch) took no time, a step would be 4x faster" in finding.text


@pytest.mark.parametrize("slow", ["fetch", "collate"])
def test_the_wait_goes_by_the_stage_that_makes_it(measured, slow):
    stages = COMPUTE | {"fetch": [0.1], "collate": [0.1]} | {slow: [2.9]}
    (finding,) = diagnose(CELL, [launch(measured, 4.0, 3.0, stages=stages)], Ceilings())
    assert finding.stage == slow
    assert finding.share == pytest.approx(2.9 / 4)
    assert "told apart" not in finding.text


@pytest.mark.parametrize("stage", ["transfer", "forward", "backward", "optimizer"])
def test_a_stage_of_the_step_that_limits_is_named(measured, stage):
    stages = {s: [0.1] for s in ("transfer", "forward", "backward", "optimizer")} | {stage: [1.0]}
    run = launch(measured, 1.3, 0.01, stages=stages)
    finding = diagnose(CELL, [run], Ceilings(compute_step_s=1.29, loader_step_s=0.013))[0]
    assert finding.stage == stage
    assert finding.text.startswith(
        "Data loading is not the bottleneck: a step waits 0.8 % of its time for data"
    )
    assert "100x" in finding.text
    assert f"{stage}" in finding.text.split(". ")[1]
    assert "took no time, a step would be 4.2x faster" in finding.text


def test_halves_are_balanced(measured):
    stages = {"forward": [0.1], "backward": [1.0], "optimizer": [0.05]}
    finding = diagnose(CELL, [launch(measured, 2.3, 1.15, stages=stages)], Ceilings())[0]
    assert finding.stage == "balanced"
    assert "fetch" in finding.text
    assert "backward" in finding.text
    assert finding.worth_x is None


def test_halves_of_the_step_are_no_reason_to_speak_of_the_loader(measured):
    stages = {"forward": [1.0], "backward": [1.0]}
    finding = diagnose(CELL, [launch(measured, 2.0, 0.0, stages=stages)], Ceilings())[0]
    assert finding.stage == "balanced"
    assert "Data loading is not the bottleneck" in finding.text


def test_the_step_slowed_by_its_own_loader_is_a_finding(measured):
    run = launch(measured, 1.5, 0.0, stages=SLOWED)
    found = diagnose(WORKERS, [run, run], Ceilings(compute_step_s=1.0, loader_step_s=0.5))
    assert [f.stage for f in found] == ["backward", "contention"]
    assert found[1].worth_x == pytest.approx(1.5)
    assert found[0].confidence == "low", "the ceiling does not confirm the shares"


def test_a_slower_step_with_nothing_beside_it_is_unexplained(measured):
    run = launch(measured, 1.5, 0.0, stages=SLOWED)
    found = diagnose(CELL, [run, run], Ceilings(compute_step_s=1.0))
    assert [f.stage for f in found] == ["backward", "unexplained"]
    assert found[1].share == pytest.approx(1 / 3)
    assert "33 %" in found[1].text


def test_what_a_loop_does_beside_the_stages_is_not_counted_as_one_of_them(measured):
    """A loop that logs for 3 s after each optimizer step does not compute for 4 s."""
    runs = [launch(measured, 4.0, 0.0, stages=COMPUTE)] * 2
    (finding,) = diagnose(CELL, runs, Ceilings())
    assert finding.stage == "other"
    assert finding.share == pytest.approx(0.75, abs=0.01)
    assert finding.worth_x == pytest.approx(4.0, rel=0.02)
    model = epoch_model(CELL, runs)
    assert model.stepping["backward"] == pytest.approx(0.7 / 4)
    # stages of another launch cannot show what this one does besides
    elsewhere = epoch_model(CELL, [launch(measured, 4.0, 0.0)], also=runs)
    assert elsewhere.stepping["backward"] == pytest.approx(0.7)


def test_what_its_stages_do_not_make_up_is_unexplained(measured):
    # two workers that make a batch in 0.2 s cannot be what a step waits 0.5 s for
    stages = COMPUTE | {"fetch": [0.2]}
    found = diagnose(WORKERS, [launch(measured, 0.8, 0.5, stages=stages)], Ceilings())
    assert found[0].stage == "unexplained", "most of the step: it is said first"
    assert found[0].share == pytest.approx(1 - 0.3 / 0.8, abs=0.02)
    assert found[1].stage == "backward"


def test_one_launch_or_few_steps_lower_the_confidence(measured):
    ceilings = Ceilings(compute_step_s=1.0)
    many = launch(measured, 1.0, 0.0, stages=COMPUTE)
    few = measured([1.0] * 3, stages=COMPUTE)
    assert diagnose(CELL, [many], ceilings)[0].confidence == "medium"
    assert diagnose(CELL, [many, many], ceilings)[0].confidence == "high"
    assert diagnose(CELL, [few, few], ceilings)[0].confidence == "low"
    assert diagnose(CELL, [many, many], Ceilings())[0].confidence == "medium"


def test_stages_of_the_step_alone_serve_where_the_launch_has_none(measured):
    alone = measured([1.0], kind="compute", stages=COMPUTE)
    finding = diagnose(CELL, [launch(measured, 1.0, 0.0)], Ceilings(), also=[alone])[0]
    assert finding.stage == "backward"


@pytest.mark.parametrize(
    ("axes", "stages", "words"),
    [
        ({"loader": "batches", "workers": 3}, {"fetch": [11.7]}, "3 workers"),
        ({"loader": "batches"}, {}, "--workers"),
        ({"loader": "resident"}, {}, "device"),
        ({"loader": "thread"}, {"fetch": [3.9]}, "One thread"),
        ({"loader": "rows"}, {"collate": [3.9]}, "--loader batches"),
        ({"loader": "batches", "workers": 2}, {"fetch": [0.1], "ipc": [3.9]}, "--workers 0"),
    ],
)
def test_advice_speaks_of_the_configuration_at_hand(measured, axes, stages, words):
    run = launch(measured, 4.0, 3.9, stages=COMPUTE | stages)
    assert words in diagnose(make_cell(**axes), [run], Ceilings())[0].text


def test_a_loader_on_its_own_is_said_to_be_all_there_was(measured):
    run = launch(measured, 0.1, 0.1)
    (finding,) = diagnose(CELL, [run], Ceilings(), has_task=False)
    assert finding.stage == "fetch"
    assert "No training step" in finding.text


def epochs_of(measured, batches, epochs=10, **fields):
    run = launch(measured, 1.0, 0.0, stages=COMPUTE, sizes=RunSizes(epochs=epochs,
                 train_batches=batches), **fields)  # fmt: skip
    return run, project([run], None)


def test_a_slow_start_limits_a_short_epoch_and_not_a_long_one(measured):
    run, short = epochs_of(measured, 5, restart_s=15.0)
    found = diagnose(WORKERS, [run], Ceilings(), projection=short)[0]
    assert found.stage == "startup"
    assert found.share == pytest.approx(0.75, abs=0.01)
    assert found.worth_x == pytest.approx(4.0, abs=0.1)
    assert "--persistent" in found.text
    run, long = epochs_of(measured, 500, restart_s=15.0)
    assert diagnose(WORKERS, [run], Ceilings(), projection=long)[0].stage == "backward"


def test_what_it_is_worth_is_told_in_the_time_of_the_real_run(measured):
    stages = {"forward": [0.1], "backward": [0.9]}
    run = launch(measured, 1.0, 0.0, stages=stages, sizes=RunSizes(epochs=4, train_batches=1000))
    text = diagnose(CELL, [run], Ceilings(), projection=project([run], None))[0].text
    assert "That would save at most 1 h 00 min of the run's 1 h 07 min" in text


def test_nothing_measured_nothing_found():
    assert diagnose(CELL, [Measurement(kind="full")], Ceilings()) == []


# ---- simulated machines: replay makes the stamps -------------------------------------------------


def simulate(cell, seconds, *, batches=150, seed=0, noise=0.2, stamped=False):
    """A launch of a machine whose stages take about so long.

    Half of `ipc` is a worker's pickling, half the main process's. `stamped`: the batches have the
    stamps of their workers, from which their stages are then known.
    """
    random = np.random.default_rng(seed)

    def series(stage):
        return random.gamma(1 / noise**2, seconds.get(stage, 0.0) * noise**2, batches)

    stages = {stage: series(stage) for stage in STAGES if seconds.get(stage)}
    nothing, message_s = np.zeros(batches), seconds.get("ipc", 0.0) / 2
    fetch, collate = stages.get("fetch", nothing), stages.get("collate", nothing)
    service = fetch + collate + (message_s if cell.workers else 0.0)
    consumer = sum((s for n, s in stages.items() if n not in ("fetch", "collate", "ipc")), nothing)
    delivery = replay(
        service.tolist(), consumer.tolist(), workers=cell.workers, prefetch=cell.prefetch or 1,
        overhead_s=message_s,
    )  # fmt: skip
    stamps, begin, sent = Stamps(), batches // 3, []
    for i, delivered_s in enumerate(delivery.delivered_s):
        stamps.epoch.append(1)
        stamps.step.append(i + 1)
        stamps.window.append("throughput" if i >= begin else "warmup")
        stamps.asked_s.append(delivered_s - delivery.wait_s[i])
        stamps.delivered_s.append(delivered_s)
        stamps.done_s.append(delivered_s + consumer[i])
        stamps.rows.append(1)
        if stamped and cell.workers:
            ahead = cell.workers * cell.prefetch
            asked_s = delivery.delivered_s[i - ahead] if i >= ahead else 0.0
            start_s = max(asked_s, sent[i - cell.workers] if i >= cell.workers else 0.0)
            stamps.worker.append(i % cell.workers)
            stamps.fetch_start_s.append(start_s)
            stamps.fetch_end_s.append(start_s + fetch[i])
            stamps.collate_end_s.append(start_s + fetch[i] + collate[i])
            stamps.sent_s.append(start_s + service[i])
            sent.append(start_s + service[i])
    kept = [name for name in stages if not (stamped and name in ("fetch", "collate", "ipc"))]
    return Measurement(
        kind="full", stamps=stamps, throughput_steps=batches - begin,
        throughput_s=stamps.done_s[-1] - stamps.asked_s[begin],
        restart_s=seconds.get("startup", 0.0) + float(service[0]) + message_s,
        stages={name: stages[name][begin:].tolist() for name in kept},
        sizes=RunSizes(epochs=3, train_batches=batches),
    )  # fmt: skip


BASE = {"fetch": 1.0, "collate": 0.3, "ipc": 0.1, "forward": 0.5, "backward": 0.8, "optimizer": 0.3}
INJECTED = ("fetch", "collate", "ipc", "transfer", "forward", "backward", "optimizer", "startup")


def injected(stage, share, workers, batches):
    """Seconds of each stage with so much in one of them that it has this share of the time."""
    beside = stage in ("fetch", "collate")
    lanes = max(1, workers) if beside else 1
    base = {name: s for name, s in BASE.items() if name != "ipc" or workers or stage == "ipc"}
    others = sum(base.values()) - base.get(stage, 0.0)
    needed = others * share / (1 - share) * lanes * (batches if stage == "startup" else 1)
    return base | {stage: needed}


@pytest.mark.parametrize(
    ("workers", "stamped"), [(0, False), (1, False), (4, False), (1, True), (2, True), (4, True)]
)
@pytest.mark.parametrize("stage", INJECTED)
def test_an_injected_delay_is_named(stage, workers, stamped):
    if stage == "ipc" and not workers:
        pytest.skip("without processes nothing is sent")
    cell = make_cell(loader="rows", workers=workers, threads=1)
    wrong = 0
    for seed in range(10):
        batches = 150
        share = 0.65 + 0.03 * seed
        seconds = injected(stage, share, workers, batches)
        run = simulate(cell, seconds, batches=batches, seed=seed, stamped=stamped)
        found = diagnose(cell, [run], Ceilings(), projection=project([run], None))
        wrong += found[0].stage != stage
        assert not [f for f in found if f.stage == "unexplained"]
    assert wrong == 0


def test_stamps_make_the_same_model_as_the_stages(measured):
    cell = make_cell(loader="rows", workers=2, threads=1)
    seconds = BASE | {"fetch": 3.0}
    one, other = (
        epoch_model(cell, [simulate(cell, seconds, stamped=stamped)], batches=150)
        for stamped in (True, False)
    )
    assert one.making["ipc"] == pytest.approx(0.05 / 3.35, abs=0.003), "what pickling takes of it"
    assert one.making["fetch"] == pytest.approx(3 / 3.35, abs=0.02)
    assert other.making["fetch"] == pytest.approx(3 / 3.3, abs=0.02)
    assert one.steady_step_s() == pytest.approx(other.steady_step_s(), rel=0.05)
    assert len(one.load.service_s) > 100, "replayed batch by batch"


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_half_in_the_loader_and_half_in_the_step_is_balanced(workers):
    cell = make_cell(loader="rows", workers=workers, threads=1)
    seconds = {"fetch": max(1, workers) * 1.0, "backward": 1.0}
    for seed in range(10):
        run = simulate(cell, seconds, batches=300, seed=seed, noise=0.1, stamped=bool(seed % 2))
        found = diagnose(cell, [run], Ceilings(), projection=project([run], None))
        assert found[0].stage == "balanced"
        assert "fetch" in found[0].text
        assert "backward" in found[0].text
