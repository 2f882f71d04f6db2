import pytest

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import RunSizes, make_cell
from ctrkit.probe.cell_failures import failure_of
from ctrkit.probe.cell_results import costs_of
from ctrkit.probe.predict import nearest_loader, predict, service_of, sizes_for
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult


def alone(kind, cell, step_s, *, cpu_s=None, verdict="ok", **fields):
    measurement = Measurement(
        kind=kind, startup_s=4.0, throughput_s=step_s * 10, throughput_steps=10,
        cpu_s=None if cpu_s is None else cpu_s * 10, **fields,
    )  # fmt: skip
    return Trial(
        request=TrialRequest(kind=kind, cell=cell),
        result=TrialResult(verdict=verdict, reason="why", measurement=measurement),
        launch=1,
    )


def cell(workers=0, loader="batches", **axes):
    return make_cell(loader=loader, workers=workers, **({"threads": 2} | axes))


def predicted_step_s(inspection, target, *trials, cores=8):
    return predict(target, trials, inspection(), cores).step.mean


@pytest.mark.parametrize(
    ("workers", "mean"),
    [(0, 1.5), (1, 1.0), (2, 1.0)],
)
def test_a_light_loader_hides_behind_the_step(inspection, workers, mean):
    trials = [alone("compute", cell(), 1.0), alone("loader", cell(0), 0.5)]
    assert predicted_step_s(inspection, cell(workers), *trials) == pytest.approx(mean)


def test_a_heavy_loader_is_divided_among_its_workers(inspection):
    trials = [alone("compute", cell(), 1.0), alone("loader", cell(0), 6.0)]
    assert predicted_step_s(inspection, cell(2), *trials) == pytest.approx(3.0)
    assert predicted_step_s(inspection, cell(4), *trials) == pytest.approx(1.5)


def test_its_own_worker_count_beats_what_others_suggest(inspection):
    trials = [
        alone("compute", cell(), 1.0),
        alone("loader", cell(0), 6.0),
        alone("loader", cell(2), 5.0),  # two workers hardly gain: they stand in each other's way
    ]
    assert predicted_step_s(inspection, cell(2), *trials) == pytest.approx(5.0)


def test_a_thread_reads_ahead_like_one_worker(inspection):
    thread = cell(loader="thread")
    trials = [alone("compute", cell(), 1.0), alone("loader", thread, 0.75)]
    assert predicted_step_s(inspection, thread, *trials) == pytest.approx(1.0)


def test_on_the_cpu_loader_and_step_share_the_cores(inspection):
    trials = [
        alone("compute", cell(), 1.0, cpu_s=2.0),
        alone("loader", cell(0), 0.5, cpu_s=0.5),
    ]
    assert predicted_step_s(inspection, cell(2), *trials, cores=2) == pytest.approx(1.25)
    assert predicted_step_s(inspection, cell(2), *trials, cores=8) == pytest.approx(1.0)
    device = cell(2, device="mps")
    trials[0] = alone("compute", cell(device="mps"), 1.0, cpu_s=2.0)
    assert predicted_step_s(inspection, device, *trials, cores=2) == pytest.approx(1.0)


def test_without_both_ceilings_there_is_no_prediction(inspection):
    compute, loader = alone("compute", cell(), 1.0), alone("loader", cell(0), 0.5)
    assert predict(cell(), [compute], inspection(), 2) is None
    assert predict(cell(), [loader], inspection(), 2) is None
    failed = alone("compute", cell(), 1.0, verdict="crashed")
    assert predict(cell(), [failed, loader], inspection(), 2) is None
    other = cell(batch_size=512)
    assert predict(other, [compute, loader], inspection(), 2) is None


def test_a_prediction_projects_the_run_and_says_how_unsure_it_is(inspection):
    compute = alone(
        "compute", cell(), 1.0, validation_batch_s=[0.5], checkpoint_s=[2.0], complete=True
    )
    loader = alone("loader", cell(0), 0.5, restart_s=3.0)
    projection = predict(cell(), [compute, loader], inspection(), 8).projection
    means = {name: term.mean for name, term in projection.terms.items()}
    assert means["training"] == pytest.approx(15 * (514 * 1.5 - 0.5))
    assert means["restart"] == pytest.approx(15 * 3)
    assert means["validation"] == pytest.approx(15 * 111 * 0.5)
    assert projection.flags == ["provisional", "low confidence"]


def test_a_resident_loader_is_measured_on_its_own_device(inspection):
    here = cell(loader="resident", device="mps")
    there = alone("loader", cell(loader="resident"), 0.5)
    assert nearest_loader(here, [there]) is None


def test_sizes_follow_the_batch_size(inspection):
    assert sizes_for(inspection(), 2048).train_batches == 514
    sizes = sizes_for(inspection(), 1000)
    assert (sizes.train_batches, sizes.validation_batches) == (1053, 226)
    counted = inspection(sizes=RunSizes(epochs=2, train_batches=10))
    assert sizes_for(counted, 1024).train_batches == 20
    assert sizes_for(inspection(sizes=None), 512) is None
    assert sizes_for(inspection(sizes=RunSizes(epochs=2)), 512).train_batches is None


def test_costs_are_what_trials_have_shown(inspection):
    workers = cell(2)
    compute = alone("compute", cell(), 2.0, validation_batch_s=[0.5, 0.7], checkpoint_s=[1.0, 3.0])
    loader = alone("loader", workers, 0.1, first_batch_s=6.0)
    costs = costs_of(workers, [compute, loader], inspection(), 2)
    assert costs.launch_s == 4.5
    assert costs.workers_s == 6.0
    assert costs.step_s == pytest.approx(2.0)
    assert costs.validation_batch_s == pytest.approx(0.6)
    assert costs.checkpoint_s == 3.0
    assert costs_of(workers, [], inspection(), 2).step_s == 0.0


def test_a_cell_fails_with_its_parts_and_not_with_those_of_others():
    step = alone("compute", cell(), 1.0, verdict="out-of-memory")
    loader = alone("loader", cell(2), 1.0, verdict="deadlock")
    assert "training step, run alone, failed (out-of-memory)" in failure_of(cell(4), [step])
    assert failure_of(cell(4, device="mps"), [step]) is None
    assert "loader, run alone, failed (deadlock)" in failure_of(cell(2, device="mps"), [loader])
    assert failure_of(cell(0), [loader]) is None
    cut = alone("compute", cell(), 1.0, verdict="skipped")
    assert failure_of(cell(), [cut]) is None


def test_more_workers_than_cores_are_not_promised_to_help(inspection):
    trials = [
        alone("compute", cell(device="mps"), 0.1),
        alone("loader", cell(0), 4.0, cpu_s=4.0),
        alone("loader", cell(4), 1.0, cpu_s=4.0),
    ]
    four, eight = (cell(w, device="mps") for w in (4, 8))
    assert predicted_step_s(inspection, four, *trials, cores=4) == pytest.approx(1.0)
    assert predicted_step_s(inspection, eight, *trials, cores=4) == pytest.approx(1.0)


def test_workers_that_mostly_wait_help_beyond_the_cores(inspection):
    trials = [
        alone("compute", cell(device="mps"), 0.1),
        alone("loader", cell(0), 4.0, cpu_s=0.0),
        alone("loader", cell(4), 1.0, cpu_s=0.0),
    ]
    eight = cell(8, device="mps")
    assert predicted_step_s(inspection, eight, *trials, cores=4) == pytest.approx(0.5)


def test_two_counts_tell_the_contention_of_a_third(inspection):
    # 1 s of waiting and 1 s of processor: 4 workers on 2 cores take 1 + 2, 8 take 1 + 4
    trials = [
        alone("compute", cell(device="mps"), 0.01),
        alone("loader", cell(0), 2.0),
        alone("loader", cell(4), 3.0 / 4),
    ]
    assert service_of(cell(8, device="mps"), trials, 2) == pytest.approx(5.0)
    assert service_of(cell(4), trials, 2) == pytest.approx(3.0)
    assert service_of(cell(2), [], 2) is None


def test_a_cell_that_was_run_corrects_those_like_it(inspection):
    full = alone("full", cell(2), 1.5)
    trials = [alone("compute", cell(), 1.0), alone("loader", cell(0), 0.5), full]
    assert predicted_step_s(inspection, cell(4), *trials) == pytest.approx(1.5)
    assert predicted_step_s(inspection, cell(0), *trials) == pytest.approx(1.5), "0.5 + 1.0"
    other = [*trials, alone("loader", cell(0, loader="rows"), 0.5)]
    assert predicted_step_s(inspection, cell(4, loader="rows"), *other) == pytest.approx(1.0)


def test_spawned_workers_cost_their_start_in_every_epoch_and_those_that_persist_once(inspection):
    trials = [
        alone("compute", cell(), 1.0),
        alone("loader", cell(2), 0.1, first_batch_s=3.0, restart_s=3.0),
    ]

    def restart_s(target):
        return predict(target, trials, inspection(), 8).projection.terms["restart"].mean / 15

    assert restart_s(cell(4)) == pytest.approx(3.0)
    assert restart_s(cell(4, start_method="fork")) < 1.0
    assert restart_s(cell(4, persistent=True)) < 0.5
