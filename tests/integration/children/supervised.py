"""A child with one behaviour, good or bad: `supervised.py FOLDER BEHAVIOUR`."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ctrkit.core.lifeline import end_with_supervisor, share_sockets_folder
from ctrkit.core.progress import ProgressWriter, Stage
from ctrkit.core.stacks_signal import arm_stacks

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def save(folder: Path, **values: object) -> None:
    (folder / "measurement.json").write_text(json.dumps({"kind": "full", **values}))


def steps(progress: ProgressWriter, count: int, seconds: float) -> None:
    progress.enter(Stage.FIRST_BATCH, epoch=1)
    progress.enter(Stage.STEP)
    for step in range(1, count + 1):
        time.sleep(seconds)
        progress.step(step, rows=8)


def finish(folder: Path, progress: ProgressWriter) -> None:
    save(folder, complete=True)
    progress.enter(Stage.DONE)


def healthy(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 10, 0.02)
    finish(folder, progress)


def slow(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 4, 0.8)
    finish(folder, progress)


def partial(folder: Path, progress: ProgressWriter) -> None:
    save(folder, complete=False)


def endless(folder: Path, progress: ProgressWriter) -> None:
    save(folder, complete=False)
    steps(progress, 100_000, 0.05)


def waiting(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    threading.Event().wait()


def spinning(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    while True:
        pass


def stopped(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    os.kill(os.getpid(), signal.SIGSTOP)


def wakes_on_a_signal(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    # C's pause(): it ends when any caught signal arrives, as a lost wake-up would
    ctypes.CDLL(None).pause()
    steps(progress, 100_000, 0.05)


def killed(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def segfault(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    ctypes.string_at(0)


def exits_with_3(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    sys.exit(3)


def raises(folder: Path, progress: ProgressWriter) -> None:
    progress.enter(Stage.MODEL)
    raise ValueError("no such column 'price'")


def reports_an_error(folder: Path, progress: ProgressWriter) -> None:
    error = {"verdict": "crashed", "stage": "step", "traceback": "...",
             "message": "RuntimeError: MPS backend out of memory"}  # fmt: skip
    save(folder, complete=False, error=error)
    sys.exit(1)


def leaves_a_grandchild(folder: Path, progress: ProgressWriter) -> None:
    double = (
        "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], start_new_session=True, "
        "stdout=subprocess.DEVNULL).pid)"
    )
    command = [sys.executable, "-c", double, *SLEEPER]
    pids = [int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)]
    pids += [subprocess.Popen(SLEEPER, start_new_session=True).pid, subprocess.Popen(SLEEPER).pid]
    (folder / "grandchildren").write_text(" ".join(map(str, pids)))
    steps(progress, 3, 0.01)
    finish(folder, progress)


def never_exits(folder: Path, progress: ProgressWriter) -> None:
    steps(progress, 3, 0.01)
    threading.Thread(target=threading.Event().wait).start()
    finish(folder, progress)


def finishes_on_sigint(folder: Path, progress: ProgressWriter) -> None:
    asked = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: asked.set())
    progress.enter(Stage.STEP, epoch=1)
    step = 0
    while not asked.is_set():
        step += 1
        time.sleep(0.02)
        progress.step(step)
    save(folder, complete=False)


def computes_metrics(folder: Path, progress: ProgressWriter) -> None:
    """On one core, for longer than its limit."""
    steps(progress, 3, 0.01)
    progress.enter(Stage.METRICS)
    until_s = time.monotonic() + 5
    while time.monotonic() < until_s:
        pass
    finish(folder, progress)


def writes_slowly(folder: Path, progress: ProgressWriter) -> None:
    """As a checkpoint on a slow disk: it sleeps in the write."""
    steps(progress, 3, 0.01)
    progress.enter(Stage.CHECKPOINT)
    threading.Event().wait(5)
    finish(folder, progress)


def fails_on_sigint(folder: Path, progress: ProgressWriter) -> None:
    finishes_on_sigint(folder, progress)
    progress.enter(Stage.CHECKPOINT)
    raise RuntimeError("no room for the checkpoint")


def ignores_sigint(folder: Path, progress: ProgressWriter) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    endless(folder, progress)


def talks_too_much(folder: Path, progress: ProgressWriter) -> None:
    for _ in range(70):
        os.write(1, b"x" * 999_999 + b"\n")
    steps(progress, 15, 0.1)
    os.write(1, b"the end\n")
    finish(folder, progress)


def leaks_shared_memory(folder: Path, progress: ProgressWriter) -> None:
    from multiprocessing import shared_memory

    segment = shared_memory.SharedMemory(create=True, size=4096)
    (folder / "segment").write_text(segment.name)
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    waiting(folder, progress)


def leaves_a_socket(folder: Path, progress: ProgressWriter) -> None:
    """A spawned process listens, as torch's workers do to hand over tensors, and is killed."""
    import multiprocessing

    process = multiprocessing.get_context("spawn").Process(target=listen, args=(folder,))
    process.start()
    process.join(60)
    finish(folder, progress)


def listen(folder: Path) -> None:
    from multiprocessing.connection import Listener

    with Listener() as listener:
        (folder / "socket").write_text(str(listener.address))
        os.kill(os.getpid(), signal.SIGKILL)


def fork_with_lock(folder: Path, progress: ProgressWriter) -> None:
    """A DataLoader whose workers are forked while another thread holds a lock."""
    import torch
    from torch.utils.data import DataLoader, Dataset

    lock = threading.Lock()
    held = threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            time.sleep(600)

    class Rows(Dataset):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> torch.Tensor:
            with lock:  # never free in the worker
                return torch.tensor(index)

    threading.Thread(target=hold, daemon=True).start()
    held.wait()
    progress.enter(Stage.FIRST_BATCH, epoch=1)
    loader = DataLoader(Rows(), batch_size=8, num_workers=2, multiprocessing_context="fork")
    next(iter(loader))


def worker_dies(folder: Path, progress: ProgressWriter) -> None:
    import torch
    from torch.utils.data import DataLoader, Dataset

    class Rows(Dataset):
        def __len__(self) -> int:
            return 64

        def __getitem__(self, index: int) -> torch.Tensor:
            if index == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.tensor(index)

    progress.enter(Stage.FIRST_BATCH, epoch=1)
    loader = DataLoader(Rows(), batch_size=8, num_workers=1, multiprocessing_context="fork")
    for step, _ in enumerate(loader, 1):
        progress.step(step)


def busy_family(folder: Path, progress: ProgressWriter) -> None:
    """For the death of the supervisor: blocked and busy children, in and out of the session."""
    subprocess.Popen(SLEEPER, start_new_session=True)
    subprocess.Popen([sys.executable, "-c", "while True: pass"])
    (folder / "ready").touch()
    endless(folder, progress)


def main() -> None:
    end_with_supervisor()
    folder, behaviour = Path(sys.argv[1]), sys.argv[2]
    arm_stacks(folder)
    share_sockets_folder()
    globals()[behaviour](folder, ProgressWriter(folder / "progress.bin"))


if __name__ == "__main__":
    main()
