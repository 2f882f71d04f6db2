import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.config import make_cell
from ctrkit.core.progress import ProgressWriter, Stage
from ctrkit.core.records import Finding, Recommendation, TrialRecord
from ctrkit.report.blocks import Code, Column, Facts, Report, Section, Table
from ctrkit.report.run_reader import read_contents
from ctrkit.report.terminal import print_report, report_text
from ctrkit.report.views import report_view
from tests.unit.report.conftest import SIZES, THREAD, MakeRun, cell, epoch_row, measured, trial


def text_of(path: Path, width: int = 80) -> str:
    return report_text(report_view(read_contents(path)), width)


def longest(text: str) -> int:
    return max(len(line) for line in text.splitlines())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_terminal(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation,
    monkeypatch: pytest.MonkeyPatch, width: int,
) -> None:  # fmt: skip
    probe = make_run("probe", name="p", trials=trials, recommendation=recommendation)
    train = make_run("train", name="t", epochs=[epoch_row(1)], projection=recommendation)
    monkeypatch.chdir(probe.path.parent)
    for run in (probe, train):
        lines = text_of(run.path, width).splitlines()
        assert max(len(x) for x in lines if str(run.path) not in x) <= width


def test_the_answer_comes_first(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    run = make_run("probe", trials=trials, recommendation=recommendation, budget_s=120.0)
    text = text_of(run.path)
    head, _, rest = text.partition("\nAnswer\n")
    assert head.startswith("Probe of mdaf phase3, 2026-01-31 12:00 UTC\n")
    assert "1,052,081 training rows in 514" in head
    assert "Example CPU @ 2.50GHz, 2 cores, 16 GB, Linux x86_64" in head
    assert "1 min 58 s of a budget of 2 min 00 s" in head
    answer, _, rest = rest.partition("\nOptions\n")
    assert "  use              cpu, thread loader, no workers, 2 threads, batch 2,048" in answer
    assert "  an epoch         1 h 42 min (97 .. 107 min)" in answer
    assert "  15 epochs        1 d 1 h (24.2 .. 26.7 h)" in answer
    assert "provisional: " in answer
    assert "the backward pass takes most of a step" in answer
    assert "It takes 58 % of a step. Without it, a step would be 2.4x" in " ".join(answer.split())
    assert "  tied with        cpu, batches loader, 2 workers" in answer
    assert "5 epochs instead of 15           9 h 00 min" in rest
    assert rest.index("Cells") < rest.index("A step of the recommended configuration")


def test_the_matrix_at_80_columns(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    run = make_run("probe", trials=trials, recommendation=recommendation)
    assert """
Cells
                                                              data   whole
  device loader   wrk start pre verdict        a step rows/s  wait     run
  cpu    thread     0           ok (best) 11.1 s ±0.3    184 0.4 % 1 d 1 h
  cpu    batches    2 spawn   2 ok (tied) 11.2 s ±0.3    183 1.1 % 1 d 0 h
  cpu    rows       0           predicted 11.4 s ±0.3    180       1 d 1 h
  cpu    rows       4 fork    2 deadlock
  mps    rows       2 fork    2 refused
  cpu    resident   0           skipped
  wrk: workers, pre: prefetch
  predicted: did not run; computed from the training step and the loader, each
  measured alone. If a measured row contradicts it, trust the measured one. 1
  predicted row may be faster than the best: a longer --budget runs more of
  them.

Failed
  - cpu-rows-w4-fork-p2-t2-b2048: deadlock. 4 workers wait for a lock that
    nobody holds. Evidence: evidence/7-cpu-rows-w4-fork-p2-t2-b2048

Not run
  - refused: mps-rows-w2-fork-p2-t2-b2048. Fork with MPS hangs or crashes.
  - skipped: cpu-resident-w0-t2-b2048. Budget.
""" in text_of(run.path)


def test_what_to_paste(
    make_run: MakeRun, recommendation: Recommendation, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(
        "probe", trials=[measured(THREAD, 11.0)], recommendation=recommendation,
        argv=["probe", "--data", "my data", "--phase=phase1", "--workers", "0"],
    )  # fmt: skip
    monkeypatch.chdir(run.path.parent)
    text = text_of(run.path)
    assert "    ctrkit train --auto-device --data 'my data' --phase=phase1\n" in text
    assert (
        "    ctrkit train \\\n        --config run/recommendation.json \\\n"
        "        --data 'my data' \\\n        --phase=phase1\n"
    ) in text
    assert "    DataLoader(dataset, num_workers=0, batch_size=None)\n" in text


def test_stages_of_the_recommended_cell(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    run = make_run("probe", trials=trials, recommendation=recommendation)
    text = text_of(run.path)
    assert "  backward    6.50 s   58 %  ██████████████\n" in text
    assert "Besides the steps: start-up 2.1 s, first batch 300 ms, new epoch 100 ms," in text


def test_a_long_command_goes_on_in_the_next_line(
    make_run: MakeRun, recommendation: Recommendation
) -> None:
    run = make_run("probe", name="x" * 60, trials=[], recommendation=recommendation)
    text = text_of(run.path)
    assert f"    ctrkit train \\\n        --config {run.path}/recommendation.json\n" in text


def test_an_interrupted_probe_says_what_is_known_and_what_is_missing(
    make_run: MakeRun, trials: list[TrialRecord]
) -> None:
    run = make_run("probe", trials=trials[:4], status="interrupted", status_reason="Ctrl-C")
    text = text_of(run.path)
    assert "\nNo recommendation\n  status           interrupted: Ctrl-C\n" in text
    assert "predicted        2 cells" in text
    assert "No configuration was fully run" in text
    run = make_run("probe", name="more", trials=trials, status="interrupted")
    text = text_of(run.path)
    assert "best so far      cpu, thread loader, no workers" in text
    assert "11.1 s ±0.3" in text


def test_a_probe_without_any_trial_and_one_where_nothing_can_run(make_run: MakeRun) -> None:
    run = make_run("probe", status="running")
    assert "No trial was recorded" in text_of(run.path)
    bad = [trial(cell(loader="rows"), verdict="crashed", reason="KeyError: 'x'")]
    run = make_run("probe", name="bad", trials=bad, status="no viable cell")
    text = text_of(run.path)
    assert "No configuration can run here: the reasons are below." in text
    assert "crashed. KeyError: 'x'." in text


def test_an_endless_loader_has_no_projection(make_run: MakeRun) -> None:
    own = make_cell(loader="custom", threads=1)
    run = make_run(
        "probe", trials=[trial(own, step_s=0.01, rows_per_s=100.0)], sizes=None,
        recommendation=Recommendation(
            cell=own, reason="fastest",
            findings=[Finding(stage="epoch", share=None, worth_x=None, text="the loader is endless",
                              confidence="high")],
        ),
    )  # fmt: skip
    text = text_of(run.path)
    assert "not projected: the length of an epoch is not known" in text
    assert "epoch: the loader is endless. Confidence: high." in text


def test_a_train_run_beside_known_figures_and_its_projection(
    make_run: MakeRun, recommendation: Recommendation, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = [epoch_row(1), epoch_row(2, wall_s=6500.0), epoch_row(3, rows=20_480, wall_s=130.0)]
    run = make_run(
        "train", epochs=epochs, projection=recommendation, cell=recommendation.cell,
        status="interrupted", status_reason="Ctrl-C",
    )  # fmt: skip
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "last.pt").write_bytes(b"x")
    monkeypatch.chdir(run.path.parent)
    text = text_of(run.path)
    assert (
        """
Epochs
              train   train     val     val     val    gate
  epoch        loss     AUC    loss     AUC    gAUC    mean       lr        time
  1          0.3712  0.5200  0.3100  0.5700  0.5100  0.2100  1.5e-04  1 h 43 min
  2          0.3612  0.5300  0.3100  0.5800  0.5100  0.2100  1.5e-04  1 h 48 min
  3*         0.3512  0.5400  0.3100  0.5900  0.5100  0.2100  1.5e-04  2 min 10 s
  phase1, 1  0.1960  0.5410  0.1880  0.5829          0.3003
  phase3, 1  0.3799  0.5121  0.3075  0.5698          0.1666
  * not all rows of the epoch were trained on.
"""
        in text
    )
    assert (
        """
  epoch        took  against projected  interval
      1  1 h 43 min             +1.6 %  inside
      2  1 h 48 min             +6.6 %  longer
  projected epoch  1 h 42 min (97 .. 107 min)
  projected run    1 d 1 h (24.2 .. 26.7 h)
  mean epoch       1 h 46 min (+4.1 %)
"""
        in text
    )
    assert "interrupted: Ctrl-C" in text
    assert "    ctrkit train --resume run\n" in text


def test_a_finished_run_needs_no_resume_and_one_without_projection_says_so(
    make_run: MakeRun,
) -> None:
    text = text_of(make_run("train", epochs=[epoch_row(1)]).path)
    assert "--resume" not in text
    assert "started without a projection" in text
    assert "status           done" in text


def test_a_run_that_was_killed_is_not_called_running(make_run: MakeRun) -> None:
    run = make_run("train", status="running")
    text = text_of(run.path)
    assert "status           died: it ended without an error message" in text
    assert "It left no checkpoint" in text
    (run.path / "child").mkdir()
    with ProgressWriter(run.path / "child" / "progress.bin") as writer:
        writer.enter(Stage.STEP, epoch=2, steps=514)
        writer.step(120, rows=2048, wait_s=0.1, loss=0.3801)
    text = text_of(run.path)  # the writer is this very process
    assert "status           running" in text
    assert "now              step, epoch 2, step 120 of 514, loss 0.3801" in text
    assert "--resume" not in text


def test_incidents_are_listed(make_run: MakeRun) -> None:
    run = make_run("train")
    (run.path / "incidents.jsonl").write_text(
        '{"at_s": 12, "what": "host slept 310 s"}\n{"at_s": 99, "wh'
    )
    assert "- at_s 12, what host slept 310 s\n" in text_of(run.path)


def test_damaged_files_are_said_and_the_rest_is_reported(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    run = make_run("probe", trials=trials, recommendation=recommendation)
    (run.path / "trials.parquet").write_bytes(b"PAR1 torn")
    text = text_of(run.path)
    assert "cpu, thread loader, no workers" in text
    assert "Not readable\n" in text
    assert "trials.parquet: cannot be read" in text.replace("\n    ", "")


def test_another_workload_has_no_known_figures(make_run: MakeRun) -> None:
    run = make_run("train", epochs=[epoch_row(1)])
    workload = replace(run.info.workload, target="/home/me/loop.py:work")
    run.update(workload=workload)
    text = text_of(run.path)
    assert "phase1" not in text
    assert text.startswith("Run of loop.py:work, ")  # not the whole path


HOSTILE = "\x1b[2J\x1b]0;owned\x07<script>|`x`\u202e"


def test_hostile_text_cannot_steer_the_terminal(make_run: MakeRun) -> None:
    record = trial(THREAD, verdict="crashed", reason=HOSTILE, evidence=HOSTILE)
    run = make_run("probe", trials=[record], status=HOSTILE, status_reason="[bold]" + HOSTILE)
    text = text_of(run.path)
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "[bold]" in text  # shown, not taken for rich's markup


def test_a_stream_without_the_characters_gets_others_for_them() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_report([Report("±", (), (Section("", (Facts((("a", "█"),)),)),))], stream)
    stream.flush()
    assert raw.getvalue() == b"+/-\n  a                #\n"


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12)] * 4),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_any_table_keeps_within_its_width_and_loses_no_required_column(
    rows: list[tuple[str, ...]],
) -> None:
    columns = (Column("a", right=False), Column("b c"), Column("d", optional=3),
               Column("e f", short="e", optional=1))  # fmt: skip
    text = report_text(Report("", (), (Section("", (Table(columns, tuple(rows)),)),)), 40)
    assert longest(text) <= 40
    for row in rows:
        assert row[0] in text
        assert row[1] in text


def test_commands_are_never_broken() -> None:
    line = "ctrkit train --resume /" + "x" * 200
    text = report_text(Report("", (), (Section("", (Code((line,), "sh"),)),)))
    assert f"    {line}\n" in text


def test_a_probe_that_ended_without_an_answer_says_its_reason(make_run: MakeRun) -> None:
    reason = "the budget was too short to measure any configuration; give a longer --budget"
    text = text_of(make_run("probe", trials=[], status_reason=reason).path)
    assert (
        "\nNo recommendation\n  The budget was too short to measure any configuration; give" in text
    )


def test_what_only_informs_is_a_note_and_a_share_is_said_once(
    make_run: MakeRun, recommendation: Recommendation
) -> None:
    found = [
        Finding(stage="backward", share=0.58, worth_x=2.4, confidence="high",
                text="backward limits the step: 58 % of 11.1 s"),
        Finding(stage="epoch", share=None, worth_x=None, confidence="high", text="no length"),
    ]  # fmt: skip
    run = make_run("probe", recommendation=replace(recommendation, findings=found))
    text = text_of(run.path, 120)
    assert (
        "limited by       backward limits the step: 58 % of 11.1 s. Without it, a step would"
        in text
    )
    assert "note             epoch: no length. Confidence: high." in text


def test_batches_are_counted_only_at_the_runs_own_batch_size(make_run: MakeRun) -> None:
    run = make_run("train", cell=cell(batch_size=256), device_names={"cpu": "cpu"})
    head = text_of(run.path, 120).splitlines()
    assert "1,052,081 training rows, 225,446 validation rows" in head[1]
    assert head[2].split()[:2] == ["machine", "Example"]


def test_the_projected_run_is_that_of_as_many_epochs_as_are_run(
    make_run: MakeRun, recommendation: Recommendation
) -> None:
    run = make_run("train", projection=recommendation, sizes=replace(SIZES, epochs=2))
    assert "projected run    3 h 23 min\n" in text_of(run.path)
