"""The cell that a script runs in as its author wrote it, and what a probe can vary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrkit.core.child_records import Inspection, Measurement
from ctrkit.core.command_line import PUT_IN, placeholders_of
from ctrkit.core.config import Cell, RunSizes, ScriptSpec, make_cell
from ctrkit.core.environment import fingerprint
from ctrkit.core.script_records import ScriptLoader, ScriptSeen
from ctrkit.core.script_sources import sources_of
from ctrkit.measure.epoch_length import epoch_length, with_length

#: The loader of a script's cells: the script's own DataLoader, or none.
SCRIPT_LOADER, NO_LOADER = "script", "none"


def train_loader_of(seen: ScriptSeen) -> ScriptLoader | None:
    """The DataLoader that the script trains on; None if there is none."""
    return next((one for one in seen.loaders if one.number == seen.train_loader), None)


def first_values(script: ScriptSpec, axes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A value for each placeholder of the command: the first one named, else the simplest."""
    simplest: dict[str, Any] = {"workers": 0, "device": "cpu", "prefetch": 2, "nproc": 1}
    values: dict[str, Any] = {}
    for axis in placeholders_of(script.command):
        named = [value for value in axes.get(axis, ()) if value != "auto"]
        if named or axis in simplest:
            values[axis] = named[0] if named else simplest[axis]
    return values


def as_written_cell(script: ScriptSpec, seen: ScriptSeen, values: Mapping[str, Any]) -> Cell:
    """The configuration of the script as written.

    Args:
        script: the script; its placeholders get `values`.
        seen: what the observer saw.
        values: the result of `first_values`.
    """
    loader = train_loader_of(seen)
    name = SCRIPT_LOADER if loader is not None else NO_LOADER
    axes: dict[str, Any] = {"device": seen.device, "loader": name}
    if loader is not None:
        # torch ignores pinned memory for other devices: it is no difference between cells there
        pins = loader.pin and seen.device == "cuda"
        axes |= {"workers": loader.workers, "pin": pins, "batch_size": loader.batch_size or 1}
    if loader is not None and loader.workers:
        axes |= {
            "start_method": loader.start_method or seen.default_start_method or None,
            "prefetch": loader.prefetch,
            "persistent": loader.persistent,
        }
    axes["batch_size"] = axes.get("batch_size", 1)
    axes["threads"] = seen.threads
    own = {axis: value for axis, value in values.items() if axis in ("nproc", "batch_size")}
    return make_cell("the script as written", **axes | own)


def variable_axes(script: ScriptSpec, seen: ScriptSeen) -> tuple[str, ...]:
    """Axes that a probe can vary: by a placeholder, or changed from inside."""
    named = placeholders_of(script.command)
    inside = PUT_IN if train_loader_of(seen) is not None else ()
    return tuple(dict.fromkeys((*named, *inside)))


def heeded_axes(script: ScriptSpec, seen: ScriptSeen) -> tuple[str, ...]:
    """Axes that advice may name: those that can vary and that the loader can take.

    An iterable data set that does not divide itself among workers can have at most one.
    """
    loader, named = train_loader_of(seen), placeholders_of(script.command)
    axes = variable_axes(script, seen)
    if loader is not None and loader.iterable and loader.shares_out is not True:
        return tuple(axis for axis in axes if axis in named or axis not in PUT_IN)
    return axes


def put_in_axes(script: ScriptSpec) -> list[str]:
    """Axes that the observer changes from inside: those without a placeholder."""
    named = placeholders_of(script.command)
    return [axis for axis in PUT_IN if axis not in named]


def script_inspection(
    script: ScriptSpec, seen: ScriptSeen, cell: Cell, measured: Measurement | None
) -> Inspection:
    """What the search needs to know about a script, from its first launch."""
    return Inspection(
        devices=[cell.device],
        device_names={},
        torch_version=seen.torch_version,
        workload_name=script_name(script),
        workload_fingerprint=script_fingerprint(script),
        data_fingerprint="",
        axes=list(variable_axes(script, seen)),
        loaders=[cell.loader],
        default_batch_size=cell.batch_size,
        has_task=True,
        sizes=script_sizes(seen, measured),
    )


def script_sizes(seen: ScriptSeen, measured: Measurement | None) -> RunSizes | None:
    """Known sizes of the real run; a counted epoch overrides `len()`."""
    if measured is not None and measured.sizes is not None:
        return with_length(measured.sizes, epoch_length([measured]))
    loader = train_loader_of(seen)
    batches = seen.epoch_batches or (loader.length if loader is not None else None)
    return RunSizes(epochs=seen.epochs, train_batches=batches)


def script_name(script: ScriptSpec) -> str:
    """`train.py` for `python -u train.py --lr 1`, `pkg.train` for `python -m pkg.train`."""
    words = script.command
    for i, word in enumerate(words):
        if word == "-m" and i + 1 < len(words):
            return words[i + 1]
        if word.endswith((".py", ".sh")):
            return Path(word).name
    return Path(words[0]).name


def script_fingerprint(script: ScriptSpec) -> str:
    """A fingerprint of the command, its variables and its source files."""
    return fingerprint(
        {
            "command": script.command,
            "environment": script.environment,
            "texts": sources_of(script),
        }
    )
