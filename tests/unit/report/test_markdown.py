import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.report.blocks import Bullets, Code, Column, Facts, Paragraph, Report, Section, Table
from ctrkit.report.markdown import escape, markdown_document, markdown_text
from ctrkit.report.run_reader import read_contents
from ctrkit.report.views import report_view
from tests.unit.report.conftest import THREAD, MakeRun, epoch_row, trial


def markdown_of(path: Path) -> str:
    return markdown_text(report_view(read_contents(path)))


def test_a_probe_as_markdown(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    run = make_run("probe", trials=trials, recommendation=recommendation)
    text = markdown_of(run.path)
    assert text.startswith("## Probe of mdaf phase3, 2026-01-31 12:00 UTC\n\n- **data**: ")
    assert "- **15 epochs**: 1 d 1 h (24.2 .. 26.7 h)\n" in text
    assert (
        "| device | loader | workers | start | prefetch | verdict | a step | rows/s "
        "| data wait | whole run |\n"
        "| --- | --- | ---: | --- | ---: | --- | ---: | ---: | ---: | ---: |\n"
        "| cpu | thread | 0 |  |  | ok (best) | 11.1 s ±0.3 | 184 | 0.4 % | 1 d 1 h |\n"
    ) in text
    assert "```python\nDataLoader(dataset, num_workers=0, batch_size=None)\n```" in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head(
    make_run: MakeRun, recommendation: Recommendation
) -> None:
    record = trial(THREAD, verdict="crashed|`x`", reason="a | b\n| c |")
    run = make_run("probe", trials=[record])
    train = make_run("train", name="t", epochs=[epoch_row(1)], projection=recommendation)
    for path in (run.path, train.path):
        tables = re.findall(r"(?:^\|.*\n)+", markdown_of(path), flags=re.MULTILINE)
        assert tables
        for table in tables:
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(counts) == 1


@pytest.mark.parametrize(
    ("hostile", "inert"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("[x](javascript:y)", "\\[x\\](javascript:y)"),
        ("a|b", "a\\|b"),
        ("`code` *b* _i_ ~s~", "\\`code\\` \\*b\\* \\_i\\_ \\~s\\~"),
        ("# head", "\\# head"),
        ("1. item", "1\\. item"),
        ("- item", "\\- item"),
        ("--- rule", "\\--- rule"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("see http://x.example", "see http&#58;//x.example"),
        ("hello @someone", "hello @\u200bsomeone"),
        ("two\nlines", "two lines"),
        ("back\\slash", "back\\\\slash"),
        ("plain words, 3.5 h (25 .. 29 h): +4.6 %", "plain words, 3.5 h (25 .. 29 h): +4.6 %"),
    ],
)
def test_markup_in_text_stays_text(hostile: str, inert: str) -> None:
    assert escape(hostile) == inert


@given(st.text(max_size=80))
def test_no_text_breaks_out_of_its_block(text: str) -> None:
    report = Report(
        text, (), (Section("S", (
            Table((Column("a"), Column("b")), ((text, "1"),)), Paragraph(text), Bullets((text,)),
            Facts((("label", text),)),
        )),)
    )  # fmt: skip
    rendered = markdown_text(report)
    assert "<" not in rendered
    assert not re.search(r"(?<!\\)(?:\\\\)*`", rendered.replace("\\\\", ""))
    (row,) = (line for line in rendered.splitlines() if line.endswith("| 1 |"))
    assert len(re.findall(r"(?<!\\)\|", row.replace("\\\\", ""))) == 3


def test_a_fence_is_longer_than_any_in_the_code() -> None:
    text = markdown_text(Report("t", (), (Section("", (Code(("```` x",), "sh"),)),)))
    assert "`````sh\n```` x\n`````" in text


def test_several_reports_are_separated() -> None:
    document = markdown_document([Report("one", (), ()), Report("two", (), ())])
    assert document == "## one\n\n---\n\n## two\n"
