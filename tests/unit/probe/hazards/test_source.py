"""Problems found in the source of a workload's file, and code that must not be reported."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from ctrkit.probe.hazards.source import look_at_files, look_at_source


def notes(text, kind, name="make_loader"):
    found = look_at_source(textwrap.dedent(text), name)
    return [(note.line, note.part, note.text) for note in found if note.kind == kind]


@pytest.mark.parametrize(
    "line",
    [
        "for batch in DataLoader(rows, num_workers=2): pass",
        "for i, batch in enumerate(DataLoader(rows, num_workers=n)): pass",
        "batches = [batch for batch in DataLoader(rows, num_workers=2)]",
        "first = next(iter(data.DataLoader(rows, num_workers=2)))",
        "loader = DataLoader(rows, num_workers=2); batches = list(loader)",
        "pool = multiprocessing.Pool(4)",
        "with ProcessPoolExecutor() as pool: pass",
        "torch.multiprocessing.spawn(train, nprocs=2)",
        "Process(target=run).start()",
        "worker = mp.Process(target=run); worker.start()",
        "if ready:\n    pool = Pool()",
    ],
)
def test_processes_started_at_the_top_of_a_file(line):
    assert len(notes(line, "unguarded")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "if __name__ == '__main__':\n    for b in DataLoader(rows, num_workers=2): pass",
        "if '__main__' == __name__:\n    pool = Pool()",
        "def main():\n    for b in DataLoader(rows, num_workers=2): pass",
        "for b in DataLoader(rows): pass",
        "for b in DataLoader(rows, num_workers=0): pass",
        "loader = DataLoader(rows, num_workers=2)",
        "thread = threading.Thread(target=run)\nthread.start()",
        "for name in names: pass",
        "class A:\n    def f(self):\n        Pool()",
    ],
)
def test_what_starts_nothing_is_left_alone(text):
    assert notes(text, "unguarded") == []


def test_a_function_that_starts_processes_is_followed():
    text = """
        def make_loader(workers):
            return DataLoader(rows, num_workers=workers)

        def train():
            for batch in make_loader(2):
                pass

        def main():
            train()

        make_loader(workers=0)
        main()
    """
    assert notes(text, "unguarded") == [(13, "", "calls main(), which starts processes")]
    harmless = text.replace("make_loader(2)", "make_loader(workers=0)")
    assert notes(harmless, "unguarded") == []


def test_threads_that_a_worker_may_raise():
    text = """
        import torch

        torch.set_num_threads(8)

        def make_loader():
            torch.set_num_threads(8)

        def init(worker):
            torch.set_num_threads(1)
            torch.set_num_threads(2)
            cv2.setNumThreads(0)

        class Rows:
            def __getitem__(self, index):
                cv2.setNumThreads(count)
    """
    assert notes(text, "threads") == [
        (11, "", "init calls set_num_threads"),
        (16, "", "__getitem__ calls setNumThreads"),
    ]


def test_lambdas_and_local_names_handed_to_a_loader():
    text = """
        def make_loader():
            class Local:
                pass
            def stack(rows):
                return rows
            first = lambda worker: None
            return DataLoader(
                Local(),
                collate_fn=stack,
                worker_init_fn=first,
            )

        LOADER = DataLoader(ROWS, collate_fn=lambda rows: rows)
        FINE = DataLoader(Rows(), collate_fn=stack, sampler=lambda: 1)
    """
    assert notes(text, "unpicklable") == [
        (9, "dataset", "Local, which is defined inside a function"),
        (10, "collate_fn", "stack, which is defined inside a function"),
        (11, "worker_init_fn", "first, which is defined inside a function"),
        (14, "collate_fn", "a lambda"),
    ]


def test_text_that_is_no_python_has_no_notes():
    assert look_at_source("def (") == ()
    assert look_at_source("") == ()
    assert look_at_source("\0") == ()


def write(folder: Path, **texts: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)


def seen(path: Path) -> set[tuple[str, str, int]]:
    return {(note.kind, note.file, note.line) for note in look_at_files(path, "make_loader")}


POOL = "pool = multiprocessing.Pool(4)\n"
LAMBDA = "def load(rows):\n    return DataLoader(rows, collate_fn=lambda x: x)\n"


def test_imports_in_the_users_own_folder_are_followed(tmp_path: Path) -> None:
    write(tmp_path, train="import helpers\nfrom data.rows import load\n", helpers=POOL)
    write(tmp_path / "data", __init__="from . import more\n", rows=LAMBDA, more=POOL)
    assert seen(tmp_path / "train.py") == {
        ("unguarded", "helpers.py", 1),
        ("unguarded", "more.py", 1),
        ("unpicklable", "rows.py", 2),
    }


def test_relative_imports_and_rings_of_them_are_followed(tmp_path: Path) -> None:
    inner = tmp_path / "pack" / "inner"
    write(tmp_path / "pack", __init__="", outer="from .inner import train\n" + POOL)
    write(inner, __init__="", train="from ..outer import x\nimport pack.other\n")
    write(tmp_path / "pack", other=POOL)
    assert seen(inner / "train.py") == {
        ("unguarded", "outer.py", 2), ("unguarded", "other.py", 1),
    }  # fmt: skip


def test_what_a_worker_does_not_import_starts_nothing_there(tmp_path: Path) -> None:
    write(
        tmp_path,
        train="def main():\n    import later\nif __name__ == '__main__':\n    import guarded\n",
        later=POOL + LAMBDA,
        guarded=POOL,
        other=POOL,
    )
    assert seen(tmp_path / "train.py") == {("unpicklable", "later.py", 3)}


def test_libraries_and_files_that_are_none_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, train="import torch, random, missing\nfrom . import gone\n", random=POOL)
    assert seen(tmp_path / "train.py") == set()
    assert seen(tmp_path / "absent.py") == set()
