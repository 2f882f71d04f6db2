"""Finds the length of a run by a variable's name, or from a framework's trainer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ctrkit.child.script.length import Length
from ctrkit.child.script.running_frames import RunningFrame
from ctrkit.child.script.source_loops import PATIENCE

#: Names of attributes and variables that hold the number of epochs.
EPOCH_NAMES = (
    "epochs", "num_epochs", "n_epochs", "max_epochs", "total_epochs", "num_train_epochs",
    "max_epoch", "nb_epochs", "nepochs", "n_epoch", "num_epoch",
)  # fmt: skip


def named_length(frames: Sequence[RunningFrame]) -> Length | None:
    """The length from a variable, or an attribute of `self`, named like the number of epochs."""
    for frame in frames:
        owners = [("", frame.names)]
        for name in ("self", "args", "opt", "config", "cfg"):
            stored = getattr(frame.names.get(name), "__dict__", None)
            if isinstance(stored, dict):
                owners.append((f"{name}.", stored))
        for prefix, names in owners:
            for name in (*EPOCH_NAMES, *(f"_{one}" for one in EPOCH_NAMES)):
                value = names.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    told_by = f"{prefix}{name} in {os.path.basename(frame.file)}:{frame.line}"
                    return Length(epochs=value, told_by=told_by, at_most=_names_patience(names))
    return None


def _names_patience(names: dict[str, Any]) -> bool:
    return any(part in str(name).lower() for name in names for part in PATIENCE)


def framework_length(frames: Sequence[RunningFrame]) -> Length | None:
    """The length from a framework's trainer, if one of these frames belongs to it."""
    for frame in frames:
        owner = frame.names.get("self")
        for read in (_trainer_length, _lightning_length):
            told = read(owner)
            if told is not None:
                return told
    return None


def _trainer_length(owner: Any) -> Length | None:
    """The length from a Hugging Face Trainer."""
    state = getattr(owner, "__dict__", {}).get("state")
    if state is None or type(state).__name__ != "TrainerState":
        return None
    steps, epochs = state.max_steps, state.num_train_epochs
    stops = _has_early_stopping(getattr(owner, "callback_handler", None))
    asked = getattr(getattr(owner, "args", None), "max_steps", -1)
    if asked is not None and asked > 0:
        return Length(steps=int(asked), told_by="TrainingArguments.max_steps", at_most=stops)
    if epochs and epochs > 0:
        return Length(
            epochs=int(epochs), steps=int(steps) if steps and steps > 0 else None,
            told_by="Trainer's num_train_epochs", at_most=stops,
        )  # fmt: skip
    return None


def _lightning_length(owner: Any) -> Length | None:
    """The length from a Lightning Trainer."""
    stored = getattr(owner, "__dict__", {})
    trainer = stored.get("trainer") or stored.get("_trainer")
    fit_loop = getattr(trainer, "__dict__", {}).get("fit_loop")
    if fit_loop is None or not hasattr(fit_loop, "max_epochs"):
        return None
    stops = _has_early_stopping(trainer)
    epochs, steps = fit_loop.max_epochs, getattr(fit_loop, "max_steps", -1)
    limit = int(steps) if steps is not None and steps > 0 else None
    if epochs is not None and epochs > 0:
        return Length(
            epochs=int(epochs), steps=limit, told_by="Trainer(max_epochs)",
            at_most=stops or limit is not None,
        )  # fmt: skip
    if limit is not None:
        return Length(steps=limit, told_by="Trainer(max_steps)", at_most=stops)
    return Length(told_by="")


def _has_early_stopping(owner: Any) -> bool:
    callbacks = getattr(owner, "callbacks", None) or ()
    return any("EarlyStopping" in type(callback).__name__ for callback in callbacks)
