"""Records about a script: its loaders, what the observer saw, what a recommendation changes.

Nothing here does any I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ctrkit.core.config import Cell


@dataclass(frozen=True, kw_only=True)
class ScriptLoader:
    """A DataLoader of a script, as it was when it was first iterated.

    Attributes:
        number: its number in its process, from 0, in order of first iteration.
        length: its `len()` then; None if that raised.
        batch_size: rows of its batches; None before the first one.
        file: the file in which the script made it; empty if unknown.
        line: the line in that file.
        shares_out: whether its iterable data set asks `get_worker_info`; None for a map-style one.
        unpicklable: what cannot be sent to spawned workers, and why; empty if all can.
        sampler: class of its sampler.
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
        pid: the training process.
        rank: its rank by torch's elastic launcher; None without one.
        torch_version: version of the script's torch.
        device: device of its training step: `cpu`, `cuda` or `mps`.
        devices: devices that its torch can use.
        threads: torch's intra-op threads in the training process.
        default_start_method: start method of its DataLoader if it names none.
        loaders: all DataLoaders that were iterated.
        train_loader: number of the one that it trains on; None if it trains on no DataLoader.
        clock: what marks a step: `loader`, `optimizer`, or empty if neither does.
        batches_per_group: batches per optimizer step (gradient accumulation).
        fetched_ahead: batches that the script takes before it trains on the first one.
        steps_per_batch: optimizer steps per batch.
        epochs: epochs of the whole run, if known.
        steps: steps of the whole run, if a loop over steps replaces epochs; batches, or optimizer
            steps if `steps_by_optimizer`.
        epochs_from: where that number comes from: `--epochs`, `train.py:42: range(args.epochs)`,
            ...
        epochs_at_most: whether early stopping may end the run sooner.
        epoch_batches: counted batches of the training loader's epoch; None before its end.
        main_guard: whether the script starts its work under `if __name__ == "__main__"`; None if
            unknown.
        batch_hashes: hashes of the first training batches, in order.
        row_hashes: hashes of the first training rows' indices, if a sampler draws them, in order.
        later_row_hashes: the same for the second epoch, if it began.
        ranks: processes of the group that trains, on this host.
        trainers: processes that train without being ranks of one group; if more than one, each has
            a loader of its own, and nothing is changed in them.
        problem: why nothing could be observed; empty if something was.
        notes: anything else worth knowing, a sentence each.
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
    ranks: int = 1
    trainers: int = 1
    problem: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ScriptAnswer:
    """What a recommendation means for a script.

    Args:
        as_written: the configuration of the script as written.
        faster_x: how many times as fast the recommended configuration is, with its 95 % interval
            beside it; None if it is the same, or could not be compared.
        experiment: whether it trains the same: `same batches`, `same rows, other order`, `other
            content` or `cannot tell`.
        experiment_why: the reason, a clause.
        command: the command with the flags filled in.
        change: the change to the script as a unified diff; empty if there is none.
        change_words: what to change if no diff can be made, or that there is no change.
        files_made: relative paths of files that appeared in the script's folder while the trials
            ran; trials or other programs made them.
        files_changed: the same for files that changed.
        sources: fingerprints of the script's source files at the beginning of the probe.
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
