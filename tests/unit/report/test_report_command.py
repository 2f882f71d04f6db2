import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.commands.report import report
from ctrkit.core.config import WorkloadSpec, encode
from ctrkit.core.errors import UsageError
from ctrkit.core.place import this_place
from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.ctr.plugin import load_phase
from ctrkit.report.comparison import compare
from ctrkit.report.listing import listed_run
from ctrkit.report.markdown import markdown_text
from ctrkit.report.run_reader import read_contents
from ctrkit.report.status import status_update
from ctrkit.report.terminal import report_text
from ctrkit.report.views import report_view
from tests.unit.report.conftest import ENVIRONMENT, MakeRun, epoch_row


def run_report(*runs: Path, as_json: bool = False, markdown: Path | None = None) -> None:
    report(list(runs), as_json=as_json, markdown=markdown)


def test_the_newest_run_is_reported_where_none_is_named(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("probe", name="old")
    make_run("train", name="new")
    run_report()
    out = capsys.readouterr().out
    assert out.startswith("Run of mdaf phase3")
    assert out.count("2026-01-31 12:00 UTC") == 1


def test_no_run_at_all_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="no runs yet; start with `ctrkit probe`"):
        run_report()


def test_several_runs_one_after_the_other(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run("probe", name="a").path, make_run("train", name="b").path]
    run_report(*runs)
    out = capsys.readouterr().out
    assert out.index("Probe of") < out.index("Run of")


def test_json_is_one_document_and_nothing_else(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    probe = make_run("probe", name="p", trials=trials, recommendation=recommendation)
    row = epoch_row(1, train_loss=float("nan"))
    train = make_run("train", name="t", epochs=[row])
    run_report(probe.path, train.path, as_json=True)
    captured = capsys.readouterr()
    first, second = json.loads(captured.out)["runs"]
    assert set(first) == {
        "path", "run", "running", "trials", "recommendation", "epochs", "incidents", "time",
        "missing", "classification",
    }  # fmt: skip
    assert first["path"] == str(probe.path)
    assert first["run"]["command"] == "probe"
    assert first["recommendation"]["cell"]["loader"] == "thread"
    assert [t["verdict"] for t in first["trials"]] == [t.verdict for t in trials]
    assert first["trials"][4]["stage_s"]["backward"] == 6.5
    assert second["recommendation"] is None
    assert second["epochs"][0]["epoch"] == 1
    assert second["epochs"][0]["train_loss"] is None
    assert second["epochs"][0]["val_loss"] == 0.31
    assert captured.err == ""


def test_markdown_goes_to_its_file(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "status.md"
    run_report(make_run("probe").path, markdown=file)
    assert file.read_text().startswith("## Probe of mdaf phase3")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "status.md" in captured.err


def test_a_markdown_file_that_cannot_be_written(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("probe").path
    with pytest.raises(UsageError, match="there is no folder"):
        run_report(run, markdown=tmp_path / "none" / "x.md")
    with pytest.raises(UsageError, match="is a folder"):
        run_report(run, markdown=tmp_path)


def test_bad_run_folders_are_refused_before_anything_is_printed(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = make_run("probe").path, make_run("probe", name="bad").path
    values = json.loads((bad / "run.json").read_text())
    (bad / "run.json").write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(UsageError, match="schema version 99"):
        run_report(good, bad)
    with pytest.raises(UsageError, match="not a run folder"):
        run_report(tmp_path)
    assert capsys.readouterr().out == ""


def test_the_list_has_a_line_per_run_newest_first(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_run("probe", name="a").path.parent)
    make_run("train", name="b", status="interrupted")
    torn = make_run("probe", name="c").path
    (torn / "run.json").write_text("{")
    report([], as_json=False, markdown=None, list_runs=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["unreadable", "2026-01-31", "2026-01-31"]
    assert [line.split()[-1] for line in lines[2:]] == ["c", "b", "a"]
    assert lines[3].split()[2:4] == ["train", "interrupted"]
    assert lines[4].split()[2:4] == ["probe", "no"]  # answer: it recommends nothing
    report([], as_json=True, markdown=None, list_runs=True)
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 3


def test_report_never_imports_torch(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    run = make_run("probe", trials=trials, recommendation=recommendation)
    code = (
        "import sys; from pathlib import Path; from ctrkit.commands.report import report\n"
        "import ctrkit.report.live_probe, ctrkit.report.live_train\n"
        "report([Path(sys.argv[1])], as_json=False, markdown=None)\n"
        "heavy = {'torch', 'scipy', 'sklearn', 'duckdb'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONUTF8": "1"},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Answer" in done.stdout


def test_a_run_whose_process_is_gone_is_not_listed_as_running(make_run: MakeRun) -> None:
    ours = make_run("probe", name="ours", status="running")
    ours.update(status="running")  # by this very process
    assert listed_run(ours.path).status == "running"
    assert read_contents(ours.path).alive
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    lost = make_run("probe", name="lost", status="running", pid=process.pid, pid_began_unix_s=1.0)
    again = make_run("probe", name="again", status="running", pid=os.getpid(), pid_began_unix_s=1.0)
    for run in (lost, again):  # no process of that id, or another one
        assert listed_run(run.path).status == "died"
        contents = read_contents(run.path)
        assert (contents.info.status, contents.alive) == ("died", False)
        assert "died: it ended without an error message" in report_text(report_view(contents))
    old = make_run("probe", name="old", status="running")
    assert listed_run(old.path).status == "running"  # nothing tells of its process


@pytest.mark.parametrize(
    ("changed", "status"),
    [("host", "not known here"), ("processes", "not known here"), ("boot", "died")],
)
def test_a_run_on_another_host_is_not_called_dead(
    make_run: MakeRun, changed: str, status: str
) -> None:
    place = {**this_place(), changed: "of another"}
    run = make_run("train", name="far", status="running", pid=os.getpid(), place=place)
    assert listed_run(run.path).status == status
    contents = read_contents(run.path)
    assert (contents.info.status, contents.alive) == (status, False)
    text = " ".join(report_text(report_view(contents)).split())
    assert ("on another host or in another container" in text) == (status != "died")
    assert ("ctrkit train --resume" in text and status != "died") is False


def test_json_has_the_class_of_a_run(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    revised = WorkloadSpec(settings=encode(load_phase("phase3-revised")))
    rows = [epoch_row(1, val_auc=0.57), epoch_row(2, val_auc=0.58)]
    run_report(make_run("train", name="a", epochs=rows, workload=revised).path, as_json=True)
    found = json.loads(capsys.readouterr().out)["runs"][0]["classification"]
    assert set(found) == {"class", "incomplete", "conditions"}
    assert found["incomplete"].startswith("2 of 5 epochs")
    first = found["conditions"][0]
    assert set(first) == {"tier", "name", "condition", "value", "is_met"}
    run_report(make_run("train", name="b", epochs=rows).path, as_json=True)
    assert json.loads(capsys.readouterr().out)["runs"][0]["classification"] is None


def test_branch_and_commit_are_told_and_compared(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    runs = [
        make_run("probe", name=name, trials=trials, recommendation=recommendation,
                 environment={**ENVIRONMENT, "git": {"branch": name, "commit": "abc1234"}})
        for name in ("main", "faster")
    ]  # fmt: skip
    was, now = (read_contents(run.path) for run in runs)
    assert "branch faster, commit abc1234" in report_text(report_view(now), 120)
    assert "branch faster, commit abc1234" in markdown_text(status_update(report_view(now), now))
    (change,) = compare(was, now, 0.05).changes
    assert (change.what, change.base, change.new) == ("git: branch", "main", "faster")
