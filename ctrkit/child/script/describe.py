"""Describes what the observer saw, as plain JSON values of `script_records.ScriptSeen`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ctrkit.child.script.presence import others_that_train

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer


def script_seen(observer: Observer) -> dict[str, Any]:
    """Everything known so far."""
    train, pattern, driver = observer.train, observer.pattern, observer.driver
    clock = "loader" if train is not None else "optimizer" if observer.optimizer_clock else ""
    reader = getattr(driver, "reader", None)
    length = getattr(reader, "length", None)
    owner = getattr(driver, "owner", None)
    return {
        "pid": os.getpid(),
        "rank": owner.rank if owner is not None else None,
        "torch_version": str(getattr(observer.torch, "__version__", "")),
        "device": observer.device,
        "devices": getattr(driver, "devices", None) or usable_devices(observer, ask_cuda=False),
        "threads": _threads(observer.torch),
        "default_start_method": _default_start_method(),
        "loaders": [one.as_json(one is train) for one in observer.loaders.all],
        "train_loader": train.number if train is not None else None,
        "clock": clock,
        "batches_per_group": pattern.group if train is not None else 1,
        "fetched_ahead": pattern.ahead or 0 if train is not None else 0,
        "steps_per_batch": pattern.steps_per_batch if train is not None else None,
        "epochs": getattr(length, "epochs", None),
        "steps": getattr(length, "steps", None),
        "steps_by_optimizer": getattr(length, "by_optimizer", False),
        "epochs_from": getattr(length, "told_by", ""),
        "epochs_at_most": getattr(length, "at_most", False),
        "epoch_batches": getattr(driver, "epoch_batches", None),
        "main_guard": getattr(reader, "main_guard", None),
        "batch_hashes": train.hashes if train is not None else [],
        "row_hashes": train.rows if train is not None else [],
        "later_row_hashes": train.later_rows if train is not None else [],
        "ranks": owner.world if owner is not None else 1,
        "trainers": 1 + others_that_train(observer.folder, observer.presence.launch),
        "problem": observer.problem,
        "notes": observer.notes,
    }


def place_of(tensors: Any) -> Any:
    """The `torch.device` that a loss is on; None if it is no tensor."""
    if isinstance(tensors, (list, tuple)) and tensors:
        tensors = tensors[0]
    return getattr(tensors, "device", None)


def place_of_optimizer(optimizer: Any) -> Any:
    """The `torch.device` of an optimizer's first parameter; None if it has none."""
    groups: Any = getattr(optimizer, "param_groups", None)
    return place_of(list(groups[0]["params"])) if groups else None


def usable_devices(observer: Observer, *, ask_cuda: bool) -> list[str]:
    """Devices that the script's torch can use.

    `ask_cuda`: whether CUDA may be asked, since that can break a later fork of this process.
    """
    torch, found = observer.torch, ["cpu"]
    if torch is None:
        return found
    if observer.device == "cuda" or (ask_cuda and torch.cuda.is_available()):
        found.append("cuda")
    backend = getattr(torch.backends, "mps", None)
    if backend is not None and backend.is_available():
        found.append("mps")
    return found


def _threads(torch: Any) -> int | None:
    return int(torch.get_num_threads()) if torch is not None else None


def _default_start_method() -> str:
    import multiprocessing

    method = multiprocessing.get_start_method(allow_none=True)
    return str(method or multiprocessing.get_all_start_methods()[0])
