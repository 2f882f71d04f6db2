"""Partial, damaged or hostile run folders: the best possible report, and nothing is executed."""

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from ctrkit.core.errors import UsageError
from ctrkit.report.listing import list_report, listed_run
from ctrkit.report.markdown import markdown_text
from ctrkit.report.run_reader import read_contents
from ctrkit.report.status import status_update
from ctrkit.report.terminal import report_text
from ctrkit.report.views import report_view
from tests.unit.report.golden.make import HERE

PROBE_FILES = ("run.json", "trials.parquet", "recommendation.json", "stamps.parquet")
TRAIN_FILES = ("run.json", "epochs.csv", "incidents.jsonl")
# What a report must still say, whichever one of its files is lost; by that file.
STILL = {
    "run.json": "use              cpu, thread loader", "trials.parquet": "use              cpu",
    "recommendation.json": "best so far",
    "stamps.parquet": "A step of the recommended configuration",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    return Path(shutil.copytree(HERE / request.param, tmp_path / "run"))


def flat(path: Path) -> str:
    return report_text(report_view(read_contents(path)), 1000)


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(content[: len(content) // 2] if how == "truncated" else b"")


@pytest.mark.parametrize("folder", ["probe"], indirect=True)
@pytest.mark.parametrize("name", PROBE_FILES)
@pytest.mark.parametrize("how", ["missing", "truncated", "empty"])
def test_a_partial_probe(folder: Path, name: str, how: str) -> None:
    damage(folder / name, how)
    text = flat(folder)
    assert text.startswith("Probe of ")
    assert STILL[name] in text
    assert text.count(name) >= 1
    assert name in text.partition("\nNot readable\n")[2]
    contents = read_contents(folder)
    assert "### Summary" in markdown_text(status_update(report_view(contents), contents))


@pytest.mark.parametrize("folder", ["train"], indirect=True)
@pytest.mark.parametrize("name", TRAIN_FILES)
@pytest.mark.parametrize("how", ["missing", "truncated", "empty"])
def test_a_partial_training_run(folder: Path, name: str, how: str) -> None:
    damage(folder / name, how)
    text = flat(folder)
    assert text.startswith("Run of ")
    if name != "epochs.csv":
        assert "validation AUC 0.5780 in epoch 3" in text
    if how == "truncated" or name == "run.json":
        assert name in text.partition("\nNot readable\n")[2]
    contents = read_contents(folder)
    assert "### Summary" in markdown_text(status_update(report_view(contents), contents))


@pytest.mark.parametrize("folder", ["train"], indirect=True)
def test_half_a_line_of_epochs_is_left_out_and_said(folder: Path) -> None:
    file = folder / "epochs.csv"
    whole = file.read_text()
    for cut in range(1, len(whole.splitlines()[-1])):
        file.write_text(whole[:-cut])
        contents = read_contents(folder)
        assert [row["epoch"] for row in contents.epochs] == [1, 2]
        assert contents.missing == ("epochs.csv: 1 line cut short or damaged, left out",)


@pytest.mark.parametrize("folder", ["probe"], indirect=True)
def test_without_its_run_json_a_run_claims_nothing_that_it_does_not_know(folder: Path) -> None:
    (folder / "run.json").write_text('{"schema_version": 1, "command":')
    text = flat(folder)
    assert text.startswith("Probe of an unknown workload, at an unknown time\n")
    assert "phase3" not in text
    assert "the default generated store" not in text
    assert "  15 epochs        1 d 1 h" in text
    assert "run.json: cannot be read" in text


@pytest.mark.parametrize("folder", ["probe", "train"], indirect=True)
@pytest.mark.parametrize("version", [2, 0, None, "1"])
def test_another_schema_version_is_refused_in_one_line(folder: Path, version: object) -> None:
    values = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(values | {"schema_version": version}))
    with pytest.raises(UsageError, match=r"run.json: schema version .*, but this ctrkit reads 1"):
        read_contents(folder)


def test_a_folder_with_nothing_of_a_run_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        read_contents(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="run.json: cannot be read"):
        read_contents(tmp_path)


# ---- hostile -------------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=y>\x1b[2J\x1b]0;owned\x07\r\n# head\n| a | b |\n"
    "\u202eevil\u2066\u200b `x` [l](javascript:y) @someone #12 \u05d0\u05d1 \u0645\u0631 "
)
# These say what kind of run or value it is; another value is not hostile, it is another schema.
STRUCTURE = {"command", "cell_id", "device", "loader", "start_method", "model", "schedule"}


def poisoned(value: Any, key: str = "") -> Any:
    """The JSON value with every free text made hostile, and very long."""
    if isinstance(value, dict):
        return {k: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    return HOSTILE + "long" * 400 if isinstance(value, str) and key not in STRUCTURE else value


@pytest.fixture
def hostile(folder: Path) -> Path:
    for name in ("run.json", "recommendation.json"):
        if (folder / name).exists():
            values = json.loads((folder / name).read_text())
            if name == "run.json":
                values["environment"][HOSTILE] = HOSTILE
                values["workload"]["phase"]["criteria"] = {HOSTILE: {HOSTILE: ">= 0.5"}}
                criteria = values["workload"]["phase"].pop("criteria")
                values = poisoned(values)
                values["workload"]["phase"]["criteria"] = criteria
            else:
                values = poisoned(values)
            (folder / name).write_text(json.dumps(values))
    incidents = folder / "incidents.jsonl"
    if incidents.exists():
        incidents.write_text(json.dumps(poisoned(json.loads(incidents.read_text()))) + "\n")
    return folder


@pytest.mark.parametrize("folder", ["probe", "train"], indirect=True)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_hostile_text_is_inert_in_the_terminal(hostile: Path, width: int) -> None:
    contents = read_contents(hostile)
    assert not contents.missing
    report = report_view(contents)
    for view in (report, status_update(report, contents), list_report([listed_run(hostile)])):
        text = report_text(view, width)
        assert "<script>" in text.replace("\n", "").replace(" ", "")
        steering = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")}
        assert steering <= {"\n", "\u2068", "\u2069"}
        assert "\u2068\u05d0" in text or "\u05d0" not in text


@pytest.mark.parametrize("folder", ["probe", "train"], indirect=True)
def test_hostile_text_is_inert_in_markdown(hostile: Path) -> None:
    contents = read_contents(hostile)
    text = markdown_text(status_update(report_view(contents), contents))
    outside, inside = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            outside.append(line)
    assert not inside
    prose = "\n".join(outside)
    assert "<" not in prose
    assert "](" not in prose.replace("\\]", "")
    assert "@someone" not in prose
    assert "#12" not in prose
    assert not [line for line in outside if line.startswith("# ")]
    steering = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")}
    assert steering <= {"\n", "\u200b"}
    assert "&#x2068;\u05d0\u05d1 \u0645\u0631&#x2069;" in prose
