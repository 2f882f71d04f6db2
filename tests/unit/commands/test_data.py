from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands.data import info, prepare, synth
from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.store import read_meta

SIZES = {"rows": 2000, "users": 300, "items": 200}
COLUMNS = {"user": "u", "item": "i", "time": "t", "label": "y"}


@pytest.fixture(scope="module")
def csvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "csvs"
    synth(out=folder, **SIZES, format_="tianchi")
    return folder


@pytest.fixture(scope="module")
def store(csvs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "store"
    prepare(out=folder, source=csvs)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text("u,i,t,y\n" + "".join(f"a,{i},{1_500_000_000 + i},1\n" for i in range(20)))
    return path


def _assert_readable(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text
    assert max(map(len, text.splitlines())) <= 80


def test_prepare_shows_counts_bad_rows_and_fingerprint(
    csvs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "store"
    prepare(out=out, source=csvs, split="random", sample_users=0.9, memory_limit="300MB")
    meta = read_meta(out)
    shown = capsys.readouterr()
    reasons = [reason.split(":")[1].split("(")[0].strip()[:20] for reason in meta.bad_rows]
    counts = [f"{count:,}" for count in meta.bad_rows.values()]
    assert len(reasons) >= 4
    rows = f"{meta.rows['train']:,}"
    command = f"    ctrkit probe --data {out}"
    assert command in shown.out.splitlines()
    text = shown.out.replace(command, "").replace(str(out), "")
    _assert_readable(text, meta.fingerprint, rows, "random: 14/17", *reasons, *counts)
    assert "reading raw_sample.csv: 2,000 rows at " in shown.err


def test_prepare_goes_on_after_ctrl_c_unless_fresh(
    csvs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for fresh, expected in ((False, "1 stages are finished"), (True, "starting over")):
        out = tmp_path / f"store-{fresh}"
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("ctrkit.ctr.data.tianchi_files.TianchiFiles.read_ads", interrupt)
            prepare(out=out, source=csvs)
        assert "the same command continues" in " ".join(capsys.readouterr().err.split())
        prepare(out=out, source=csvs, fresh=fresh)
        told = " ".join(capsys.readouterr().err.split())
        assert expected in told
        assert ("raw_sample.csv: finished before" in told) == (not fresh)


def test_prepare_a_table(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(out=tmp_path / "store", table=table, **COLUMNS)
    assert read_meta(tmp_path / "store").rows == {"train": 17, "validation": 3}
    assert "label 1" in capsys.readouterr().out


def test_a_loss_and_what_is_odd_stand_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{number}.0,{number},{1_500_000_000 + number},1\n" for number in range(90))
    bad = "7,1,soon\x1b[2J,1\n" * 3
    (tmp_path / "log.csv").write_text("u,i,t,y\n" + rows + bad)
    monkeypatch.setenv("FORCE_COLOR", "1")
    prepare(out=tmp_path / "store", table=tmp_path / "log.csv", **COLUMNS)
    shown = capsys.readouterr().out
    yellow = "\x1b[33m"
    assert f"{yellow}93 rows = 90 used + 3 dropped (3.2 %)" in shown
    assert f"{yellow}every row is positive" in shown
    assert f"{yellow}line 92: 'soon\\x1b[2J'" in shown
    assert "\x1b[2J" not in shown


def test_info_says_when_the_impressions_were(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(out=tmp_path / "store", table=table, **COLUMNS)
    capsys.readouterr()
    info(tmp_path / "store")
    assert "2017-07-14 02:40:00 UTC to 2017-07-14 02:40:19 UTC" in capsys.readouterr().out
    info(tmp_path / "store", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert (document["first_time_s"], document["last_time_s"]) == (1_500_000_000, 1_500_000_019)
    assert document["reading"]["rows"] == document["reading"]["used"] == 20


def test_synth_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synth(out=tmp_path / "store", **SIZES, seed=3)
    meta = read_meta(tmp_path / "store")
    assert sum(meta.rows.values()) == 2000
    assert meta.fingerprint in capsys.readouterr().out


def test_synth_tianchi_lists_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synth(out=tmp_path / "csvs", **SIZES, format_="tianchi")
    shown = capsys.readouterr().out
    for name in ("raw_sample", "ad_feature", "user_profile", "behavior_log"):
        assert f"{name}.csv" in shown
        assert (tmp_path / "csvs" / f"{name}.csv").is_file()


def test_synth_tianchi_with_that_many_behaviours(tmp_path: Path) -> None:
    synth(out=tmp_path / "csvs", **SIZES, behaviors=50_000, format_="tianchi")
    lines = (tmp_path / "csvs" / "behavior_log.csv").read_bytes().count(b"\n")
    assert 35_000 < lines < 65_000


def test_info_for_people_and_programs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meta = read_meta(store)
    capsys.readouterr()
    info(store)
    text = capsys.readouterr().out.replace(str(store), "")
    _assert_readable(text, meta.fingerprint, "history length", "validation", "brand")
    info(store, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["fingerprint"] == meta.fingerprint
    assert document["bad_rows"] == meta.bad_rows
    assert document["size_bytes"] == sum(file.stat().st_size for file in store.iterdir())


def test_info_of_no_store(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        info(tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name either --source DIR"),
        ({"source": Path("a"), "table": Path("b")}, "name either --source DIR"),
        ({"table": Path("b"), "user": "u", "item": "i", "time": "t"}, "--table needs --label"),
        ({"table": Path("b"), **COLUMNS, "sample_users": 0.5}, "--sample-users belongs to"),
        ({"source": Path("a"), "user": "u"}, "--user belongs to --table"),
        ({"source": Path("a"), "time_unit": "s"}, "--time-unit belongs to --table"),
        ({"source": Path("a"), "label_threshold": 0.0}, "--label-threshold belongs to --table"),
        ({"source": Path("a"), "memory_limit": "lots"}, "--memory-limit: 'lots' is not a size"),
        ({"source": Path("a"), "memory_limit": "1MB"}, "--memory-limit 1MB: must be at least"),
        ({"source": Path("/none")}, "--source /none: no such folder"),
    ],
)
def test_wrong_use_of_prepare(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(out=tmp_path / "store", **options)
    assert not list(tmp_path.iterdir())


def test_wrong_use_of_synth(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--format csv: unknown; choose store or tianchi"):
        synth(out=tmp_path / "store", format_="csv")
    with pytest.raises(UsageError, match="--behaviors belongs to --format tianchi"):
        synth(out=tmp_path / "store", behaviors=10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="the folder is not empty"):
        synth(out=tmp_path / "full")
    with pytest.raises(UsageError, match="the folder is not empty"):
        prepare(out=tmp_path / "full", source=tmp_path)
