from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.preparation import Preparation, difference, preparing
from ctrkit.ctr.data.stage_progress import StageProgress, Watcher
from ctrkit.ctr.data.store import Store, StoreMeta
from ctrkit.ctr.data.workspace import LimitError


class Heard(Watcher):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.states: dict[str, str] = {}

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stage(self, progress: StageProgress) -> None:
        self.states[progress.name] = progress.state


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.csv"
    path.write_text("1\n2\n")
    return path


@contextmanager
def _preparing(
    source: Path, *, seed: int = 1, fresh: bool = False, watcher: Watcher | None = None
) -> Iterator[Preparation]:
    with preparing(
        source.parent / "store", inputs=[source], options={"--seed": seed}, fresh=fresh,
        memory_limit_bytes=10**9, threads=1, watcher=watcher,
    ) as preparation:  # fmt: skip
        yield preparation


def _add(preparation: Preparation, *, events: int = 0, rows: int = 0) -> None:
    preparation.builder.add_behaviors(*np.full((3, events), 2, np.int32))
    preparation.builder.add_impressions(np.full((rows, 8), 0, np.int32), np.zeros(rows, np.int32))


def _finish(preparation: Preparation) -> StoreMeta:
    vocabulary = dict.fromkeys(("item", "category", "user", "history_item", "history_category"), 5)
    texts: dict[str, Any] = {"name": "", "source": "", "split": "time", "split_detail": ""}
    preparation.builder.add_users(pa.table({"user": [2]}))
    return preparation.finish(
        vocabulary=vocabulary, rows={"train": 2, "validation": 1}, history={}, **texts
    )


def _whole(preparation: Preparation) -> StoreMeta:
    preparation.space.stage("one", lambda: _add(preparation, events=5))
    preparation.space.stage("two", lambda: _add(preparation, rows=3))
    return _finish(preparation)


def _interrupted(source: Path, watcher: Watcher | None = None) -> None:
    """Leaves one finished stage and half of another."""
    with pytest.raises(KeyboardInterrupt), _preparing(source, watcher=watcher) as preparation:
        preparation.space.stage("one", lambda: _add(preparation, events=5))
        preparation.space.run("BEGIN")
        _add(preparation, rows=2)
        raise KeyboardInterrupt


def _left(source: Path) -> list[str]:
    return sorted(path.name for path in source.parent.iterdir())


def test_it_goes_on_with_what_the_builder_had_at_the_end_of_the_last_stage(source: Path) -> None:
    heard = Heard()
    _interrupted(source, heard)
    assert "with --fresh it starts over" in heard.notes[-1]
    assert _left(source) == [".store.preparing", "source.csv"]
    with _preparing(source, watcher=heard) as preparation:
        meta = _whole(preparation)
    assert "1 stages are finished" in heard.notes[-1]
    assert heard.states == {"one": "skipped", "two": "done", "writing the store": "done"}
    assert _left(source) == ["source.csv", "store"]
    other = source.with_name("other")
    with preparing(
        other, inputs=[source], options={}, memory_limit_bytes=10**9, threads=1
    ) as preparation:
        assert _whole(preparation).fingerprint == meta.fingerprint
    assert Store.open(source.parent / "store").meta == meta


def _touch(source: Path) -> None:
    os.utime(source, ns=(1, 1))


def _swap(source: Path) -> None:
    """Another content of the same size and time."""
    status = source.stat()
    source.write_text("1\n3\n")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [_touch, _swap, lambda path: path.write_text("1\n2\n3\n")])
def test_a_changed_input_begins_anew(source: Path, change: Any) -> None:
    _interrupted(source)
    change(source)
    heard = Heard()
    with _preparing(source, watcher=heard) as preparation:
        _whole(preparation)
    assert heard.states["one"] == "done"
    assert heard.notes[0].startswith("starting over")
    assert heard.notes[0].endswith("source.csv has changed since then")


@pytest.mark.parametrize(
    ("options", "why"), [({"seed": 2}, "--seed is 2, but was 1"), ({"fresh": True}, "--fresh")]
)
def test_other_options_begin_anew(source: Path, options: dict[str, Any], why: str) -> None:
    _interrupted(source)
    heard = Heard()
    with _preparing(source, watcher=heard, **options) as preparation:
        _whole(preparation)
    assert heard.states["one"] == "done"
    assert heard.notes == [f"starting over instead of continuing from .store.preparing: {why}"]


def test_a_damaged_manifest_begins_anew(source: Path) -> None:
    _interrupted(source)
    for content in ("{", "[]", '{"versions": [], "options": 3}'):
        (source.parent / ".store.preparing" / "manifest.json").write_text(content)
        heard = Heard()
        with pytest.raises(KeyboardInterrupt), _preparing(source, watcher=heard):
            raise KeyboardInterrupt
        assert heard.notes[0].startswith("starting over")


@pytest.mark.parametrize(("error", "kept"), [(UsageError, False), (LimitError, True)])
def test_only_what_can_go_on_is_kept(source: Path, error: type[UsageError], kept: bool) -> None:
    with pytest.raises(error), _preparing(source):
        raise error("on purpose")
    assert (".store.preparing" in _left(source)) == kept


def test_a_full_disk_is_said_and_the_work_kept(source: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written: No space left"), _preparing(source):
        raise OSError(28, "No space left on device")
    assert ".store.preparing" in _left(source)


def test_killed_after_the_store_was_whole_it_only_gets_its_name(source: Path) -> None:
    with pytest.raises(KeyboardInterrupt), _preparing(source) as preparation:
        meta = _whole(preparation)
        raise KeyboardInterrupt
    with _preparing(source) as preparation:
        assert _whole(preparation) == meta
    files = [path.name for path in (source.parent / "store").iterdir()]
    assert not [name for name in files if name.endswith(".part")]
    assert Store.open(source.parent / "store").meta == meta


HOLDS_THE_LOCK = """
import sys
from pathlib import Path
from ctrkit.core.locks import only_writer

with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_only_one_process_prepares(source: Path) -> None:
    _interrupted(source)
    command = [sys.executable, "-c", HOLDS_THE_LOCK, source.parent / ".store.preparing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        message = rf"another ctrkit data prepare \(pid {other.pid}\)"
        with pytest.raises(UsageError, match=message), _preparing(source):
            pass
    assert ".store.preparing" in _left(source)


def test_out_must_be_free(source: Path) -> None:
    out = source.parent / "store"
    out.mkdir()
    (out / "file").touch()
    with pytest.raises(UsageError, match="the folder is not empty"), _preparing(source):
        pass
    (out / "file").unlink()
    with _preparing(source) as preparation:
        _whole(preparation)
    assert (out / "meta.json").is_file()


def test_killed_when_only_the_workspace_was_left_it_says_that_the_store_is_finished(
    source: Path,
) -> None:
    with _preparing(source) as preparation:
        _whole(preparation)
    (source.parent / ".store.preparing").mkdir()
    with pytest.raises(UsageError, match="finished this store"), _preparing(source):
        pass
    assert ".store.preparing" not in _left(source)


def test_difference_of_manifests() -> None:
    now = {"versions": [1, 1], "options": {"a": 1}, "inputs": {"f": {"size_bytes": 1}}}
    assert difference(now, now) is None
    assert "another version" in str(difference(now | {"versions": [0, 1]}, now))
    assert difference(now | {"options": {"a": None}}, now) == "a is 1, but was None"
    assert difference(now | {"inputs": {}}, now) == "f was not read then"
    assert difference(now | {"inputs": {**now["inputs"], "g": {}}}, now) is not None
