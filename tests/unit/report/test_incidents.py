"""Incidents in words."""

from __future__ import annotations

from typing import Any

from ctrkit.core.config import encode
from ctrkit.core.runs import Incident
from ctrkit.report.incidents import has_moment, live_line, summary_words
from ctrkit.report.markdown import markdown_text
from ctrkit.report.run_reader import read_contents
from ctrkit.report.terminal import report_text
from ctrkit.report.views import report_view
from tests.unit.report.conftest import BATCHES, THREAD, MakeRun, epoch_row


def incident(number: int = 1, **values: Any) -> Incident:
    defaults: dict[str, Any] = {
        "at": "2026-01-31T12:00:05+00:00", "verdict": "deadlock",
        "reason": "no progress in stage 'step' for 31 s", "cause": "worker 1 waits for a lock",
        "fix": "spawn instead of fork", "evidence": f"evidence/train-{number}", "epoch": 2,
        "step": 130, "stage": "step", "cell_before": BATCHES, "cell_after": THREAD,
        "action": "restarted", "why": "no processes, no lock",
        "resumed_from": {"epoch": 2, "batch": 100}, "lost_steps": 30, "lost_s": 92.4,
    }  # fmt: skip
    return Incident(number=number, **(defaults | values))


def text_of(make_run: MakeRun, *incidents: Incident, **changes: Any) -> str:
    run = make_run("train", epochs=[epoch_row(1)], **changes)
    for one in incidents:
        run.append_incident(one)
    return " ".join(report_text(report_view(read_contents(run.path))).split())


def test_an_incident_says_when_where_what_was_done_and_what_it_cost(make_run: MakeRun) -> None:
    text = text_of(make_run, incident(note="epoch 2 starts over"))
    for words in (
        "1. 2026-01-31 12:00:05 UTC: deadlock in epoch 2, step 130",
        "reason No progress in stage 'step' for 31 s.",
        "cause Worker 1 waits for a lock.",
        "fix Spawn instead of fork.",
        "ran in cpu, batches loader, 2 workers (spawn, prefetch 2), 2 threads, batch 2,048",
        "done Restarted from epoch 2, batch 100 in another cell: cpu, thread loader, no workers",
        "why No processes, no lock.",
        "lost 30 steps, 1 min 32 s",
        "note Epoch 2 starts over.",
        "evidence evidence/train-1",
    ):
        assert words in text


def test_markdown_has_them_too(make_run: MakeRun) -> None:
    run = make_run("train")
    run.append_incident(incident())
    text = markdown_text(report_view(read_contents(run.path)))
    assert "### Incidents" in text
    assert "deadlock in epoch 2, step 130" in text
    assert "- **lost**: 30 steps, 1 min 32 s" in text


def test_from_the_beginning_and_in_the_same_cell(make_run: MakeRun) -> None:
    one = incident(resumed_from={"epoch": 1, "batch": 0}, cell_after=BATCHES, lost_steps=None)
    text = text_of(make_run, one)
    assert "done Restarted from the beginning in the same cell." in text
    assert "lost 1 min 32 s" in text


def test_a_stop_and_a_complete_result(make_run: MakeRun) -> None:
    text = text_of(
        make_run,
        incident(1, action="stopped", cell_after=None, resumed_from=None, stage="validation"),
        incident(2, action="finished", cell_after=None, epoch=0, stage="shutdown", lost_s=None),
    )
    assert "deadlock in epoch 2, step 130 (validation)" in text
    assert "done The run was stopped." in text
    assert "deadlock in stage 'shutdown'" in text
    assert "its result was complete" in text


def test_what_was_projected_is_of_another_cell(make_run: MakeRun, recommendation: Any) -> None:
    caution = "since then it has run in another cell than was projected"
    one = incident()
    assert caution in text_of(make_run, one, name="moved", projection=recommendation)
    same = incident(cell_after=BATCHES)
    assert caution not in text_of(make_run, same, name="same", projection=recommendation)


def test_a_line_for_the_display_and_one_for_the_status() -> None:
    one = encode(incident())
    assert live_line(one) == (
        "deadlock in epoch 2, step 130: no progress in stage 'step' for 31 s; restarted from "
        "epoch 2, batch 100 in another cell: cpu, thread loader, no workers, 2 threads, "
        "batch 2,048; evidence in evidence/train-1"
    )
    assert summary_words([]) == ""
    assert summary_words([one]) == "1 restart (deadlock in epoch 2, step 130), 1 min 32 s lost"
    assert summary_words([one, one]).endswith(", 3 min 05 s lost")  # seconds add up
    many = summary_words([one] * 5 + [{"action": "stopped"}, {"what": "host slept"}])
    assert many.startswith("5 restarts (deadlock")
    assert "; ...), " in many
    assert summary_words([{"action": "finished"}]) == "its process did not end by itself"


def test_damaged_incidents_are_shown_as_far_as_they_go(make_run: MakeRun) -> None:
    run = make_run("train")
    (run.path / "incidents.jsonl").write_text(
        '{"verdict": "\\u001b[2J", "at": 3, "cell_after": 7, "resumed_from": [1], "lost_s": "x",'
        ' "action": "restarted"}\n{"at_s": 12, "what": "host slept 310 s"}\n'
    )
    text = report_text(report_view(read_contents(run.path)))
    assert "\x1b" not in text
    assert "host slept 310 s" in text


def test_what_is_told_of_at_the_end_has_no_place_of_its_own(make_run: MakeRun) -> None:
    slept = incident(verdict="host slept", action="noted", reason="the host slept for 6 h in all")
    text = text_of(make_run, slept)
    assert "12:00:05 UTC: host slept reason" in text
    late = incident(verdict="late", action="noted")
    assert has_moment(encode(late))
    assert not has_moment(encode(slept))


def test_a_cause_that_only_repeats_the_reason_is_left_out(make_run: MakeRun) -> None:
    reason = "worker 0 was killed by SIGKILL; see the system's log"
    text = text_of(
        make_run, incident(reason=reason, cause="worker 0 was killed by SIGKILL", fix="more memory")
    )
    assert "log. fix More memory." in text  # a cause would stand between them
