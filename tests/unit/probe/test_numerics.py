"""Other numerics are measured and shown with their loss, and never preferred silently."""

from __future__ import annotations

from dataclasses import replace

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell, RunSizes, make_cell
from ctrkit.measure.statistics import interval
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.numerics import comparable, numerics_options, plain, variants_of
from ctrkit.probe.recommend import recommend
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult, compute_key

PLAIN = make_cell(threads=2)
LAZY = replace(PLAIN, optimizer="sparse-adam")
HALF = replace(PLAIN, precision="bf16", compile=True)


def candidate(cell: Cell, objective: float) -> Candidate:
    return Candidate(
        cell=cell, objective=objective, relative_half=0.01, peak_rss_bytes=1, projection=None,
        step=interval(objective, 0.0),
    )  # fmt: skip


def trial(cell: Cell, losses: list[float]) -> Trial:
    measured = Measurement(
        kind="full", startup_s=1.0, throughput_s=5.0, throughput_steps=5, throughput_rows=5,
        losses=losses, sizes=RunSizes(epochs=1, train_batches=5), complete=True,
    )  # fmt: skip
    return Trial(
        request=TrialRequest(kind="full", cell=cell),
        result=TrialResult(verdict="ok", reason="", measurement=measured),
        launch=1,
    )


def test_what_computes_as_the_phase_says_is_compared_alone():
    assert comparable([PLAIN, LAZY, HALF], lambda c: c) == [PLAIN]
    assert comparable([LAZY, HALF], lambda c: c) == [LAZY, HALF]


def test_variants_differ_by_their_numerics_only():
    other = replace(LAZY, threads=1)
    assert variants_of(PLAIN, [PLAIN, LAZY, other, HALF]) == [LAZY, HALF]
    assert plain(HALF) == PLAIN
    assert len({compute_key(cell) for cell in (PLAIN, LAZY, HALF)}) == 3


def test_an_option_has_the_speed_and_the_loss_after_equally_many_steps():
    candidates = [candidate(PLAIN, 2.0), candidate(LAZY, 1.0)]
    trials = [trial(PLAIN, [0.5, 0.3, 0.1, 0.0]), trial(LAZY, [0.5, 0.3, 0.4])]
    (option,) = numerics_options(candidates[0], candidates, trials)
    assert "--optimizer sparse-adam (other numerics): 2.00x (" in option.text
    low, high = map(float, option.text.split("x (")[1].split(")")[0].split(" .. "))
    assert low < 2 < high
    assert "first 3 steps 0.4000 against 0.3000 (+33.33 %)" in option.text


def test_without_losses_the_option_says_so():
    candidates = [candidate(PLAIN, 2.0), candidate(HALF, 1.0)]
    trials = [trial(PLAIN, [0.5]), trial(HALF, [0.5, 0.4])]
    (option,) = numerics_options(candidates[0], candidates, trials)
    assert "--precision bf16, --compile true" in option.text
    assert "not measured" in option.text


def test_another_batch_size_is_not_compared():
    candidates = [candidate(PLAIN, 2.0), candidate(replace(LAZY, batch_size=64), 1.0)]
    assert numerics_options(candidates[0], candidates, []) == []


def faster_when_lazy(machine):
    class Machine(machine):
        def parts_s(self, cell: Cell) -> tuple[float, float]:
            step_s, fetch_s = super().parts_s(cell)
            return step_s * (0.5 if cell.numerics else 1.0), fetch_s

    return Machine()


def with_numerics(inspection):
    return inspection(axes=[*inspection().axes, "optimizer", "precision", "compile"])


def test_a_faster_cell_of_other_numerics_is_run_and_shown_but_not_recommended(machine, inspection):
    seen = with_numerics(inspection)
    found = faster_when_lazy(machine).search(seen, {"optimizer": ("adam", "sparse-adam")})
    recommendation = recommend(found, seen)
    ran = {t.cell.optimizer for t in found.trials if t.request.kind == "full"}
    assert ran == {"adam", "sparse-adam"}
    cells = [recommendation.cell, recommendation.runner_up, *recommendation.tied]
    assert {cell.optimizer for cell in cells if cell is not None} == {"adam"}
    assert any("--optimizer sparse-adam" in option.text for option in recommendation.options)


def test_where_nothing_else_was_asked_for_the_reason_says_what_it_is(machine, inspection):
    seen = with_numerics(inspection)
    found = faster_when_lazy(machine).search(seen, {"optimizer": ("sparse-adam",)})
    recommendation = recommend(found, seen)
    assert recommendation.cell.optimizer == "sparse-adam"
    assert "that changes the numerics" in recommendation.reason


def test_several_numbers_of_threads_are_told_apart(machine, inspection):
    found = machine().search(inspection(), {"threads": (1, 2), "loader": ("thread",)})
    assert {cell.threads for cell in found.plan.cells} == {1, 2}
    computed = {t.cell.threads for t in found.trials if t.request.kind == "compute"}
    assert computed == {1, 2}
