"""Records about a script: its loaders, what the observer saw, what a recommendation changes.

Nothing here does any I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ctrkit.core.config import Cell


@dataclass(frozen=True, kw_only=True)
class ScriptLoader:
    """A DataLoader that a script made, as it was when it was first iterated.

    `number` counts the loaders of its process in the order of their first iterator, from 0.
    `length` is what `len()` claimed then, None where it raised. `batch_size` is of the batches
    that came, None before one. `file` and `line`: where the script made it, empty if not known.
    `shares_out`: an iterable data set that asks `get_worker_info`; None for a map-style one.
    `unpicklable`: what cannot be sent to spawned workers, and why; empty where all can.
    `sampler`: the class of what draws its rows.
    """

    number: int
    dataset: str
    length: int | None = None
    batch_size: int | None = None
    workers: int = 0
    start_method: str | None = None
    prefetch: int | None = None
    persistent: bool = False
    pin: bool = False
    iterable: bool = False
    shares_out: bool | None = None
    unpicklable: str = ""
    sampler: str = ""
    file: str = ""
    line: int = 0
    batches_taken: int = 0
    is_train: bool = False


@dataclass(frozen=True, kw_only=True)
class ScriptSeen:
    """What the observer in a script's process saw: `script.json` in the child's folder.

    Args:
        pid: the process that trains.
        rank: of torch's elastic launcher, None without one.
        torch_version: the script's own.
        device: where its training step runs: `cpu`, `cuda` or `mps`.
        devices: those that its torch can use.
        threads: torch's intra-op threads in the process that trains.
        default_start_method: how its DataLoader starts workers where it names no way.
        loaders: all that were iterated.
        train_loader: number of the one whose batches are trained on; None where no DataLoader is.
        clock: what a step is told by: `loader`, `optimizer`, or empty: it cannot be told.
        batches_per_group: batches that belong to one optimizer step (gradient accumulation).
        fetched_ahead: batches that the script takes before it trains on the first.
        steps_per_batch: optimizer steps a batch.
        epochs: of the whole run, where something tells.
        steps: of the whole run, where a loop over steps tells instead of epochs: batches, or
            optimizer steps where `steps_by_optimizer`.
        epochs_from: what tells, in words: `--epochs`, `train.py:42: range(args.epochs)`, ...
        epochs_at_most: whether early stopping may end it sooner.
        epoch_batches: batches of the training loader's epoch, counted; None before its end.
        main_guard: whether the script starts its work under `if __name__ == "__main__"`; None
            where that cannot be told.
        batch_hashes: of the first training batches, in order.
        row_hashes: of the first training rows' indices, where a sampler names them, in order.
        later_row_hashes: the same of the second epoch, where it was begun.
        trainers: processes that train without being ranks of one group: with more than one, each
            has a loader of its own, and nothing is put in.
        problem: why nothing could be observed, empty where it could.
        notes: what else there is to know, a sentence each.
    """

    pid: int
    rank: int | None = None
    torch_version: str = ""
    device: str = "cpu"
    devices: list[str] = field(default_factory=list)
    threads: int | None = None
    default_start_method: str = ""
    loaders: list[ScriptLoader] = field(default_factory=list)
    train_loader: int | None = None
    clock: str = ""
    batches_per_group: int = 1
    fetched_ahead: int = 0
    steps_per_batch: float | None = None
    epochs: int | None = None
    steps: int | None = None
    steps_by_optimizer: bool = False
    epochs_from: str = ""
    epochs_at_most: bool = False
    epoch_batches: int | None = None
    main_guard: bool | None = None
    batch_hashes: list[str] = field(default_factory=list)
    row_hashes: list[str] = field(default_factory=list)
    later_row_hashes: list[str] = field(default_factory=list)
    trainers: int = 1
    problem: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ScriptAnswer:
    """What a recommendation means for a script.

    Args:
        as_written: the configuration that the script asks for itself.
        faster_x: how many times as fast as that the recommended one is, with its 95 % interval
            beside it; None where it is the same or could not be compared.
        experiment: whether it trains the same: one of `same batches`, `same rows, other order`,
            `other content`, `cannot tell`.
        experiment_why: more on that, a clause.
        command: the command with the flags filled in.
        change: the change to the script as a unified diff; empty where there is none.
        change_words: what to change where no diff can be made, or nothing needs to change.
        files_made: relative paths of files that appeared in the script's folder while the trials
            ran; trials or other programs made them.
        files_changed: of files that changed meanwhile.
        sources: fingerprints of the script's source files, as they were when the probe began.
    """

    as_written: Cell
    faster_x: float | None = None
    faster_x_low: float | None = None
    faster_x_high: float | None = None
    experiment: str = ""
    experiment_why: str = ""
    command: list[str] = field(default_factory=list)
    change: str = ""
    change_words: str = ""
    files_made: list[str] = field(default_factory=list)
    files_changed: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
