"""What is seen in the text of a workload's file, and what is left alone."""

from __future__ import annotations

import textwrap

import pytest

from ctrkit.probe.hazards.source import look_at_source


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
