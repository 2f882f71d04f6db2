from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data import default
from ctrkit.ctr.data.default import default_store, default_store_path
from ctrkit.ctr.data.planted import Scale
from ctrkit.ctr.data.store import Store

TINY = Scale(rows=60, users=10, items=10)


def test_built_once(own_home: Path) -> None:
    told: list[str] = []
    path = default_store(lambda text, _share: told.append(text), scale=TINY)
    assert path == default_store_path()
    assert own_home in path.parents
    assert told[-1] == "done"
    created = (path / "meta.json").stat().st_mtime_ns
    told.clear()
    assert default_store(lambda text, _share: told.append(text), scale=TINY) == path
    assert told == []
    assert (path / "meta.json").stat().st_mtime_ns == created
    visible = [child.name for child in path.parent.iterdir() if child.suffix != ".lock"]
    assert visible == [path.name]


def test_another_version_and_a_damaged_store_are_built_anew() -> None:
    path = default_store(scale=TINY)
    values = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(values | {"schema_version": 0}))
    default_store(scale=TINY)
    assert Store.open(path).meta.fingerprint == values["fingerprint"]
    (path / "impressions.arrow").write_bytes(b"half a file")
    default_store(scale=TINY)
    assert Store.open(path).meta.fingerprint == values["fingerprint"]


def test_what_killed_builds_and_other_versions_left_is_removed() -> None:
    path = default_store_path()
    killed = path.parent / f".{path.name}.abc123"
    older = path.parent / "default-v0.1"
    mine = path.parent / "my-own-store"
    for folder in (killed, older, mine):
        folder.mkdir(parents=True)
        (folder / "part").write_text("x")
    default_store(scale=TINY)
    assert not killed.exists()
    assert not older.exists()
    assert mine.exists()


def test_an_interrupted_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(text: str, _share: float) -> None:
        if text == "store":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        default_store(interrupt, scale=TINY)
    left = [child for child in default_store_path().parent.iterdir() if child.suffix != ".lock"]
    assert left == []
    assert Store.open(default_store(scale=TINY)).meta.rows["train"] == TINY.train_rows


HOLD = """
import sys, time
from pathlib import Path
from ctrkit.core.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_waiting_for_another_process_has_a_deadline() -> None:
    folder = default_store_path().parent
    folder.mkdir(parents=True)
    told: list[str] = []
    command = [sys.executable, "-c", HOLD, str(folder / "default.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            words = rf"another process \(pid {holder.pid}\) has been building"
            with pytest.raises(UsageError, match=words):
                default_store(lambda text, _share: told.append(text), scale=TINY, wait_s=0.05)
        finally:
            holder.kill()
    assert told == ["waiting for another process that builds the default store"]


BUILD = """
from ctrkit.ctr.data.default import default_store
from ctrkit.ctr.data.planted import Scale
from ctrkit.ctr.data.store import Store
told = []
path = default_store(
    lambda text, share: told.append(text), scale=Scale(rows=60, users=10, items=10), wait_s=60
)
print(Store.open(path).meta.created, "done" in told)
"""


def test_of_two_processes_one_builds() -> None:
    command = [sys.executable, "-c", BUILD]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        said = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
    assert [process.returncode for process in processes] == [0, 0], said
    found = [output.split() for output, _ in said]
    assert len({created for created, _ in found}) == 1
    assert sorted(built for _, built in found) == ["False", "True"]


def test_a_cache_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="set CTRKIT_HOME to another folder"):
        default_store(scale=TINY)


def test_the_name_holds_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    before = default_store_path()
    monkeypatch.setattr(default, "GENERATOR_VERSION", 999)
    assert default_store_path() != before
