import dataclasses
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

import ctrkit.report.html
from ctrkit.commands.report import report
from ctrkit.core.config import SCRIPT_TARGET, ScriptSpec, WorkloadSpec
from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_json, write_table
from ctrkit.core.progress import WorkerProgress, WorkerStage
from ctrkit.core.records import Finding, Recommendation, TrialRecord
from ctrkit.core.script_records import ScriptAnswer
from ctrkit.report.blocks import Column, Report, Section, Table
from ctrkit.report.charts.svg import TOKENS
from ctrkit.report.evidence_files import read_evidence
from ctrkit.report.html import html_document, inert, plain_page, run_pages, without_bars
from ctrkit.report.run_reader import read_contents
from ctrkit.report.shell_lines import short_path
from ctrkit.report.summary import again_lines, summary_of
from ctrkit.supervise.explain.evidence import PROCESSES, examine
from ctrkit.supervise.explain.scene import Process, Wait
from tests.unit.report.conftest import THREAD, MakeRun, cell, epoch_row, measured, trial

HOSTILE = (
    "<script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>\u202e\x1b[2J\x00"
)
VOID = ("meta", "br", "img", "link", "input", "hr")


class Page(HTMLParser):
    """What a document holds: its elements, headings, and text; unbalanced tags are an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if "style" not in self.open:
            self.texts.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def document(*runs: Path) -> str:
    return html_document(run_pages([read_contents(run) for run in runs]))


def page(*runs: Path) -> Page:
    return Page(document(*runs))


def write_stamps(folder: Path, cell_id: str, **columns: list[object]) -> None:
    count = 40
    stamps: dict[str, list[object]] = {
        "trial": ["005-full-x"] * count, "cell_id": [cell_id] * count, "kind": ["full"] * count,
        "window": ["warmup"] * 2 + ["throughput"] * (count - 2),
        "asked_s": [float(i) for i in range(count)],
        "delivered_s": [i + 0.25 for i in range(count)],
        "done_s": [i + 1.0 for i in range(count)],
    }  # fmt: skip
    write_table(folder / "stamps.parquet", pa.table(stamps | columns))


def write_evidence(folder: Path, text: str = "Thread 0x1: waits") -> Path:
    evidence = folder / "evidence" / "7-cpu-rows-w4-fork-p2-t2-b2048"
    evidence.mkdir(parents=True)
    (evidence / "stacks-12.txt").write_text(text)
    (evidence / "stderr.txt").write_text("")
    waits = tuple(Wait(thread=thread, syscall="futex", target="pipe") for thread in (12, 13))
    progress = WorkerProgress(
        pid=12, worker=3, stage=WorkerStage.FETCHING, batches=7, writes=9, written_s=1.0
    )
    worker = Process(
        pid=12, name="python", cores=0.25, rss_bytes=2_000_000, waits=waits, progress=progress
    )
    ended = Process(pid=13, name="<i>", status="zombie", exit_code=-9)
    write_json(evidence / PROCESSES, [worker, ended])
    return evidence


@pytest.fixture
def probe(make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation) -> Path:
    run = make_run("probe", trials=trials, recommendation=recommendation)
    write_stamps(run.path, THREAD.cell_id)
    write_evidence(run.path)
    return run.path


@pytest.fixture
def train(make_run: MakeRun, recommendation: Recommendation) -> Path:
    rows = [epoch_row(n, wall_s=6000.0 + 300 * n) for n in (1, 2, 3)]
    run = make_run("train", name="train", epochs=rows, projection=recommendation, cell=THREAD)
    incident = {"number": 1, "verdict": "stalled", "epoch": 2, "step": 7, "action": "restarted"}
    (run.path / "incidents.jsonl").write_text(json.dumps(incident) + "\n")
    return run.path


def test_the_first_screen_answers_before_anything_else(probe: Path) -> None:
    text = page(probe).text
    first = text[: text.index("Projection")]
    for answer in (
        "cpu, thread loader", "1 d 1 h", "±4.9", "backward", "24.2 .. 26.7 h",
        "2.4x faster", "ctrkit train", "recommendation.json", "1 cell deadlock", "Tied with 1",
    ):  # fmt: skip
        assert answer in first


def test_a_probe_has_all_its_sections_and_charts(probe: Path) -> None:
    found = page(probe)
    headings = [text for level, text in found.headings if level == 2]
    order = ["Projection", "Options", "Cells", "Where a step goes", "Batch by batch", "Failed"]
    assert [heading for heading in headings if heading in order] == order
    assert headings[-2:] == ["Run it again", "Environment"]
    labels = [attributes["aria-label"] or "" for attributes in found.named("svg")]
    assert len(labels) == 10  # five charts, each wide and narrow
    for words in ("Projected: 1 d 1 h", "Heat map of 6", "Seconds per batch", "40 batches"):
        assert any(words in label for label in labels)
    for words in ("2 x futex (pipe)", "0.2 cores", "2 MB", "ended (-9)", "<i>"):
        assert words in found.text
    assert "Thread 0x1: waits" in found.text


def test_a_train_run_has_curves_times_and_marks(train: Path) -> None:
    found = page(train)
    labels = [attributes["aria-label"] or "" for attributes in found.named("svg")]
    assert any("val auc from 0.5700 to 0.5900" in label for label in labels)
    assert any("Projected: 1 h 42 min" in label for label in labels)
    assert "phase1, known: epoch 1" in found.text
    assert "1 incident" in found.text
    assert "incident" in re.findall(r"</i>(\w+)</li>", document(train))


def test_the_document_is_well_formed_and_accessible(probe: Path, train: Path) -> None:
    for found in (page(probe), page(train), page(probe, train)):
        levels = [level for level, _ in found.headings]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert all(text.strip() for _, text in found.headings)
        assert all(attributes.get("scope") in ("col", "row") for attributes in found.named("th"))
        assert all(attributes.get("role") == "img" for attributes in found.named("svg"))
        assert all(attributes.get("aria-label") for attributes in found.named("svg"))
        assert found.named("html")[0]["lang"] == "en"
        ids = [attributes["id"] for _, attributes in found.tags if attributes.get("id")]
        assert len(ids) == len(set(ids))
        anchors = {str(a["href"])[1:] for a in found.named("a")}
        assert anchors <= set(ids)


def test_nothing_is_loaded_and_nothing_runs(probe: Path, train: Path) -> None:
    found, text = page(probe, train), document(probe, train)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not re.search(r"(?:src|action|formaction)\s*=", re.sub(r">[^<]*<", "><", text))
    assert all(str(a["href"]).startswith("#") for a in found.named("a"))
    assert all(str(use["xlink:href"]).startswith("#") for use in found.named("use"))
    assert "://" not in re.sub(r">[^<]*<", "><", text)
    assert "@import" not in text
    policy = next(m for m in found.named("meta") if m.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert len(text.encode()) < 500_000


def hostile_run(make_run: MakeRun) -> Path:
    long = HOSTILE + "w" * 9000
    cell = dataclasses.replace(THREAD, loader=f"x{HOSTILE}", device=long)
    best = Recommendation(
        cell=cell, reason=long, flags=[long], tied=[dataclasses.replace(cell, workers=2)],
        projected_total_s=10.0, projected_total_s_low=9.0, projected_total_s_high=11.0,
        projected_epoch_s=1.0,
        findings=[Finding(stage=long, share=0.5, worth_x=2.0, text=long, confidence=long)],
        dataloader_kwargs={HOSTILE: HOSTILE},
    )  # fmt: skip
    rows = [
        measured(cell, 1.0, data_wait_share=0.5, stage_s={"forward": 1.0}),
        trial(dataclasses.replace(cell, workers=2, start_method=HOSTILE), verdict=HOSTILE,
              reason=long, evidence=long),
    ]  # fmt: skip
    run = make_run(
        "probe", name="hostile", trials=rows, recommendation=best, argv=["probe", long],
        environment={HOSTILE: {HOSTILE: long}, "x": HOSTILE}, status=HOSTILE, status_reason=long,
        workload=WorkloadSpec(target=f"/tmp/{HOSTILE}.py:make"), created=HOSTILE,
        device_names={"cpu": HOSTILE},
    )  # fmt: skip
    write_stamps(run.path, cell.cell_id, window=[HOSTILE] * 40)
    write_evidence(run.path, text=HOSTILE)
    return run.path


def test_hostile_text_stays_text(make_run: MakeRun) -> None:
    text = document(hostile_run(make_run))
    found = Page(text)
    tags = {tag for tag, _ in found.tags}
    assert not tags & {"script", "img", "iframe"}
    assert "<script>alert('x')</script>" in found.text
    for character in ("\u202e", "\x1b", "\x00"):
        assert character not in text
    assert "\\x202e" in found.text
    assert not any(name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert len(text.encode()) < 1_000_000


def test_inert_keeps_lines_and_shows_what_steers() -> None:
    assert inert("a\r\n\tb\x1b[31m\u2066c\udc80") == "a\n\tb\\x1b[31m\\x2066c\\xdc80"


def test_a_command_is_given_again_without_the_folder_that_is_full_now() -> None:
    argv = ["probe", "--out", "a b", "--budget", "60s", "--out=c"]
    assert again_lines(argv) == ["ctrkit probe --budget 60s"]
    # a script's own options are not ours
    argv = ["probe", "--out=c", "--", "python", "t.py", "--out", "x", "--out=y"]
    assert again_lines(argv) == ["ctrkit probe -- python t.py --out x --out=y"]


def test_what_to_do_after_a_probe_of_a_script_runs_that_script(make_run: MakeRun) -> None:
    command = ["python", "t.py", "--data", "d", "--epochs", "3"]
    own, other = cell(loader="script"), cell(loader="script", workers=4, start_method="fork")
    script = ScriptSpec(command=command, folder="/x")
    for best, said in (
        (other, "--config {} -- python t.py --data d --epochs 3"),
        (own, "ctrkit train -- python t.py --data d --epochs 3"),
    ):
        answer = ScriptAnswer(as_written=own, command=command)
        run = make_run(
            "probe", name=best.cell_id, trials=[measured(own, 1.0), measured(other, 0.5)],
            recommendation=Recommendation(cell=best, reason="", script=answer),
            workload=WorkloadSpec(target=SCRIPT_TARGET, script=script),
            argv=["probe", "--", *command],
        )  # fmt: skip
        contents = read_contents(run.path)
        lines = " ".join(" ".join(summary_of(contents).lines).replace("\\", "").split())
        assert lines.endswith(said.format(short_path(run.path / "recommendation.json"))), lines


def test_columns_that_draw_bars_are_left_out() -> None:
    table = Table((Column("stage"), Column("")), (("forward", "███"), ("backward", "")))
    assert without_bars(table).rows == (("forward",), ("backward",))


@pytest.mark.parametrize("name", ["trials.parquet", "recommendation.json", "stamps.parquet"])
@pytest.mark.parametrize("how", ["missing", "truncated", "empty"])
def test_a_partial_probe_is_reported_with_what_is_missing(probe: Path, name: str, how: str) -> None:
    file = probe / name
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")
    found = page(probe)
    assert "Run it again" in found.text
    if how != "missing" or name == "stamps.parquet":
        assert name in found.text[found.text.index("Not readable") :]
    if name == "stamps.parquet":
        assert "Batch by batch" not in found.text
        assert "Heat map" in document(probe)


def test_stamps_with_a_column_missing_or_of_another_kind_are_said_to_be_unreadable(
    probe: Path,
) -> None:
    write_table(probe / "stamps.parquet", pa.table({"cell_id": [THREAD.cell_id]}))
    assert "stamps.parquet: cannot be read" in page(probe).text
    write_stamps(probe, THREAD.cell_id, asked_s=["x"] * 40)
    assert "stamps.parquet: cannot be read" in page(probe).text


def test_an_interrupted_probe_and_a_run_that_is_gone(make_run: MakeRun) -> None:
    probe = make_run("probe", name="p", status="interrupted", status_reason="stopped", trials=[])
    text = page(probe.path).text
    assert "interrupted: stopped" in text
    assert "none to recommend" in text
    gone = make_run("train", name="t", status="running")
    text = page(gone.path).text
    assert "It ended without an error message" in text
    assert "left no checkpoint" in text


def test_what_a_program_printed_is_shown_only_where_it_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "evidence" / "1"
    folder.mkdir(parents=True)
    for name in ("stderr.txt", "stdout.txt", "rank-1-stderr.txt", "stacks-1.txt"):
        (folder / name).write_text("token=hf_secret" if "std" in name else "File loader.py")
    (shared,) = read_evidence(tmp_path / "evidence", 9000)
    assert [file.name for file in shared.files] == ["stacks-1.txt"]
    assert sorted(shared.withheld) == ["rank-1-stderr.txt", "stderr.txt", "stdout.txt"]
    (whole,) = read_evidence(tmp_path / "evidence", 9000, with_output=True)
    assert [file.name for file in whole.files if "hf_secret" in file.text] == [
        "stderr.txt", "stdout.txt", "rank-1-stderr.txt",
    ]  # fmt: skip
    assert whole.withheld == ()


def test_evidence_is_bounded_and_never_read_through_links(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("do not show")
    folder = tmp_path / "evidence"
    for number in range(3):
        (folder / f"{number}").mkdir(parents=True)
        (folder / f"{number}" / "stacks-1.txt").write_text("x" * 20_000)
    (folder / "0" / "linked.txt").symlink_to(secret)
    (folder / "out").symlink_to(tmp_path)
    found = read_evidence(folder, 50_000)
    assert [one.trial for one in found] == ["0", "1", "2"]
    assert sum(len(file.text) for one in found for file in one.files) <= 50_000
    assert found[2].files[0].cut_bytes == 10_000
    assert "do not show" not in "".join(file.text for one in found for file in one.files)
    assert read_evidence(tmp_path / "none", 1000) == []
    assert [one.unread for one in read_evidence(folder, 20_500)] == [
        (), ("stacks-1.txt",), ("stacks-1.txt",),
    ]  # fmt: skip
    for number in range(60):
        (folder / "2" / f"more-{number:02}.txt").write_text("x")
    many = read_evidence(folder, 100_000)[2]
    assert len(many.files) == 40
    assert len(many.unread) == 21


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"pid": 1}', "[]", '[{"pid": {}, "waits": 3}]'])
def test_processes_that_are_not_what_they_should_be_are_shown_as_they_are(
    tmp_path: Path, text: str
) -> None:
    folder = tmp_path / "evidence" / "1"
    folder.mkdir(parents=True)
    (folder / PROCESSES).write_text(text)
    (found,) = read_evidence(tmp_path / "evidence", 9000)
    assert found.processes is None
    assert [(file.name, file.text) for file in found.files] == [(PROCESSES, text)]


def test_the_processes_of_a_real_examination_are_a_table(tmp_path: Path) -> None:
    evidence, child = tmp_path / "evidence" / "1", tmp_path / "child"
    child.mkdir()
    with subprocess.Popen(["sleep", "60"]) as asleep:
        try:
            examine(evidence, child, asleep.pid, lambda: None)
        finally:
            asleep.kill()
    (found,) = read_evidence(tmp_path / "evidence", 9000)
    assert found.processes is not None
    shown = [
        dict(zip([c.name for c in found.processes.columns], row, strict=True))
        for row in found.processes.rows
    ]
    assert [row["process"] for row in shown] == [str(asleep.pid)]
    assert shown[0]["state"] == "sleeping"
    assert shown[0]["memory"].endswith("B")


def colours(scheme: str) -> dict[str, tuple[int, ...]]:
    """The colour variables of the style sheet, light or dark; `#fff` counts as `#ffffff`."""
    text = (Path(ctrkit.report.html.__file__).parent / "templates" / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\n *\}", text, re.DOTALL)[:2]
    found = {}
    for name, digits in re.findall(
        r"--([\w-]+): #(\w+);", light + (dark if scheme == "dark" else "")
    ):
        whole = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
        found[name] = tuple(int(whole[i : i + 2], 16) for i in (0, 2, 4))
    return found


def contrast(one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """WCAG 2's contrast ratio of two colours."""
    lights = []
    for colour in (one, other):
        shares = [value / 255 for value in colour]
        r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in shares)
        lights.append(0.2126 * r + 0.7152 * g + 0.0722 * b)
    dim, bright = sorted(lights)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_a_chart_is_defined_and_can_be_told_from_its_ground(scheme: str) -> None:
    known = colours(scheme)
    assert set(TOKENS) <= set(known)
    for name in TOKENS:
        if name.startswith("heat"):
            assert contrast(known["ink"], known[name]) >= 4.5, name
        elif name in ("ink", "muted", "accent", "bad"):
            assert contrast(known[name], known["surface"]) >= 4.5, name
        elif name not in ("line", "surface"):
            assert contrast(known[name], known["surface"]) >= 3.0, name


def test_only_html_imports_what_html_needs_and_nothing_imports_torch(
    probe: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; from ctrkit.commands.report import report\n"
        "run, file = map(Path, sys.argv[1:])\n"
        "loaded = lambda: {'torch', 'scipy', 'jinja2', 'matplotlib'} & set(sys.modules)\n"
        "report([run], as_json=False, markdown=None); assert loaded() == set(), loaded()\n"
        "report([run], as_json=False, markdown=None, html=file)\n"
        "assert loaded() == {'jinja2', 'matplotlib'}, loaded()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(probe), str(tmp_path / "x.html")],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "PYTHONUTF8": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_list_of_runs_is_a_page_too() -> None:
    table = Table((Column("folder", right=False),), (("a<b",),))
    view = Report("Runs", (), (Section("", (table,)),))
    found = Page(html_document([plain_page(view)]))
    assert "a<b" in found.text
    assert found.headings == [(1, "Runs")]


def test_the_command_writes_the_file_and_prints_no_report(
    probe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.html"
    report([probe], as_json=False, markdown=None, html=file)
    assert file.read_text().startswith("<!doctype html>")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"wrote {file}" in captured.err
    with pytest.raises(UsageError, match="--html .*there is no folder"):
        report([probe], as_json=False, markdown=None, html=tmp_path / "none" / "x.html")


def test_without_its_packages_html_says_what_to_install(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_spec(name: str) -> object:
        return None if name == "matplotlib" else object()

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    file = tmp_path / "report.html"
    with pytest.raises(UsageError, match=r"pip install 'ctrkit\[report\]'"):
        report([probe], as_json=False, markdown=None, html=file)
    assert not file.exists()
