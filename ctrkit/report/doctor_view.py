"""Shows what `ctrkit doctor` found: hazards, what was checked, time limits of stages."""

from __future__ import annotations

from collections.abc import Iterator

from ctrkit.core.cell import CELL_AXES, Cell
from ctrkit.core.checkup import Checkup, HazardFinding, MachineLimits
from ctrkit.core.child_records import LoaderPart
from ctrkit.core.script_records import ScriptLoader, ScriptSeen
from ctrkit.core.units import format_bytes, format_count
from ctrkit.report.blocks import Block, Bullets, Column, Facts, Paragraph, Report, Section, Table
from ctrkit.report.words import clean, plural, sentence

_HEADINGS = (("refusal", "Refused"), ("warning", "Warning"), ("note", "Good to know"))


def doctor_view(checkup: Checkup) -> Report:
    """The report on a checkup: hazards first, the worst at the top."""
    name = clean(f"{checkup.inspection.workload_name} {checkup.phase}".strip())
    started = "nothing started" if checkup.script is None else "started up to its first steps"
    title = f"Checkup of {name}: {plural(len(checkup.cells), 'cell')}, {started}"
    blocks: list[Block] = [_verdict(checkup)]
    if checkup.notes:
        blocks.append(Bullets(tuple(sentence(note) for note in checkup.notes)))
    sections = [Section("", tuple(blocks))]
    for cell, reason in checkup.invalid:
        rows = (("what", sentence(reason)), ("cell", cell.name))
        sections.append(Section("Refused: no such cell", (Facts(rows),)))
    for level, heading in _HEADINGS:
        sections += [
            Section(f"{heading}: {finding.hazard.name}", (_finding(finding, checkup.cells),))
            for finding in checkup.findings
            if finding.hazard.level == level
        ]
    seen = checkup.script
    what = _workload(checkup) if seen is None else Section("The script", (_script(seen),))
    sections += [_machine(checkup), what, _allowances(checkup)]
    return Report(title, (), tuple(sections))


def _verdict(checkup: Checkup) -> Paragraph:
    """One sentence: how much was found."""
    refused = len(checkup.of_level("refusal")) + len(checkup.invalid)
    warned = len(checkup.of_level("warning"))
    if refused:
        rest = f", and {plural(warned, 'warning')}" if warned else ""
        return Paragraph(f"{plural(refused, 'refusal')}{rest}.", "bad")
    if warned:
        return Paragraph(f"{plural(warned, 'warning')}; every configuration may run.")
    return Paragraph(
        f"No problem found: none of {checkup.rules} rules on known hazards applies to these "
        "configurations.",
        "good",
    )


def _finding(finding: HazardFinding, cells: tuple[Cell, ...]) -> Facts:
    hazard = finding.hazard
    rows = [("what", sentence(hazard.text)), ("instead", sentence(hazard.advice))]
    rows.append(("where", _which_cells(finding.cells, cells)))
    rows += [("see", reference) for reference in hazard.references]
    return Facts(tuple(rows))


def _which_cells(concerned: tuple[Cell, ...], cells: tuple[Cell, ...]) -> str:
    """How these cells differ from the others: `loader rows, batches; workers 2, 4`."""
    if len(concerned) == len(cells):
        return "every cell" if len(cells) > 1 else cells[0].name
    words = []
    for axis in CELL_AXES:
        here, all_ = (
            dict.fromkeys(v for v in (getattr(c, axis) for c in some) if v is not None)
            for some in (concerned, cells)
        )
        if here and here != all_:
            words.append(f"{axis.replace('_', ' ')} {', '.join(map(str, here))}")
    return "; ".join(words) or ", ".join(cell.name for cell in concerned)


def _machine(checkup: Checkup) -> Section:
    limits, versions = checkup.limits, checkup.versions
    rows = [
        ("system", f"{limits.system}, Python {limits.python}, torch {versions.get('torch', '?')}"),
        ("devices", ", ".join(checkup.inspection.devices)),
        ("cores", _cores_words(limits)),
        ("memory", _memory_words(limits)),
        ("shared memory", _shared_words(limits)),
        ("open files", _files_words(limits)),
        ("start methods", f"{', '.join(limits.start_methods)} (the first is the default)"),
    ]
    strategy = checkup.examination.sharing_strategy
    if strategy:
        rows.append(("tensors shared", f"by {strategy}"))
    return Section("This machine", (Facts(tuple(rows)),))


def _cores_words(limits: MachineLimits) -> str:
    if limits.cpu_quota_cores is not None and limits.visible_cores is not None:
        return f"{limits.cpu_quota_cores:g} of {limits.visible_cores} (the control group's quota)"
    return format_count(limits.cores)


def _memory_words(limits: MachineLimits) -> str:
    if limits.memory_bytes is None:
        return "not known"
    words = "still allowed by the control group" if limits.memory_is_capped else "available"
    return f"{format_bytes(limits.memory_bytes)} {words}"


def _shared_words(limits: MachineLimits) -> str:
    if limits.shm_bytes is None:
        return "no /dev/shm here: not limited apart from memory"
    return f"{format_bytes(limits.shm_bytes)} free in /dev/shm"


def _files_words(limits: MachineLimits) -> str:
    most = limits.open_files
    return "no limit" if most is None else f"{format_count(most)} a process (ulimit -n)"


def _workload(checkup: Checkup) -> Section:
    """What examining the loader showed; unknown facts are named, too."""
    examination = checkup.examination
    needs = examination.needs
    rows = [("loader", clean(examination.loader) or "could not be made (see above)")]
    rows += [(part.name, _part_words(part)) for part in examination.parts]
    if examination.loader and not examination.parts:
        rows.append(("parts", "no torch DataLoader in it, so nothing that could be pickled"))
    weight = format_bytes(needs.worker_bytes)
    rows.append(("a worker", f"{weight} of its own if started with spawn or forkserver"))
    if needs.row_bytes is None:
        rows.append(
            ("a row", "unknown before a batch is taken: the rules on batches were not applied")
        )
    else:
        tensors = plural(needs.tensors_per_batch or 0, "tensor")
        rows.append(("a row", f"{format_bytes(needs.row_bytes)} in a batch of {tensors}"))
    if examination.start_method and not checkup.uses_start_method:
        rows.append(
            ("workers start", f"by {examination.start_method}: the loader names no start method")
        )
    return Section("The workload (ctrkit took no batch)", (Facts(tuple(rows)),))


def _script(seen: ScriptSeen) -> Facts:
    """What the observer saw of a script; unknown facts are named, too."""
    rows = [
        (
            "trained on" if one.number == seen.train_loader else f"DataLoader {one.number}",
            _loader_words(one),
        )
        for one in seen.loaders
    ]
    if not seen.loaders:
        rows.append(("loader", "no torch DataLoader: only placeholders in the command can vary"))
    rows.append(("its length", _length_words(seen)))
    if seen.batches_per_group > 1:
        rows.append(("accumulation", f"{seen.batches_per_group} batches an optimizer step"))
    if seen.fetched_ahead:
        rows.append(("fetched ahead", plural(seen.fetched_ahead, "batch")))
    rows += [("note", sentence(note)) for note in seen.notes]
    return Facts(tuple(rows))


def _length_words(seen: ScriptSeen) -> str:
    """`at most 5 epochs (train.py:23: for epoch in range(args.epochs))`."""
    if seen.epochs is not None:
        words = plural(seen.epochs, "epoch")
    elif seen.steps is not None:
        words = plural(seen.steps, "optimizer step" if seen.steps_by_optimizer else "step")
    else:
        return "not known: give --epochs"
    told_by = f" ({clean(seen.epochs_from)})" if seen.epochs_from else ""
    return ("at most " if seen.epochs_at_most else "") + words + told_by


def _loader_words(one: ScriptLoader) -> str:
    length = "no length" if one.length is None else f"len() {format_count(one.length)}"
    size = "" if one.batch_size is None else f", batch {format_count(one.batch_size)}"
    place = f", made at {clean(one.file, 200)}:{one.line}" if one.file else ""
    return f"{clean(one.dataset, 80)}, {length}{size}, {plural(one.workers, 'worker')}{place}"


def _part_words(part: LoaderPart) -> str:
    words = list(_part_facts(part))
    return f"{clean(part.kind)}: {', '.join(words)}"


def _part_facts(part: LoaderPart) -> Iterator[str]:
    if part.error:
        yield "cannot be pickled" + (f" ({clean(part.place)})" if part.place != part.name else "")
        return
    yield f"{format_bytes(part.pickled_bytes)} pickled"
    if part.shared_bytes:
        yield f"{format_bytes(part.shared_bytes)} of tensors in shared memory"
    if part.memmap_bytes:
        yield f"{format_bytes(part.memmap_bytes)} of it memory maps"


def _allowances(checkup: Checkup) -> Section:
    columns = (
        Column("stage", right=False),
        Column("silent"),
        Column("if it burns CPU", "burning"),
        Column("why", right=False),
    )
    rows = tuple(
        (
            allowance.stage,
            f"{allowance.idle_s:g} s",
            f"{allowance.burning_s:g} s",
            clean(allowance.reason),
        )
        for allowance in checkup.allowances
    )
    return Section("Time limits: how long each stage may make no progress", (Table(columns, rows),))
