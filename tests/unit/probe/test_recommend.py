import dataclasses
from dataclasses import replace

import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes, make_cell
from ctrkit.core.errors import InconclusiveError, NoViableCellError
from ctrkit.core.records import Finding
from ctrkit.measure.projection import project
from ctrkit.measure.statistics import interval
from ctrkit.probe.alternatives import fitting_epochs
from ctrkit.probe.candidates import Candidate, differ, prefer
from ctrkit.probe.matrix import MatrixPlan, build_matrix
from ctrkit.probe.predict import Prediction
from ctrkit.probe.recommend import dataloader_kwargs, recommend
from ctrkit.probe.search import SearchResult
from ctrkit.probe.state import NOT_CHOSEN
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult, not_run_record, record_of

SIZES = RunSizes(epochs=15, train_batches=100)


def candidate(workers, objective, half=0.001, memory=1):
    cell = make_cell(loader="batches", workers=workers)
    return Candidate(
        cell=cell, objective=objective, relative_half=half, peak_rss_bytes=memory,
        projection=None, step=interval(objective, half * objective),
    )  # fmt: skip


def trial(cell, step_s, *, launch=1, verdict="ok", steps=50, sizes=SIZES, memory=1):
    measurement = Measurement(
        kind="full", startup_s=4.0, restart_s=1.0, throughput_s=step_s * steps,
        throughput_steps=steps, throughput_rows=steps * cell.batch_size, checkpoint_s=[1.0],
        sizes=sizes, complete=True,
    )  # fmt: skip
    return Trial(
        request=TrialRequest(kind="full", cell=cell),
        result=TrialResult(
            verdict=verdict, reason="x", measurement=measurement, peak_rss_bytes=memory
        ),
        launch=launch,
    )


def searched(*trials, refused=(), interrupted=False, plan=None):
    cells = tuple(dict.fromkeys(t.cell for t in trials))
    records = [not_run_record(cell, "refused", reason) for cell, reason in refused]
    records += [record_of(t) for t in trials]
    return SearchResult(
        plan=plan or MatrixPlan(cells=cells, refused=tuple(refused)),
        records=tuple(records), trials=tuple(trials), predictions=(), interrupted=interrupted,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratio", "half", "different"),
    [(1.01, 0.001, False), (1.05, 0.001, True), (1.05, 0.05, False), (0.9, 0.01, True)],
)
def test_cells_differ_where_the_interval_of_their_ratio_leaves_the_band(ratio, half, different):
    assert differ(candidate(2, ratio, half), candidate(0, 1.0, half)) is different


def test_of_tied_cells_fewer_workers_then_less_memory():
    cells = [candidate(4, 1.0), candidate(2, 1.01, memory=9), candidate(2, 1.015, memory=3)]
    assert prefer(cells) is cells[2]


def test_a_tie_is_no_licence_for_a_likely_loss():
    far, near = candidate(0, 1.2, half=0.3), candidate(4, 1.0, half=0.3)
    assert not differ(far, near)
    assert prefer([far, near]) is near


def test_a_result_counts_whose_process_did_not_end(inspection):
    cell = make_cell(loader="batches", workers=0)
    recommendation = recommend(searched(trial(cell, 1.0, verdict="shutdown-hang")), inspection())
    assert recommendation.cell == cell
    assert any("did not end" in finding.text for finding in recommendation.findings)


def test_a_cell_that_ends_is_preferred_to_a_faster_one_that_does_not(inspection):
    lingers, ends = (make_cell(loader="batches", workers=w) for w in (0, 2))
    search = searched(trial(lingers, 1.0, verdict="shutdown-hang"), trial(ends, 2.0))
    recommendation = recommend(search, inspection())
    assert recommendation.cell == ends
    assert not any("did not end" in finding.text for finding in recommendation.findings)


def test_the_shortest_projection_wins(inspection):
    cells = [make_cell(loader="batches", workers=w) for w in (0, 2)]
    recommendation = recommend(searched(trial(cells[0], 2.0), trial(cells[1], 1.0)), inspection())
    assert recommendation.cell == cells[1]
    assert recommendation.runner_up == cells[0]
    assert recommendation.tied == []
    assert "1.9" in recommendation.reason
    assert recommendation.projected_total_s == pytest.approx(4 + 15 * (1 + 100 + 1))
    assert recommendation.projected_epoch_s == pytest.approx(102)
    assert recommendation.projected_startup_s == 4.0
    assert recommendation.projected_total_s_low < recommendation.projected_total_s
    assert recommendation.projected_total_s < recommendation.projected_total_s_high


def test_what_cannot_be_told_apart_is_called_tied(inspection):
    cells = [make_cell(loader="batches", workers=w) for w in (0, 2)]
    recommendation = recommend(searched(trial(cells[0], 1.02), trial(cells[1], 1.0)), inspection())
    assert recommendation.cell == cells[0]
    assert recommendation.tied == [cells[1]]
    assert "not measurably different from" in recommendation.reason
    assert cells[1].cell_id in recommendation.reason


def test_a_cell_that_was_cut_serves_only_where_none_came_to_its_end(inspection):
    cells = [make_cell(loader="batches", workers=w) for w in (0, 2)]
    cut = trial(cells[0], 0.5, verdict="skipped")
    assert recommend(searched(cut, trial(cells[1], 1.0)), inspection()).cell == cells[1]
    assert recommend(searched(cut), inspection()).cell == cells[0]
    with pytest.raises(InconclusiveError):
        recommend(searched(trial(cells[0], 0.5, verdict="skipped", steps=0)), inspection())


def test_fewer_epochs_and_a_deadline_are_options_with_their_times(inspection):
    one = searched(trial(make_cell(), 1.0))
    options = recommend(one, inspection(), deadline_s=600.0).options
    epoch_s = 102.0
    assert [o.text for o in options] == [
        "4 of 15 epochs fit into 10 min 00 s (--epochs 4)",
        "7 of 15 epochs (--epochs 7)",
        "5 of 15 epochs (--epochs 5)",
    ]
    assert [o.projected_total_s for o in options] == [
        pytest.approx(4 + n * epoch_s) for n in (4, 7, 5)
    ]


def test_without_a_number_of_epochs_no_run_is_projected_and_it_is_said_why(inspection):
    sizes = RunSizes(train_batches=100)
    slow, fast = make_cell(loader="rows"), make_cell()
    trials = [trial(cell, s, launch=n, sizes=sizes)
              for cell, s in ((slow, 0.2), (fast, 0.1)) for n in (1, 2)]  # fmt: skip
    found = recommend(searched(*trials), inspection(sizes=sizes), deadline_s=600)
    assert found.cell == fast
    assert found.projected_epoch_s == pytest.approx(100 * 0.1 + 2, rel=0.1)
    assert (found.projected_total_s, found.projected_total_s_low) == (None, None)
    assert "projected time of an epoch" in found.reason
    (why,) = [f.text for f in found.findings if f.stage == "run"]
    assert "ctrkit does not know how many epochs the run has" in why
    assert "--epochs N" in why
    (option,) = found.options
    assert "epochs fit into 10 min 00 s (--epochs" in option.text


@pytest.mark.parametrize(
    ("deadline_s", "words"), [(1e6, "all 15 epochs fit"), (30.0, "not one epoch fits")]
)
def test_a_deadline_that_all_or_nothing_fits(inspection, deadline_s, words):
    option = recommend(
        searched(trial(make_cell(), 1.0)), inspection(), deadline_s=deadline_s
    ).options[0]
    assert words in option.text


def test_epochs_fit_by_the_upper_bound():
    projection = project([trial(make_cell(), 1.0).result.measurement], SIZES)
    fitting = fitting_epochs(projection, 600.0)
    assert projection.startup.high + fitting * projection.epoch.high <= 600.0
    assert projection.startup.high + (fitting + 1) * projection.epoch.high > 600.0


def test_a_first_epoch_that_is_longer_counts_for_the_deadline():
    projection = project([trial(make_cell(), 1.0).result.measurement], SIZES)
    fitting = fitting_epochs(projection, 600.0)
    longer = replace(projection, first_epoch=projection.epoch.scaled(2))
    assert fitting_epochs(longer, 600.0) == fitting - 1
    assert fitting_epochs(longer, 1.5 * projection.epoch.high) == 0


def test_several_batch_sizes_come_with_the_words(inspection):
    small, large = make_cell(batch_size=512), make_cell(batch_size=2048)
    sizes = RunSizes(epochs=15, train_batches=400)
    result = searched(trial(small, 1.0, sizes=sizes), trial(large, 1.0))
    recommendation = recommend(result, inspection())
    assert recommendation.cell == large
    assert "convergence at another batch size was not measured" in recommendation.reason
    assert any(f.stage == "batch size" for f in recommendation.findings)
    alone = recommend(searched(trial(small, 1.0, sizes=sizes)), inspection())
    assert "convergence" in alone.reason
    assert "convergence" not in recommend(searched(trial(large, 1.0)), inspection()).reason


def test_the_only_cell_of_a_matrix_is_said_to_be_that(inspection):
    assert (
        "only configuration to try"
        in recommend(searched(trial(make_cell(), 1.0)), inspection()).reason
    )


def test_findings_of_the_host_are_kept(inspection):
    swapping = Finding(stage="host", share=None, worth_x=None, text="swaps", confidence="high")
    result = searched(trial(make_cell(), 1.0))
    assert recommend(result, inspection(), host_findings=[swapping]).findings[-1] == swapping


def test_every_cell_failed_or_refused_names_the_reasons(inspection):
    broken = trial(make_cell(loader="rows"), 1.0, verdict="crashed")
    refused = (make_cell(loader="batches", workers=2, start_method="fork"), "hangs")
    with pytest.raises(NoViableCellError) as raised:
        recommend(searched(broken, refused=[refused]), inspection())
    assert "crashed: x" in str(raised.value)
    assert "refused: hangs" in str(raised.value)
    assert raised.value.exit_code == 4


def test_a_matrix_of_refused_rows_only_is_not_viable(inspection):
    plan = build_matrix(inspection(), {"workers": (2,), "loader": ("thread",)}, cores=2)
    with pytest.raises(NoViableCellError, match="no worker processes"):
        recommend(searched(refused=plan.refused, plan=plan), inspection())


def test_a_cell_without_time_makes_it_inconclusive(inspection):
    broken = trial(make_cell(loader="rows"), 1.0, verdict="crashed")
    plan = MatrixPlan(cells=(broken.cell, make_cell(loader="thread")))
    with pytest.raises(InconclusiveError, match=r"--budget .*crashed") as raised:
        recommend(searched(broken, plan=plan), inspection())
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    ("axes", "kwargs"),
    [
        (
            {"loader": "thread", "batch_size": 512},
            {"batch_size": 512, "num_workers": 0, "pin_memory": False},
        ),
        (
            {"loader": "batches", "workers": 2, "prefetch": 4, "persistent": True, "pin": True,
             "device": "cuda", "start_method": "forkserver"},
            {"batch_size": 2048, "num_workers": 2, "pin_memory": True, "prefetch_factor": 4,
             "persistent_workers": True, "multiprocessing_context": "forkserver"},
        ),
    ],
)  # fmt: skip
def test_dataloader_kwargs_match_the_cell(axes, kwargs):
    assert dataloader_kwargs(make_cell(**axes)) == kwargs


def test_an_interrupt_before_anything_was_measured_says_so(inspection):
    with pytest.raises(InconclusiveError, match="interrupted"):
        recommend(dataclasses.replace(searched(), interrupted=True), inspection())


OWN = make_cell(loader="script", batch_size=8)
FORKED = make_cell(loader="script", batch_size=8, workers=2, start_method="fork")


def of_a_script(inspection, *trials, cells=(OWN, FORKED), predictions=()):
    plan = MatrixPlan(cells=cells, baseline=OWN)
    return recommend(replace(searched(*trials, plan=plan), predictions=predictions), inspection())


def test_a_script_is_left_as_it_is_where_no_gain_is_proven(inspection):
    trials = [trial(OWN, 1.0, launch=k) for k in (1, 2, 3)]
    trials += [trial(FORKED, 0.99, launch=k) for k in (1, 2, 3)]
    found = of_a_script(inspection, *trials)
    assert found.cell == OWN
    assert "no gain is proven" in found.reason


def test_a_script_is_changed_for_a_proven_gain(inspection):
    trials = [trial(OWN, 1.0, launch=k) for k in (1, 2, 3)]
    trials += [trial(FORKED, 0.5, launch=k) for k in (1, 2, 3)]
    assert of_a_script(inspection, *trials).cell == FORKED


@pytest.mark.parametrize(("written_s", "kept"), [(0.52, True), (1.2, False)])
def test_noise_does_not_keep_a_script_that_seems_twice_as_slow(inspection, written_s, kept):
    """One launch of 0.3 s and one of 0.9 s are tied with almost everything."""
    trials = [trial(FORKED, 0.3, launch=1), trial(FORKED, 0.7, launch=2)]
    trials += [trial(OWN, written_s - 0.2, launch=1), trial(OWN, written_s + 0.2, launch=2)]
    found = of_a_script(inspection, *trials)
    assert (found.cell == OWN) is kept
    assert [*found.tied, found.cell].count(OWN) == 1, "none is proven to be slower"
    if not kept:
        assert "x as fast as the script as written, but their launches scatter" in found.reason


def predicted(cell, step_s):
    return Prediction(
        cell=cell, step=interval(step_s, 0.01), compute_step_s=step_s, loader_step_s=0.1,
        projection=project([trial(cell, step_s).result.measurement], SIZES),
    )  # fmt: skip


def test_what_was_only_predicted_is_not_called_slower(inspection):
    faster = predicted(FORKED, 0.5)
    found = of_a_script(inspection, trial(OWN, 1.0), predictions=(faster,))
    assert found.cell == OWN
    assert "is predicted to be" in found.reason
    assert "longer --budget" in found.reason
    found = of_a_script(inspection, trial(OWN, 2.0), predictions=(replace(faster, cell=OWN),))
    assert "predicted" not in found.reason


@pytest.mark.parametrize(
    ("others", "interrupted", "words"),
    [
        ([], False, "no other configuration was fully measured: there was no time left; give a "),
        ([], True, "fully measured: the probe was interrupted; probe again"),
        ([("crashed", 2)], False, "every other configuration failed"),
        ([("crashed", 2), ("none", 4)], False, "every other configuration failed"),
        (
            [("crashed", 2), ("none", 1)],
            False,
            "fully measured (1 of 2 failed): there was no time left",
        ),
        (
            [("slower", 2)],
            False,
            "are predicted to be no faster; none was run to",
        ),
        (
            [("slower", 2), ("none", 4)],
            False,
            "1 of the other configurations (the rest could not",
        ),
    ],
)
def test_where_nothing_else_was_run_it_is_said_why(inspection, others, interrupted, words):
    cells, trials, predictions = [OWN], [trial(OWN, 1.0)], []
    for what, workers in others or [("none", 2)]:
        cells.append(replace(FORKED, workers=workers))
        if what == "crashed":
            trials.append(trial(cells[-1], 1.0, verdict="crashed"))
        if what == "slower":
            predictions.append(predicted(cells[-1], 2.0))
    search = searched(*trials, plan=MatrixPlan(cells=tuple(cells), baseline=OWN))
    search = replace(search, predictions=tuple(predictions), interrupted=interrupted)
    assert words in recommend(search, inspection()).reason


def test_where_nothing_promised_a_gain_time_is_not_blamed(inspection):
    search = searched(trial(OWN, 1.0), plan=MatrixPlan(cells=(OWN, FORKED), baseline=OWN))
    skipped = not_run_record(FORKED, "skipped", NOT_CHOSEN)
    reason = recommend(replace(search, records=(*search.records, skipped)), inspection()).reason
    assert reason.startswith("as written: nothing says that another configuration is faster")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("ok", "(2) were tried and were not measurably faster"),
        ("crashed", "why 2 workers failed (crashed)"),
        ("shutdown-hang", "why 2 workers failed (shutdown-hang)"),
        ("faster", "2 workers are predicted to be faster, but were not fully measured"),
        ("slower", "(2) were not run, but are predicted to be no faster"),
        (
            "cut and faster",
            "2 workers are predicted to be faster, but were not fully measured",
        ),
        ("nothing", "Let workers read ahead"),
    ],
)
def test_only_what_was_run_to_a_good_end_is_called_tried(inspection, what, words):
    times = [float(k) for k in range(50)]
    stamps = Stamps(
        epoch=[1] * 50, step=list(range(1, 51)), window=["throughput"] * 50, asked_s=times,
        delivered_s=[t + 0.95 for t in times], done_s=[t + 1 for t in times], rows=[8] * 50,
    )  # fmt: skip
    stages = {"fetch": [0.95], "forward": [0.05]}
    waits = trial(OWN, 1.0)
    slow = replace(waits.result.measurement, stamps=stamps, stages=stages)
    waits = replace(waits, result=replace(waits.result, measurement=slow))
    trials = [waits]
    if what in ("ok", "crashed", "shutdown-hang"):
        trials.append(trial(FORKED, 2.0, verdict=what))
    if what.startswith("cut"):
        trials.append(trial(FORKED, 0.5, verdict="skipped"))
    search = searched(*trials, plan=MatrixPlan(cells=(OWN, FORKED), baseline=OWN))
    if what.endswith(("faster", "slower")):
        step_s = 0.5 if what.endswith("faster") else 2.0
        search = replace(search, predictions=(predicted(FORKED, step_s),))
    texts = [finding.text for finding in recommend(search, inspection()).findings]
    assert any(words in text for text in texts), texts
    assert what == "ok" or not any("tried" in text for text in texts)


def test_a_batch_size_that_the_loader_does_not_take_is_not_advised():
    cell = make_cell(loader="custom", batch_size=2048)
    assert dataloader_kwargs(cell)["batch_size"] == 2048
    assert "batch_size" not in dataloader_kwargs(cell, ("workers",))
