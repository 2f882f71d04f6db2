"""What a recommendation means for a script: how much faster, whether the same, what to change."""

from __future__ import annotations

import math
from pathlib import Path

from ctrkit.core.child_records import Inspection
from ctrkit.core.command_line import filled, placeholders_of
from ctrkit.core.config import Cell, ScriptSpec
from ctrkit.core.folder_changes import FolderChange
from ctrkit.core.records import Finding
from ctrkit.core.script_records import ScriptAnswer, ScriptLoader, ScriptSeen
from ctrkit.probe.candidates import Candidate, candidates_of
from ctrkit.probe.scripts.as_written import train_loader_of
from ctrkit.probe.scripts.experiment import SAMENESS_WORDS, compared
from ctrkit.probe.scripts.patch import PatchError, loader_settings, patched, unified_diff
from ctrkit.probe.search import SearchResult

_NAMES = {
    "start_method": "multiprocessing_context",
    "prefetch": "prefetch_factor",
    "persistent": "persistent_workers",
    "pin": "pin_memory",
}


_TORCH_PREFETCH = 2
#: Samplers whose order does not depend on earlier draws from torch's generator.
_OWN_SEED = ("SequentialSampler", "DistributedSampler", "_InfiniteConstantSampler", "NoneType", "")


def script_answer(
    script: ScriptSpec,
    seen: ScriptSeen,
    cell: Cell,
    search: SearchResult,
    inspection: Inspection,
    changes: FolderChange,
) -> ScriptAnswer:
    """What the recommended cell means for the script.

    Args:
        script: the script.
        seen: what its first launch showed.
        cell: the recommended cell.
        search: what was measured.
        inspection: inspection of the script.
        changes: files that the trials made or changed in its folder.
    """
    as_written = search.plan.baseline
    assert as_written is not None, "the script as written is a cell of its own"
    change, words = change_of(script, seen, cell, as_written)
    # a launch that served or drained batches itself does not show the script's own batches
    full = [t for t in search.trials if t.request.kind == "full"]
    pairs = [(t.cell, t.result.seen) for t in full if t.result.seen is not None]
    same, why = compared(pairs, as_written).get(
        cell, ("same batches" if cell == as_written else "cannot tell", "")
    )
    faster = None if cell == as_written else gain(cell, as_written, search, inspection)
    return ScriptAnswer(
        as_written=as_written,
        faster_x=faster[0] if faster else None,
        faster_x_low=faster[1] if faster else None,
        faster_x_high=faster[2] if faster else None,
        experiment=same,
        experiment_why=why,
        command=filled(script.command, cell),
        change=change,
        change_words=words,
        files_made=list(changes.made),
        files_changed=list(changes.changed),
    )


def gain(
    cell: Cell, as_written: Cell, search: SearchResult, inspection: Inspection
) -> tuple[float, float, float] | None:
    """How many times as fast the cell is, with a 95 % interval; None if not measured.

    Relative errors of a ratio, which are those of its logarithm, add in quadrature.
    """
    known: dict[Cell, Candidate] = {
        one.cell: one for one in candidates_of(search.trials, inspection)
    }
    new, old = known.get(cell), known.get(as_written)
    if new is None or old is None or new.objective <= 0:
        return None
    ratio = old.objective / new.objective
    spread = math.exp(math.hypot(new.relative_half, old.relative_half))
    return ratio, ratio / spread, ratio * spread


def change_of(
    script: ScriptSpec, seen: ScriptSeen, cell: Cell, as_written: Cell
) -> tuple[str, str]:
    """The change to the script as a diff, and in words if no diff is possible."""
    if cell == as_written:
        return "", "the script as written is recommended, so there is no change"
    named = placeholders_of(script.command)
    # the DataLoader's own values if the script says nothing
    silent = {"start_method": seen.default_start_method, "prefetch": _TORCH_PREFETCH}
    own = {axis: getattr(as_written, axis) or silent.get(axis, False) for axis in _NAMES}
    axes = {
        axis: getattr(cell, axis)
        for axis in _NAMES
        if axis not in named and getattr(cell, axis) not in (own[axis], None)
    }
    if not cell.workers and as_written.workers:  # these need workers
        axes |= {axis: None for axis in silent if axis not in named}
    by_text = bool(axes) or ("workers" not in named and cell.workers != as_written.workers)
    if not by_text:
        return "", "run the command above: its flags have the values"
    loader = train_loader_of(seen)
    settings = loader_settings(cell.workers, axes)
    if "workers" in named:
        del settings["num_workers"]
    shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
    try:
        if loader is None:
            raise PatchError("ctrkit did not find where the loader is made")
        return _diff(script, loader, settings), ""
    except PatchError as error:
        return "", f"give the training DataLoader {shown} ({error})"


def _diff(script: ScriptSpec, loader: ScriptLoader, settings: dict[str, object]) -> str:
    if not loader.file:
        raise PatchError("ctrkit did not find where the loader is made")
    path, folder = Path(loader.file), Path(script.folder)
    if not path.is_absolute():
        path = folder / path
    if "site-packages" in path.parts or not path.is_relative_to(folder):
        raise PatchError(f"it is made in {path.name}, which is not part of the script")
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PatchError(f"{path.name} cannot be read: {error}") from None
    after = patched(text, loader.line, settings)
    return unified_diff(text, after, path.relative_to(folder).as_posix())


def clock_finding(seen: ScriptSeen) -> Finding | None:
    """A finding that only the optimizer marks a step; None if a loader does."""
    if seen.clock != "optimizer":
        return None
    return Finding(
        stage="step",
        share=None,
        worth_x=None,
        text="the script has no torch DataLoader, so ctrkit counts from one optimizer step to the "
        "next, and can vary only what a placeholder in the command names",
        confidence="high",
    )


def notes_findings(seen: ScriptSeen) -> list[Finding]:
    """What the observer noted about the script, a finding each."""
    return [
        Finding(stage="script", share=None, worth_x=None, text=note, confidence="")
        for note in seen.notes
    ]


def experiment_finding(answer: ScriptAnswer) -> Finding | None:
    """A finding that the recommended cell may train something else; None if it does not."""
    if answer.experiment in ("", "same batches"):
        return None
    text = SAMENESS_WORDS[answer.experiment]
    return Finding(
        stage="experiment",
        share=None,
        worth_x=None,
        text=f"this configuration {text}" + (f": {answer.experiment_why}"
                                             if answer.experiment_why else ""),
        confidence="high" if answer.experiment != "cannot tell" else "",
    )  # fmt: skip


def later_epochs_finding(seen: ScriptSeen, answer: ScriptAnswer, cell: Cell) -> Finding | None:
    """A finding that the change in the script gives later epochs another order.

    When ctrkit puts in persistent workers, the order stays: the observer draws seeds as the script
    would.
    """
    loader = train_loader_of(seen)
    changes = cell.persistent != answer.as_written.persistent
    if loader is None or not changes or loader.sampler in _OWN_SEED:
        return None
    if "not seeded" in answer.experiment_why:
        return None
    less = "less" if cell.persistent else "more"
    return Finding(
        stage="experiment",
        share=None,
        worth_x=None,
        text=f"if you write this change into the script, a seeded shuffle ({loader.sampler}) takes "
        f"another order from the second epoch on, because torch draws one seed {less} in each "
        "later epoch. With ctrkit train --config the order stays as written",
        confidence="high",
    )
